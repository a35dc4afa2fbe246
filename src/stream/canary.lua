-- canary: raises the counter by which a Redis that has gone back to an older state is known.
--
-- Called by:  stream::identity, before and after the groups of streams are looked at.
-- Keys:       1 the identity key.
-- Arguments:  1 the outbox that it must belong to; 2 how much to raise by, 0 only reads.
-- Returns:    {nonce, count}; {Redis's own words, -1} if it takes no writes now; {"", 0} if the key is gone
--             or belongs to another outbox. Nothing was changed then.
-- Form:       a script, so that a raise never makes the key anew.
if redis.call('TYPE', KEYS[1]).ok ~= 'hash' or redis.call('HGET', KEYS[1], 'id') ~= ARGV[1] then
    return {'', 0}
end
local nonce = redis.call('HGET', KEYS[1], 'nonce') or ''
if nonce == '' then return {'', 0} end
if ARGV[2] ~= '0' then
    -- Handed on as text, because Redis before 7 wraps an error of a script so that its code is lost.
    local raised = redis.pcall('HINCRBY', KEYS[1], 'count', ARGV[2])
    if type(raised) == 'table' then return {raised.err, -1} end
end
return {nonce, tonumber(redis.call('HGET', KEYS[1], 'count') or '0')}
