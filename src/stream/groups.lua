-- groups: what the consumer groups of a stream still need.
--
-- Called by:  stream::connect, which puts it before append, look, pend, rebuild, restore and trim.
-- Keys:       none of its own.
--
-- The first ID that a group needs is its first pending entry, or what comes after the last one it was
-- given. A pending entry that somebody removed counts as well, until the group has let go of it: nobody
-- has said that its work is done.
local function following(id)
    local ms, n = id:match('^(%d+)-(%d+)$')
    -- The highest number there is, as before a time that somebody has set a group to.
    if n == '18446744073709551615' then return string.format('%.0f', tonumber(ms) + 1) .. '-0' end
    -- Numbers beyond what Lua counts exactly are no entry's.
    if #n > 15 then return id end
    return ms .. '-' .. string.format('%.0f', tonumber(n) + 1)
end
local function needs(group, first_pending)
    local needed = following(group['last-delivered-id'])
    if first_pending and after(needed, first_pending) then return first_pending end
    return needed
end
local function failed(reply) return type(reply) == 'table' and reply.err end
-- Makes a group or sets it; Redis before 7 knows no count of entries read.
local function set_group(verb, key, name, at, read)
    local set = read ~= '' and redis.pcall('XGROUP', verb, key, name, at, 'ENTRIESREAD', read)
    if not set or failed(set) then set = redis.pcall('XGROUP', verb, key, name, at) end
    return failed(set)
end
