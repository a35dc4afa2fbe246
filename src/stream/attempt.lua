-- attempt: counts one more attempt with an entry that this consumer still has, or takes one back.
--
-- Called by:  stream::consumer, before every attempt but the first, and when one could not be made.
-- Keys:       1 the stream.
-- Arguments:  1 group, 2 consumer, 3 ID, 4 what is added: 1 or -1.
-- Returns:    deliveries with this one, or 0 if the entry is another consumer's, acknowledged or removed.
-- Form:       a script, so that nothing is taken from the one who has it by now. The count is kept in Redis,
--             and in the relay's checkpoints, so that it outlives a worker that the entry kills.
local had = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[3], ARGV[3], 1)[1]
if not had or had[2] ~= ARGV[2] or #redis.call('XRANGE', KEYS[1], ARGV[3], ARGV[3]) == 0 then return 0 end
local count = math.max(1, had[4] + tonumber(ARGV[4]))
redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[3], 'RETRYCOUNT', count, 'JUSTID')
return count
