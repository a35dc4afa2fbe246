-- rebuild: puts a copy that was filled beside a stream in its place, in one step, with the consumer
-- groups of the old one.
--
-- Called by:  stream::rebuild, once the copy has all that the stream may have.
-- Keys:       1 the stream, of any type, or missing; 2 the copy, a stream that nobody reads.
-- Arguments:  1 the last-generated-id of the old stream if its end is somebody else's, else empty;
--             2 the position up to which the old stream was ours, for groups that were given more;
--             3 pending entries carried over per group at most.
-- Returns:    {"done", groups, pending}, or {"moved", last-generated-id}: the old stream has got what
--             the copy does not have, and nothing was changed.
-- Form:       a script, so that no consumer sees the stream without its entries or its groups. A group
--             with more pending entries than the bound goes back to before the first of them: it is
--             given entries again rather than never.
local kind, last = place(KEYS[1])
local _, copied = place(KEYS[2])
if last ~= ARGV[1] and after(last, copied) then
    return {'moved', last}
end
local groups, carried = 0, 0
if kind == 'stream' then
    for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
        local group = fields(flat)
        local name, at = group['name'], group['last-delivered-id']
        local pending = redis.call('XPENDING', KEYS[1], name, '-', '+', ARGV[3] + 1)
        if after(at, ARGV[2]) then at = ARGV[2] end
        if #pending > tonumber(ARGV[3]) and not after(pending[1][1], ARGV[2]) then
            local ms, n = pending[1][1]:match('^(%d+)-(%d+)$')
            -- The position before: the first is ours, and then its n is at least 1.
            at = ms .. '-' .. string.format('%.0f', tonumber(n) - 1)
            pending = {}
        end
        local read = at == group['last-delivered-id'] and group['entries-read'] or ''
        local refused = set_group('CREATE', KEYS[2], name, at, read)
        if refused then error(refused) end
        for _, entry in ipairs(pending) do
            local id, consumer, idle, count = entry[1], entry[2], entry[3], entry[4]
            if #redis.call('XRANGE', KEYS[2], id, id) > 0 then
                redis.call('XCLAIM', KEYS[2], name, consumer, 0, id, 'IDLE', idle, 'RETRYCOUNT', count,
                           'FORCE', 'JUSTID')
                carried = carried + 1
            end
        end
        groups = groups + 1
    end
end
-- UNLINK first, because RENAME over a large value would free it at once and stall the server.
redis.call('UNLINK', KEYS[1])
redis.call('RENAME', KEYS[2], KEYS[1])
return {'done', groups, carried}
