-- outbox.note_done: a note that a group has done an event, as the first statement of what it does.
--
-- Called by:  outbox::work_log, in the transaction of a handler.
-- Locks:      the note, until that transaction ends: another worker with the same event waits for it.
-- Parameters: $1 group, $2 event.
-- Returns:    the transaction; no row means that it was done before.
insert into outbox.done (consumer_group, event_id) values ($1, $2) on conflict do nothing
returning pg_current_xact_id()::text
