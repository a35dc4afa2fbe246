-- stale: removes a key, if and only if it is still as stale as it was when it was looked at.
--
-- Called by:  stream::survey, for a review that may remove.
-- Keys:       1 the key.
-- Arguments:  1 what it held, as TYPE names it; 2 seconds from which it counts as untouched; 3 seconds after
--             which it may expire by itself at most, or -1 for never.
-- Returns:    1 if it was removed, 0 if not.
-- Form:       a script, so that nobody writes between the question and the removal. A key that expires in
--             time goes by itself, and one that was renewed is somebody's. A stream is never removed.
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= ARGV[1] or kind == 'stream' then return 0 end
local left, longest = redis.call('TTL', KEYS[1]), tonumber(ARGV[3])
if left >= 0 and (longest < 0 or left <= longest) then return 0 end
-- A small number is kept once for all keys that hold it, with one time for all.
if redis.call('OBJECT', 'REFCOUNT', KEYS[1]) ~= 1 then return 0 end
-- Redis keeps no such time while it counts how often keys are used (maxmemory-policy ...-lfu).
local untouched = redis.pcall('OBJECT', 'IDLETIME', KEYS[1])
if type(untouched) ~= 'number' or untouched < tonumber(ARGV[2]) then return 0 end
return redis.call('UNLINK', KEYS[1])
