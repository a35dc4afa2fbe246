-- outbox.locate: the position of a number of a stream, as the log gave it, or had given it before Postgres
-- lost it.
--
-- Called by:  outbox::log_reader, to see whether a position found in Redis is one of ours.
-- Locks:      none beyond those of any select.
-- Parameters: $1 stream, $2 number.
-- Returns:    the milliseconds of that position; no row if the number is not known.
select b.ms
from (
    select ms, first_n from outbox.batch
    where stream = $1 and last_n >= $2 order by last_n limit 1
) b
where b.first_n <= $2
union all
select s.head_ms from outbox.stream s where s.name = $1 and s.head_n = $2 and s.head_n > 0
union all
select s.purged_ms from outbox.stream s where s.name = $1 and s.purged_n = $2 and s.purged_n > 0
union all
select split_part(p.entry_id, '-', 1)::bigint from outbox.phantom p
where p.stream = $1 and split_part(p.entry_id, '-', 2)::numeric = $2
limit 1
