-- pend: gives a consumer group back what it had not acknowledged; makes it first if it is gone.
--
-- Called by:  stream::restore, once the entries are in the stream again.
-- Keys:       1 the stream.
-- Arguments:  1 the expected last-generated-id; 2 the group; 3 the position that the list is of; 4 entries it
--             had read, or ""; 5 "place" if it was gone and is to be at that position, whoever has made it
--             meanwhile, else ""; then, for each entry, its ID, consumer, when it was last given, and how
--             often; in the order of IDs.
-- Returns:    {"done", entries given back, entries acknowledged: of what a rolled back group still listed
--             up to that position, those that it had acknowledged}; or, with nothing changed, as append
--             does.
-- Form:       one step, so that a consumer that comes back finds its list with its group. An entry that
--             is not in the stream is not given back: from 7.0 on XCLAIM would refuse it, before it would
--             make a pending entry that can never be read.
local key, name, at = KEYS[1], ARGV[2], ARGV[3]
local kind, last = place(key)
if kind ~= 'stream' and kind ~= 'none' then return {'type', kind} end
-- A request that comes late must not take back what has been done since.
if kind == 'none' or last ~= ARGV[1] then return {'elsewhere', last} end
if ARGV[5] == 'place' then
    local refused = set_group('CREATE', key, name, at, ARGV[4])
    if refused and refused:find('BUSYGROUP', 1, true) then
        refused = set_group('SETID', key, name, at, ARGV[4])
    end
    if refused then return {'refused', refused} end
end
local listed, claimed, acknowledged = {}, 0, 0
for i = 6, #ARGV, 4 do listed[ARGV[i]] = true end
local from = '-'
while true do
    local page = redis.call('XPENDING', key, name, from, at, 1000)
    for _, entry in ipairs(page) do
        if not listed[entry[1]] then
            acknowledged = acknowledged + redis.call('XACK', key, name, entry[1])
        end
    end
    if #page < 1000 then break end
    from = '(' .. page[#page][1]
end
for i = 6, #ARGV, 4 do
    local id, consumer, given, count = ARGV[i], ARGV[i + 1], ARGV[i + 2], ARGV[i + 3]
    if #redis.call('XRANGE', key, id, id) > 0 then
        redis.call('XCLAIM', key, name, consumer, 0, id, 'TIME', given, 'RETRYCOUNT', count,
                   'FORCE', 'JUSTID')
        claimed = claimed + 1
    end
end
return {'done', claimed, acknowledged}
