-- outbox.settle_phantoms: records stream entries whose rows Postgres lost, and lets the stream go on
-- behind them.
--
-- Called by:  outbox::log, when a stream is found ahead of the log.
-- Locks:      the lease row, FOR SHARE, the row of the stream, and those of batches that it marks.
-- Parameters: $1 token, $2 stream, $3 and $4 the last position of Redis (ms, n);
--             arrays, one element per entry: $5 its ID, $6 its event_id, $7 its fields as JSON.
-- Returns:    one row if the lease is ours; none otherwise, and then nothing was changed.
--
-- All that the log has of the stream is before them in Redis, and is marked here: marks that were lost as
-- well would never be set again behind the new head, and a leaf with an unmarked batch is never purged.
-- Marks of a stream are set in order, so those that lack are behind the last one.
with lease as materialized (
    select token from outbox.lease where token = $1 and ended_at is null for share
), listed as (
    insert into outbox.phantom (stream, entry_id, event_id, fields)
    select $2, p.entry_id, p.event_id, p.fields
    from lease cross join unnest($5::text[], $6::text[], $7::jsonb[]) as p (entry_id, event_id, fields)
    on conflict do nothing
), marked as (
    update outbox.batch b
    set dispatched_at = clock_timestamp()
    where b.stream = $2 and b.last_n <= $4 and b.dispatched_at is null and exists (select from lease)
      and b.last_n > coalesce((
          select d.last_n from outbox.batch d
          where d.stream = $2 and d.dispatched_at is not null order by d.last_n desc limit 1), 0)
), moved as (
    update outbox.stream s set head_ms = $3, head_n = $4
    where s.name = $2 and s.head_n < $4 and exists (select from lease)
)
select token from lease
