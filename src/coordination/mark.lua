-- mark: leaves a mark where there is none.
--
-- Called by:  coordination::once, to ask whether it is the first; again with the same mark where the answer
--             was lost.
-- Keys:       1 the mark, a string: token and holder of who was first.
-- Arguments:  1 mark; 2 milliseconds until it expires.
-- Returns:    {'first'}, or {'seen'}.
-- Form:       a script rather than SET NX, so that whoever asks again is still the first.
-- As pcall: Redis 6.2 hides the code of an error that ends a script. Of a write, it puts a place before it.
local mark = redis.pcall('GET', KEYS[1])
if type(mark) == 'table' then return mark end
if not mark then
    local made = redis.pcall('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
    if made.err then return {err = (made.err:gsub('^@user_script: %d+: %-', ''))} end
    return {'first'}
end
if mark == ARGV[1] then
    return {'first'}
end
return {'seen'}
