-- outbox.dead_again: why one more attempt with an event that was given up has failed.
--
-- Called by:  outbox::work_log.
-- Locks:      the row.
-- Parameters: $1 group, $2 event, $3 error.
-- Returns:    nothing.
update outbox.dead_letter set error = $3, died_at = clock_timestamp()
where consumer_group = $1 and event_id = $2
