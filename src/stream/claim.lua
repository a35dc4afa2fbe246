-- claim: entries that other consumers were given and have let lie, given to this one.
--
-- Called by:  stream::consumer, now and then, while a worker has room.
-- Keys:       1 the stream.
-- Arguments:  1 group, 2 consumer, 3 milliseconds that they must have lain, 4 entries at most.
-- Returns:    as given does.
-- Form:       not XAUTOCLAIM: from 7.0 on that lets go of entries that somebody removed, and they would
--             never be worked on, although the relay can put them back. Neither is the count of deliveries
--             raised: they may have waited behind the one that killed their worker.
local given, from = {}, '-'
-- What cannot be claimed must not stand before what can; a few pages at most, so that nobody waits for it.
for _ = 1, 10 do
    local listed = redis.call('XPENDING', KEYS[1], ARGV[1], 'IDLE', ARGV[3], from, '+', ARGV[4])
    for _, one in ipairs(listed) do
        local found = redis.call('XRANGE', KEYS[1], one[1], one[1])
        if one[2] ~= ARGV[2] and found[1] and #given < tonumber(ARGV[4]) then
            redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, one[1], 'JUSTID')
            given[#given + 1] = {one[1], one[3], one[4], found[1][2]}
        end
    end
    if #listed == 0 or #given == tonumber(ARGV[4]) then break end
    from = '(' .. listed[#listed][1]
end
return given
