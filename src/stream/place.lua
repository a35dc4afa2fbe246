-- place: what a key holds, as TYPE says it, and where a stream is; 0-0 for anything else.
--
-- Called by:  stream::connect, which puts it before append, move, position, rebuild and expiring.
-- Keys:       none of its own; it is given the one to look at.
local function place(key)
    local kind = redis.call('TYPE', key).ok
    if kind == 'stream' then
        local info = redis.call('XINFO', 'STREAM', key)
        for i = 1, #info, 2 do
            if info[i] == 'last-generated-id' then
                return kind, info[i + 1]
            end
        end
    end
    return kind, '0-0'
end

