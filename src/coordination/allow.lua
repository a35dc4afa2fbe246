-- allow: counts an attempt, if no more than the limit were let through within the time before it.
--
-- Called by:  coordination::rate_limit, for each attempt.
-- Keys:       1 the count, a hash: for each part of the time, by its end in microseconds of the clock of
--             Redis, how many were let through in it.
-- Arguments:  1 limit; 2 what this attempt costs, at most the limit; 3 the time in microseconds;
--             4 microseconds of a part.
-- Returns:    {'allowed', how many are left}, or {'denied', milliseconds until it may be tried again}.
-- Form:       a part counts as a whole until all of it is older than the time. So there are never more than
--             the limit within any such time, whenever it begins, and what was let through counts for a part
--             longer than it had to; the parts are all that is kept, however high the limit is. A clock that
--             goes back lets parts count that are still to come: fewer are let through. But not those that
--             are further ahead than the time: after a clock that was far ahead they would count for as long.
--             HINCRBY is before PEXPIRE, so that it is refused when memory is out; a user that may not
--             PEXPIRE leaves no key that never expires, for what was written is taken back.
local function text(number) return string.format('%.0f', number) end
local function failed(made)
    return type(made) == 'table' and made.err and {err = (made.err:gsub('^@user_script: %d+: %-', ''))}
end
local limit, cost, window, width =
    tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local ends = (math.floor(now / width) + 1) * width
-- As pcall: Redis 6.2 hides the code of an error that ends a script. Of a write, it puts a place before it.
local flat = redis.pcall('HGETALL', KEYS[1])
if flat.err then return flat end
local parts, used, last = {}, 0, ends
for i = 1, #flat, 2 do
    local part = {ends = tonumber(flat[i]), count = tonumber(flat[i + 1])}
    if part.ends <= now - window or part.ends > ends + window then
        redis.call('HDEL', KEYS[1], flat[i])
    else
        parts[#parts + 1] = part
        used = used + part.count
        last = math.max(last, part.ends)
    end
end
if used + cost > limit then
    table.sort(parts, function(one, other) return one.ends < other.ends end)
    local free = limit - used
    for _, part in ipairs(parts) do
        free = free + part.count
        if free >= cost then
            return {'denied', text(math.ceil((part.ends + window - now) / 1000))}
        end
    end
end
local counted = redis.pcall('HINCRBY', KEYS[1], text(ends), cost)
if failed(counted) then return failed(counted) end
local expires = redis.pcall('PEXPIRE', KEYS[1], text(math.ceil((last + window - now) / 1000)))
if failed(expires) then
    if counted == cost then redis.pcall('HDEL', KEYS[1], text(ends)) end
    return failed(expires)
end
return {'allowed', text(limit - used - cost)}
