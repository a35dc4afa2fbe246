-- outbox.bury: an event that a group has given up.
--
-- Called by:  outbox::work_log, in the transaction that notes it as done.
-- Locks:      the row.
-- Parameters: $1 group, $2 event, $3 stream, $4 entry ID, $5 key, $6 type, $7 payload, $8 headers, $9 when
--             it was written, $10 deliveries, $11 error.
-- Returns:    nothing.
insert into outbox.dead_letter
    (consumer_group, event_id, stream, entry_id, key, type, payload, headers, created_at, deliveries, error)
values ($1, $2, $3, $4, $5, $6, $7::text::jsonb, $8::text::jsonb, $9::text::timestamptz, $10, $11)
on conflict (consumer_group, event_id) do update
    set deliveries = excluded.deliveries, error = excluded.error, died_at = clock_timestamp(), retry_at = null
