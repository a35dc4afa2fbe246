-- position: where one stream is.
--
-- Called by:  stream::positions, pipelined over all streams, at each audit. Writes nothing.
-- Keys:       1 the stream.
-- Returns:    {kind, last-generated-id}; kind as TYPE says it, "none" with 0-0 for a missing key.
-- Form:       a script, because XINFO STREAM alone would send the first and last entry whole.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'stream' then
    return {kind, '0-0'}
end
local info = redis.call('XINFO', 'STREAM', KEYS[1])
for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
        return {kind, info[i + 1]}
    end
end
