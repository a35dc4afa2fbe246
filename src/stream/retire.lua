-- retire: removes a consumer from a group, if and only if it is still idle and has nothing pending.
--
-- Called by:  stream::survey, for a review that may remove.
-- Keys:       1 the stream.
-- Arguments:  1 the group; 2 the consumer; 3 milliseconds from which it counts as idle.
-- Returns:    1 if it was removed, 0 if not.
-- Form:       a script, so that it is given nothing between the question and the removal: XGROUP DELCONSUMER
--             drops what a consumer has pending, and nobody would be given that again.
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then return 0 end
local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])
if consumers.err then return 0 end
for _, described in ipairs(consumers) do
    local consumer = fields(described)
    if consumer['name'] == ARGV[2] then
        if consumer['pending'] > 0 or consumer['idle'] < tonumber(ARGV[3]) then return 0 end
        redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
        return 1
    end
end
return 0
