-- outbox.dead_letters: events that groups have given up.
--
-- Called by:  outbox::dead_letter, for `outbox-relay dead`.
-- Locks:      none beyond those of any select.
-- Parameters: $1 group, $2 stream, $3 event: each null for all; $4 how many at most.
-- Returns:    one row per event, the last given up first; it begins as those of retries do.
select d.event_id, d.stream, d.entry_id, d.key, d.type, d.payload::text, d.headers::text,
       to_char(d.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), d.deliveries,
       d.consumer_group, d.error, d.died_at, d.retry_at
from outbox.dead_letter d
where ($1::text is null or d.consumer_group = $1) and ($2::text is null or d.stream = $2)
  and ($3::uuid is null or d.event_id = $3)
order by d.died_at desc, d.consumer_group, d.event_id
limit $4
