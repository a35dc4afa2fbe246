-- outbox.raise_dead: an event that a group had given up, and now does.
--
-- Called by:  outbox::work_log, as the first statement of the transaction of a handler.
-- Locks:      the row, until that transaction ends.
-- Parameters: $1 group, $2 event.
-- Returns:    the transaction; no row means that somebody has done or discarded it.
delete from outbox.dead_letter where consumer_group = $1 and event_id = $2
returning pg_current_xact_id()::text
