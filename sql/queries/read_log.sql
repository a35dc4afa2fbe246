-- outbox.read_log: entries of one stream in the order of the log, after a number.
--
-- Called by:  outbox::log_reader, to replay what Redis lost or has not got yet, and to verify.
-- Locks:      none beyond those of any select.
-- Parameters: $1 stream, $2 after this number, $3 up to this number, $4 rows at most.
-- Returns:    one row per sealed number: ms, n, and the row of the entry, null where it was purged.
--
-- The limit on batches keeps a stream of one-row batches from being sorted whole.
select b.ms, b.first_n + u.i - 1 as n,
       e.id, e.event_id, e.stream, e.key, e.type, e.payload::text as payload, e.headers::text as headers,
       e.created_at
from (
    select * from outbox.batch
    where stream = $1 and last_n > $2 and first_n <= $3
    order by last_n
    limit $4
) b
cross join lateral unnest(b.ids) with ordinality as u (id, i)
left join outbox.entry e on e.id = u.id
where b.first_n + u.i - 1 > $2 and b.first_n + u.i - 1 <= $3
order by b.last_n, u.i
limit $4
