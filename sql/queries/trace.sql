-- outbox.trace: one row with its place in the log.
--
-- Called by:  outbox::trace, for each row of an event.
-- Locks:      none beyond those of any select.
-- Parameters: $1 id.
select s.id, s.stream, s.key, s.type, s.created_at, s.n, s.entry_id, s.state, s.dispatched_at
from outbox.entry_status s
where s.id = $1
