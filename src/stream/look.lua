-- look: a stream with its consumer groups, as they are at one moment.
--
-- Called by:  stream::view, pipelined over streams, at each checkpoint and for commands. Writes nothing.
-- Keys:       1 the stream.
-- Arguments:  1 pending entries listed per group at most.
-- Returns:    {kind}, or {kind, last-generated-id, first ID or "", entries, bytes, highest ID removed by
--             XDEL or "", groups}; per group {name, last-delivered-id, entries read or -1, number of the last
--             entry it was given, number up to which it has acknowledged, pending entries, of these no
--             longer in the stream, milliseconds since a consumer asked or -1, listed entries}; per entry
--             {ID, consumer, given at, deliveries}, none if there are more than the bound.
-- Form:       a script, so that all of it is of one moment. Numbers are read off entries that are there,
--             for a group can be set to an ID that no entry has.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'stream' then return {kind} end
local stream = fields(redis.call('XINFO', 'STREAM', KEYS[1]))
local last, first = stream['last-generated-id'], stream['first-entry'] and stream['first-entry'][1]
local removed = stream['max-deleted-entry-id']
local bound = tonumber(ARGV[1])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) * 1000 + math.floor(tonumber(clock[2]) / 1000)
-- Number of the last entry before an ID; what was removed counts as there.
local function number_before(id)
    local before
    if after(id, last) or not first then
        before = last
    elseif not after(id, first) then
        return string.format('%.0f', math.max(0, tonumber(first:match('%-(%d+)$')) - 1))
    else
        before = redis.call('XREVRANGE', KEYS[1], '(' .. id, '-', 'COUNT', 1)[1][1]
        -- An old state that was moved on to its floor has a hole below that.
        if removed and after(removed, before) and after(id, removed) then before = removed end
    end
    return before:match('%-(%d+)$')
end
local groups = {}
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local group = fields(flat)
    local name, delivered = group['name'], group['last-delivered-id']
    local pending = {}
    if group['pending'] > 0 then pending = redis.call('XPENDING', KEYS[1], name, '-', '+', bound + 1) end
    local needed, dangling = needs(group, pending[1] and pending[1][1]), 0
    for _, entry in ipairs(pending) do
        local id = entry[1]
        local may_be = first and (id == first or after(id, first))
        if may_be and #redis.call('XRANGE', KEYS[1], id, id) > 0 then break end
        dangling = dangling + 1
    end
    local floor = number_before(needed)
    if not after(needed, first or last) then
        -- What it needs has been removed; its own number tells, unless it is an ID that no entry had.
        local number = tonumber(needed:match('%-(%d+)$')) - 1
        floor = string.format('%.0f', math.max(0, math.min(number, tonumber(floor))))
    end
    local idle = -1
    if group['pending'] > 0 or after(last, delivered) then
        for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], name)) do
            local asked = fields(consumer)['idle']
            if idle < 0 or asked < idle then idle = asked end
        end
    end
    local listed = {}
    if #pending <= bound then
        for i, entry in ipairs(pending) do
            listed[i] = {entry[1], entry[2], now - entry[3], entry[4]}
        end
    end
    groups[#groups + 1] = {name, delivered, group['entries-read'] or -1, number_before(following(delivered)),
                           floor, group['pending'], dangling, idle, listed}
end
return {kind, last, first or '', stream['length'], redis.call('MEMORY', 'USAGE', KEYS[1]) or 0,
        removed or '', groups}
