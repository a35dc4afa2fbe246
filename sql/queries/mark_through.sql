-- outbox.mark_through: marks all batches of streams up to a number dispatched.
--
-- Called by:  outbox::log, after a replay, and for what a predecessor appended but could not mark.
-- Locks:      the lease row, FOR SHARE, as a seal does.
-- Parameters: $1 token; arrays, one element per stream: $2 name, $3 marked up to here already,
--             $4 in Redis up to here.
-- Returns:    one row if the lease is ours; none otherwise, and then nothing was changed.
with lease as materialized (
    select token from outbox.lease where token = $1 and ended_at is null for share
), marked as (
    update outbox.batch b
    set dispatched_at = clock_timestamp()
    from unnest($2::text[], $3::bigint[], $4::bigint[]) as l (stream, after, through)
    where b.stream = l.stream and b.last_n > l.after and b.last_n <= l.through
      and b.dispatched_at is null
      and exists (select from lease)
)
select token from lease
