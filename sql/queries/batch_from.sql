-- outbox.batch_from: the batch of a stream that holds a number, or the next one behind it.
--
-- Called by:  outbox::log_reader, to find where in the log a time falls, by halving.
-- Locks:      none beyond those of any select.
-- Parameters: $1 stream, $2 number.
-- Returns:    its last number and its milliseconds; no row behind the end of the log.
select b.last_n, b.ms from outbox.batch b
where b.stream = $1 and b.last_n >= $2
order by b.last_n
limit 1
