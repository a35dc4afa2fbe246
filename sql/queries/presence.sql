-- outbox.presence: which numbers of a stream still have their rows.
--
-- Called by:  outbox::log_reader, before a part of the log is copied, which must be whole.
-- Locks:      none beyond those of any select.
-- Parameters: $1 stream, $2 after this number, $3 up to this number, $4 numbers at most.
-- Returns:    one row per sealed number, in order: the number, and whether its row is there. Numbers
--             that the log does not have (purged, or settled without it) are absent.
--
-- As outbox.read_log, but nothing of the rows is read except that they are there.
select b.first_n + u.i - 1 as n, exists (select from outbox.entry e where e.id = u.id) as present
from (
    select * from outbox.batch
    where stream = $1 and last_n > $2 and first_n <= $3
    order by last_n
    limit $4
) b
cross join lateral unnest(b.ids) with ordinality as u (id, i)
where b.first_n + u.i - 1 > $2 and b.first_n + u.i - 1 <= $3
order by b.last_n, u.i
limit $4
