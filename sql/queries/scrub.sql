-- outbox.scrub: rows of the next ids that are not in the log although every transaction that could
-- have drawn such an id has ended and been sealed.
--
-- Called by:  outbox::scrub, in the background, every few seconds.
-- Locks:      none beyond those of any select.
-- Parameters: $1 from (exclusive), $2 to (inclusive).
-- Returns:    ids that the fast path missed; it should return none.
--
-- The log is opened up for the range of ids and compared as a whole: asking it id by id costs a
-- lookup of every batch of the stream.
with sealed as materialized (
    select unnest(b.ids) as id
    from outbox.batches_over($1::bigint + 1, $2::bigint) b
)
select e.id
from outbox.entry e
where e.id > $1 and e.id <= $2
  and not exists (select from sealed where sealed.id = e.id)
order by e.id
limit 10000
