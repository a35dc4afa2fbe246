-- renew: lets a lock hold for longer, if it is still held with this token.
--
-- Called by:  coordination::held, every third of the expiry.
-- Keys:       1 the lock, as acquire has it.
-- Arguments:  1 token; 2 milliseconds until it expires; 3 milliseconds for which its number is remembered
--             after that.
-- Returns:    {'renewed'}, or {'gone', holder}: it has expired, was removed, or is somebody else's.
-- Form:       one that has expired is not renewed, even if nobody took it: who held it was told that it is
--             lost. PEXPIRE is first, for it is allowed when memory is out, and after one write so is the
--             next: a lock that is held is kept then, while none is taken.
local function text(number) return string.format('%.0f', number) end
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- As pcall: Redis 6.2 hides the code of an error that ends a script.
local lock = redis.pcall('HMGET', KEYS[1], 'token', 'until', 'holder')
if lock.err then return lock end
if lock[1] ~= ARGV[1] then
    return {'gone', lock[3] or ''}
end
if tonumber(lock[2] or 0) <= now then
    return {'gone', ''}
end
redis.call('PEXPIRE', KEYS[1], text(ARGV[2] + ARGV[3]))
redis.call('HSET', KEYS[1], 'until', text(now + ARGV[2] * 1000))
return {'renewed'}
