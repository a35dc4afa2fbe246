-- given: what a consumer was given and has not acknowledged, without counting as given again.
--
-- Called by:  stream::consumer, when a worker begins, after an error, and now and then.
-- Keys:       1 the stream.
-- Arguments:  1 group, 2 consumer, 3 the ID after which to begin, 4 entries at most.
-- Returns:    per entry {ID, milliseconds since it was given, deliveries, fields, or nothing if somebody has
--             removed it}, in order.
-- Form:       a script, so that entries and their counts are of one moment. Not XREADGROUP from an ID,
--             which raises the count of what is only looked at.
local listed = redis.call('XPENDING', KEYS[1], ARGV[1], '(' .. ARGV[3], '+', ARGV[4], ARGV[2])
local given = {}
for _, one in ipairs(listed) do
    local found = redis.call('XRANGE', KEYS[1], one[1], one[1])
    given[#given + 1] = {one[1], one[3], one[4], found[1] and found[1][2] or {}}
end
return given
