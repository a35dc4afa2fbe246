-- outbox.find_event: ids of the rows of one event, within a range of ids.
--
-- Called by:  outbox::trace, from the newest range to the oldest, for `outbox-relay trace`.
-- Locks:      none beyond those of any select.
-- Parameters: $1 event_id; ids $2 (exclusive) to $3 (inclusive).
--
-- There is no index on event_id: one of random keys would cost every insert of every application,
-- for a question that a person asks now and then.
select e.id from outbox.entry e where e.id > $2 and e.id <= $3 and e.event_id = $1 order by e.id
