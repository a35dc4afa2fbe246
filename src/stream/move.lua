-- move: makes a stream go on behind a position, without the entries up to it.
--
-- Called by:  stream::append, for a stream that is gone, or older than what every consumer group
--             has acknowledged; the entries behind the position are appended next.
-- Keys:       1 the stream.
-- Arguments:  1 the expected last-generated-id, 0-0 for a missing key; 2 the position.
-- Returns:    as append does.
-- Form:       XSETID needs a key, and only XGROUP CREATE makes an empty stream.
local kind, last = place(KEYS[1])
if kind ~= 'stream' and kind ~= 'none' then
    return {'type', kind}
end
if last ~= ARGV[1] then
    return {'elsewhere', last}
end
if kind == 'none' then
    redis.call('XGROUP', 'CREATE', KEYS[1], 'outbox:move', '0', 'MKSTREAM')
    redis.call('XGROUP', 'DESTROY', KEYS[1], 'outbox:move')
end
redis.call('XSETID', KEYS[1], ARGV[2])
return {'appended', ARGV[2]}
