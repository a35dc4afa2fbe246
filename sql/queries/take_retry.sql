-- outbox.take_retry: one event that somebody wants tried once more, taken by one worker.
--
-- Called by:  outbox::work_log, before the attempt, as a transaction of its own: if that worker dies it is
--             dead as before, and somebody asks again; it does not kill one worker after the other.
-- Locks:      its row.
-- Parameters: $1 group, $2 event.
-- Returns:    how often it was given to a worker, with this time; no row if another worker has it, or it is
--             gone.
update outbox.dead_letter d set retry_at = null, deliveries = d.deliveries + 1
where d.consumer_group = $1 and d.event_id = $2 and d.retry_at is not null
returning d.deliveries
