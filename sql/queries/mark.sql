-- outbox.mark: marks batches dispatched when no seal is due that could carry the marks.
--
-- Called by:  outbox::log, on the sealing connection, after a quiet moment.
-- Locks:      the lease row, FOR SHARE, as a seal does.
-- Parameters: $1 token; arrays, one element per mark: $2 seal, $3 stream, $4 last_n.
-- Returns:    one row if the lease is ours; none otherwise, and then nothing was changed.
with lease as materialized (
    select token from outbox.lease where token = $1 and ended_at is null for share
), marked as (
    update outbox.batch b
    set dispatched_at = clock_timestamp()
    from unnest($2::bigint[], $3::text[], $4::bigint[]) as m (seal, stream, last_n)
    where b.seal = m.seal and b.stream = m.stream and b.last_n = m.last_n
      and exists (select from lease)
)
select token from lease
