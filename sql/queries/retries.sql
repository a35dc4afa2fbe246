-- outbox.retries: events that somebody wants tried once more.
--
-- Called by:  outbox::work_log, every second.
-- Locks:      none beyond those of any select.
-- Parameters: $1 group, $2 stream, $3 how many at most.
-- Returns:    one row per event, the first asked for first.
--
-- A partition stands for its stream: the number of them may have changed since.
select d.event_id, d.stream, d.entry_id, d.key, d.type, d.payload::text, d.headers::text,
       to_char(d.created_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), d.deliveries
from outbox.dead_letter d
where d.consumer_group = $1 and d.retry_at is not null
  and regexp_replace(d.stream, ':\{\d+\}$', '') = regexp_replace($2, ':\{\d+\}$', '')
order by d.retry_at limit $3
