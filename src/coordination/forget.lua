-- forget: takes a mark back, if it is this one.
--
-- Called by:  coordination::once, after a failure.
-- Keys:       1 the mark, as mark has it.
-- Arguments:  1 mark.
-- Returns:    {'forgotten'}, or {'other'}: there is none, or another one.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return {'other'}
end
redis.call('DEL', KEYS[1])
return {'forgotten'}
