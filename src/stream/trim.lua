-- trim: removes what every consumer group has acknowledged, up to a floor that is stored.
--
-- Called by:  stream::trim, pipelined over streams, after a checkpoint of them has been stored.
-- Keys:       1 the stream.
-- Arguments:  1 the floor as stored: an ID, with what is at or below it acknowledged; 2 "groups", or
--             "ungrouped" to remove up to the floor only where there is no group.
-- Returns:    how many entries were removed.
-- Form:       what groups need is asked again in the same step, for a floor that was true a moment ago
--             is not, where somebody has set a group back or made a new one since. Without a group nothing
--             is removed by acknowledgement. XTRIM ... ACKED (Redis 8.2) removes no other entries where
--             there are groups, and everything where there is none, so it is not used.
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then return 0 end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
if not first then return 0 end
local keep, groups = following(ARGV[1]), redis.call('XINFO', 'GROUPS', KEYS[1])
if (ARGV[2] == 'groups') ~= (#groups > 0) then return 0 end
for _, flat in ipairs(groups) do
    local group = fields(flat)
    local needed = needs(group, group['pending'] > 0 and redis.call('XPENDING', KEYS[1], group['name'])[2])
    if after(keep, needed) then keep = needed end
end
if not after(keep, first[1]) then return 0 end
-- Whole nodes first, bounded, so that a million acknowledged at once do not stall the server; what is
-- left of a node goes when no whole one is left.
local removed = redis.call('XTRIM', KEYS[1], 'MINID', '~', keep, 'LIMIT', 100000)
if removed == 0 then removed = redis.call('XTRIM', KEYS[1], 'MINID', '=', keep) end
return removed
