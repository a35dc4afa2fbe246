-- place: what a key holds, as TYPE says it, and where a stream is; 0-0 for anything else. And how two
-- IDs compare.
--
-- Called by:  stream::connect, which puts it before every other script.
-- Keys:       none of its own; it is given the one to look at.
local function fields(flat)
    local named = {}
    for i = 1, #flat, 2 do named[flat[i]] = flat[i + 1] end
    return named
end
local function place(key)
    local kind = redis.call('TYPE', key).ok
    if kind == 'stream' then
        return kind, fields(redis.call('XINFO', 'STREAM', key))['last-generated-id']
    end
    return kind, '0-0'
end
-- As text: Lua's numbers are exact to 2^53 only.
local function after(a, b)
    local ams, an = a:match('^(%d+)-(%d+)$')
    local bms, bn = b:match('^(%d+)-(%d+)$')
    local function greater(x, y) return #x > #y or (#x == #y and x > y) end
    if ams ~= bms then return greater(ams, bms) end
    return greater(an, bn)
end
