-- restore: puts consumer groups that are there where they were, and a stream that is gone or older than
-- its floor behind its floor, before any entry follows.
--
-- Called by:  stream::restore, for a stream that has lost something, and for a copy that begins behind
--             what was purged.
-- Keys:       1 the stream.
-- Arguments:  1 the expected last-generated-id, 0-0 for a missing key; 2 the floor, and 3 its number; then,
--             for each group, its name, its position, and the entries it has read, or "".
-- Returns:    {"restored", last-generated-id, groups that are not where they were, names of those that are
--             gone}, or as append does.
-- Form:       positions before entries, for a group that a consumer has made again at "$" would skip what
--             it was behind. Groups that are gone are made by pend, in one step with what they had not
--             acknowledged. XSETID needs a key, and only XGROUP CREATE makes an empty stream; it comes
--             before the groups, for a group's count of entries read is cut to those ever added.
local key = KEYS[1]
local kind, last = place(key)
if kind ~= 'stream' and kind ~= 'none' then
    return {'type', kind}
end
if last ~= ARGV[1] then
    return {'elsewhere', last}
end
if kind == 'none' then
    local made = redis.pcall('XGROUP', 'CREATE', key, 'outbox:restore', '0', 'MKSTREAM')
    if failed(made) then return {'refused', made.err} end
    redis.call('XGROUP', 'DESTROY', key, 'outbox:restore')
end
if after(ARGV[2], last) then
    local set = redis.pcall('XSETID', key, ARGV[2], 'ENTRIESADDED', ARGV[3], 'MAXDELETEDID', ARGV[2])
    if failed(set) then set = redis.pcall('XSETID', key, ARGV[2]) end
    if failed(set) then return {'refused', set.err} end
    last = ARGV[2]
end
local were, changed, gone = {}, 0, {}
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', key)) do
    local group = fields(flat)
    were[group['name']] = group['last-delivered-id']
end
for i = 4, #ARGV, 3 do
    local name, at, read = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    if were[name] then set_group('SETID', key, name, at, read) else gone[#gone + 1] = name end
    if were[name] ~= at then changed = changed + 1 end
end
return {'restored', last, changed, gone}
