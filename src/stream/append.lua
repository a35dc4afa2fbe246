-- append: adds the next sealed entries to one stream, if and only if the stream is at the
-- predecessor that the caller names.
--
-- Called by:  stream::append, several in flight per stream; each names its predecessor, so if one
--             fails all later ones fail too and the order holds.
-- Keys:       1 the stream.
-- Arguments:  1 the expected last-generated-id; then, for each entry, the number of its arguments
--             and these: ID, field, value, field, value …
-- Returns:    {status, last-generated-id}; status "appended", "elsewhere" (the stream is not there;
--             nothing was changed), "type" (the key holds something else; nothing was changed),
--             "refused" with Redis's own words (the first XADD was refused; nothing was changed).
-- Form:       Lua does not roll back, so everything that can be refused is checked before the first
--             XADD, and memory only at the first write. XADD per entry, because unpacking all
--             arguments at once overflows the Lua stack at about 8,000.
local kind, last = place(KEYS[1])
if kind ~= 'stream' and kind ~= 'none' then
    return {'type', kind}
end
if last ~= ARGV[1] then
    return {'elsewhere', last}
end
local i = 2
while i <= #ARGV do
    local count = tonumber(ARGV[i])
    -- A refusal is handed on as text, because Redis before 7 wraps an error of a script so that its
    -- code is lost.
    local added = redis.pcall('XADD', KEYS[1], unpack(ARGV, i + 1, i + count))
    if type(added) == 'table' then
        return {i == 2 and 'refused' or 'broken', added.err}
    end
    last = added
    i = i + count + 1
end
return {'appended', last}
