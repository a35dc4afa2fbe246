-- survey: what a review asks of a stream, its groups and their consumers. No value leaves Redis.
--
-- Called by:  stream::survey. Writes nothing.
-- Keys:       1 the stream.
-- Arguments:  1 milliseconds from which a pending entry and a consumer count as idle, or -1 for never;
--             2 pending entries looked at per group, at most; 3 idle consumers named per group, at most.
-- Returns:    {} if there is no such stream, or {entries, last-generated-id, names of the fields of its
--             first entry, groups}; per group {name, pending entries looked at that are idle, the longest
--             idle of them in milliseconds, names of idle consumers that have nothing pending}.
-- Form:       a script, for XINFO STREAM itself answers with whole entries.
if redis.call('TYPE', KEYS[1]).ok ~= 'stream' then return {} end
local stream = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
local first, names = stream['first-entry'], {}
if first then
    for i = 1, #first[2], 2 do names[#names + 1] = first[2][i] end
end
local idle, groups = tonumber(ARGV[1]), {}
local listed = idle >= 0 and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}
for _, flat in ipairs(listed) do
    local group = fields(flat)
    local stale, oldest, consumers = 0, 0, {}
    local pending = {}
    if group['pending'] > 0 then
        pending = redis.call('XPENDING', KEYS[1], group['name'], '-', '+', ARGV[2])
    end
    for _, entry in ipairs(pending) do
        if entry[3] >= idle then stale = stale + 1 end
        if entry[3] >= idle and entry[3] > oldest then oldest = entry[3] end
    end
    for _, described in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group['name'])) do
        local consumer = fields(described)
        local wanted = consumer['pending'] == 0 and consumer['idle'] >= idle
        if wanted and #consumers < tonumber(ARGV[3]) then consumers[#consumers + 1] = consumer['name'] end
    end
    groups[#groups + 1] = {group['name'], stale, oldest, consumers}
end
return {stream['length'], stream['last-generated-id'], names, groups}
