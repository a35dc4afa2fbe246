-- release: gives a lock back, if it is still held with this token.
--
-- Called by:  coordination::lock, when a lock is released or its guard is dropped.
-- Keys:       1 the lock, as acquire has it.
-- Arguments:  1 token; 2 milliseconds for which its number is remembered.
-- Returns:    {'released'}, or {'gone'}: it had expired, was removed, or is somebody else's.
-- Form:       the number stays for a while, for the sake of a clock that goes back.
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
-- As pcall: Redis 6.2 hides the code of an error that ends a script.
local lock = redis.pcall('HMGET', KEYS[1], 'token', 'until')
if lock.err then return lock end
if lock[1] ~= ARGV[1] then
    return {'gone'}
end
redis.call('HDEL', KEYS[1], 'token', 'holder', 'until')
redis.call('PEXPIRE', KEYS[1], ARGV[2])
if tonumber(lock[2] or 0) <= now then
    return {'gone'}
end
return {'released'}
