-- mark: leaves a mark where there is none.
--
-- Called by:  coordination::once, to ask whether it is the first; again with the same mark where the answer
--             was lost.
-- Keys:       1 the mark, a string: token and holder of who was first.
-- Arguments:  1 mark; 2 milliseconds until it expires.
-- Returns:    {'first'}, or {'seen'}.
-- Form:       a script rather than SET NX, so that whoever asks again is still the first.
local mark = redis.call('GET', KEYS[1])
if not mark then
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    return {'first'}
end
if mark == ARGV[1] then
    return {'first'}
end
return {'seen'}
