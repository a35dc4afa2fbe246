-- acquire: takes a lock that nobody holds, and gives out its next fencing number.
--
-- Called by:  coordination::lock, for each attempt; again with the same token where the answer was lost.
-- Keys:       1 the lock, a hash: token and holder of who holds it, until when (by the clock of Redis, in
--             microseconds), and the last fencing number that was given out.
-- Arguments:  1 token; 2 holder, for people; 3 milliseconds until the lock expires; 4 milliseconds for
--             which the number is remembered after that.
-- Returns:    {'held', number}, or {'taken', holder, milliseconds until it expires}.
-- Form:       a number is the time of this Redis in microseconds, or one more than the last if that is not
--             less. So numbers grow after FLUSHALL, an eviction, a restart without persistence or from a
--             snapshot, for time goes on; and they grow within one microsecond, or while a clock that went
--             back by up to the time for which a number is remembered has not caught up. It expires by the
--             same clock, so one that went ahead and back again is covered as well. What is left is a clock
--             that is behind by more than that when the number was lost: a failover to such a machine.
--             Lua's numbers are exact up to 2^53: as microseconds, the year 2255.
--             HSET is first, so that it is refused when memory is out; a user that may not PEXPIRE leaves
--             nothing that never expires, for what was written is taken back.
local function text(number) return string.format('%.0f', number) end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local function failed(made)
    return type(made) == 'table' and made.err and {err = (made.err:gsub('^@user_script: %d+: %-', ''))}
end
-- As pcall: Redis 6.2 hides the code of an error that ends a script. Of a write, it puts a place before it.
local lock = redis.pcall('HMGET', KEYS[1], 'token', 'until', 'fence', 'holder')
if lock.err then return lock end
local held = lock[1] and tonumber(lock[2] or 0) > now
if held and lock[1] ~= ARGV[1] then
    return {'taken', lock[4] or '', text(math.ceil((lock[2] - now) / 1000))}
end
local fence = tonumber(lock[3] or 0)
if not held then
    fence = math.max(fence + 1, now)
end
local made = redis.pcall('HSET', KEYS[1], 'token', ARGV[1], 'holder', ARGV[2], 'fence', text(fence),
    'until', text(now + ARGV[3] * 1000))
if failed(made) then return failed(made) end
made = redis.pcall('PEXPIRE', KEYS[1], text(ARGV[3] + ARGV[4]))
if failed(made) then
    redis.pcall('HDEL', KEYS[1], 'token', 'holder', 'until', lock[3] and 'until' or 'fence')
    return failed(made)
end
return {'held', text(fence)}
