-- expiring: makes an empty stream that expires, or says anew when one does, if and only if the key is
-- as the caller left it.
--
-- Called by:  stream::expiring, before the first append to a copy of a part of the log, after each, and
--             to take one back.
-- Keys:       1 the stream.
-- Arguments:  1 what the key must hold, as TYPE says it: "none" or "stream"; 2 its last-generated-id,
--             0-0 for a missing key; 3 seconds until it expires, 0 for at once.
-- Returns:    as append does.
-- Form:       a script, so that no key of somebody else ever gets an expiry; and the expiry is there
--             before the first entry, so that whoever is killed leaves nothing for ever.
local kind, last = place(KEYS[1])
if kind ~= 'stream' and kind ~= 'none' then
    return {'type', kind}
end
if kind ~= ARGV[1] or last ~= ARGV[2] then
    return {'elsewhere', last}
end
if kind == 'none' then
    local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], 'outbox:expiring', '0', 'MKSTREAM')
    if made.err then
        return {'refused', made.err}
    end
    redis.call('XGROUP', 'DESTROY', KEYS[1], 'outbox:expiring')
end
redis.call('EXPIRE', KEYS[1], ARGV[3])
return {'appended', last}
