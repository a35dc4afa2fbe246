-- keep: says anew that entries are being worked on, so that nobody claims them.
--
-- Called by:  stream::consumer, several times within the time after which others claim.
-- Keys:       1 the stream.
-- Arguments:  1 group, 2 consumer, 3 the ID after which to begin, 4 entries at most.
-- Returns:    the last ID looked at, or "" if there are no more.
-- Form:       a script, so that nothing is taken from the one who has it by now. An entry that somebody
--             removed is left out, for from 7.0 on XCLAIM lets go of it.
local listed = redis.call('XPENDING', KEYS[1], ARGV[1], '(' .. ARGV[3], '+', ARGV[4], ARGV[2])
for _, one in ipairs(listed) do
    if #redis.call('XRANGE', KEYS[1], one[1], one[1]) > 0 then
        redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, one[1], 'JUSTID')
    end
end
return #listed > 0 and listed[#listed][1] or ''
