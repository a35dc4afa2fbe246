-- append: adds the next sealed entries to one stream, if and only if the stream is at the
-- predecessor that the caller names, and has room.
--
-- Called by:  stream::append, several in flight per stream; each names its predecessor, so if one
--             fails all later ones fail too and the order holds.
-- Keys:       1 the stream.
-- Arguments:  1 the expected last-generated-id; 2 entries that the stream may have at most, 0 for no
--             bound; 3 bytes at which it takes no more; 4 "trim" if a stream without groups is to lose its
--             oldest entries rather than to be held; 5 how many entries follow; 6 how many fields an
--             entry may have, and their names; then, for each entry, its ID and as many values, of which
--             those that are absent are a NUL.
-- Returns:    {status, last-generated-id}; status "appended", "elsewhere" (the stream is not there;
--             nothing was changed), "type" (the key holds something else; nothing was changed),
--             "refused" with Redis's own words (the first XADD was refused; nothing was changed);
--             {"full", entries that still fit, "entries" or "bytes", the group that needs the oldest
--             entry or "", how many groups there are}: nothing was changed.
-- Form:       Lua does not roll back, so everything that can be refused is checked before the first
--             XADD, and memory only at the first write. XADD per entry, because unpacking all
--             arguments at once overflows the Lua stack at about 8,000. Names once and values per entry:
--             with the names before each value Redis took 7.8 microseconds an entry where this takes
--             6.5, and bare XADDs, which cannot ask where the stream is, take 4 (medians of 7, 312
--             entries of 200 bytes a call).
local kind, last = place(KEYS[1])
if kind ~= 'stream' and kind ~= 'none' then
    return {'type', kind}
end
if last ~= ARGV[1] then
    return {'elsewhere', last}
end
local limit, bytes, adding = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[5])
if limit > 0 and kind == 'stream' then
    local length, bound = redis.call('XLEN', KEYS[1]), 'entries'
    local room = limit - length
    if length > 0 and redis.call('MEMORY', 'USAGE', KEYS[1]) >= bytes then
        room, bound = 0, 'bytes'
    end
    local groups = room < adding and redis.call('XINFO', 'GROUPS', KEYS[1]) or {}
    if room < adding and #groups == 0 and ARGV[4] == 'trim' then
        if adding > limit then return {'full', ARGV[2], bound, '', '0'} end
        redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', limit - adding)
        while bound == 'bytes' and length > 0 and redis.call('MEMORY', 'USAGE', KEYS[1]) >= bytes do
            length = math.floor(redis.call('XLEN', KEYS[1]) / 2)
            redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', length)
        end
    elseif room < adding then
        local slowest, oldest = '', nil
        for _, flat in ipairs(groups) do
            local group = fields(flat)
            local pending = group['pending'] > 0 and redis.call('XPENDING', KEYS[1], group['name'])[2]
            local needed = needs(group, pending)
            if not oldest or after(oldest, needed) then slowest, oldest = group['name'], needed end
        end
        return {'full', string.format('%.0f', math.max(room, 0)), bound, slowest, tostring(#groups)}
    end
elseif limit > 0 and adding > limit then
    return {'full', ARGV[2], 'entries', '', '0'}
end
local width = tonumber(ARGV[6])
local names, begin, add = {}, 7 + width, {'XADD', KEYS[1]}
for field = 1, width do names[field] = ARGV[6 + field] end
for at = begin, #ARGV, 1 + width do
    add[3] = ARGV[at]
    local filled = 3
    for field = 1, width do
        local value = ARGV[at + field]
        if value ~= '\0' then
            add[filled + 1], add[filled + 2], filled = names[field], value, filled + 2
        end
    end
    -- A refusal is handed on as text, because Redis before 7 wraps an error of a script so that its
    -- code is lost.
    local added = redis.pcall(unpack(add, 1, filled))
    if type(added) == 'table' then
        return {at == begin and 'refused' or 'broken', added.err}
    end
    last = added
end
return {'appended', last}
