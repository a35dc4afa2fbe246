-- outbox.unmark: takes marks back from batches that Redis has lost.
--
-- Called by:  outbox::log, before a lost stream is replayed.
-- Locks:      the lease row, FOR SHARE, as a seal does.
-- Parameters: $1 token; arrays, one element per stream: $2 name, $3 the last number Redis still has.
-- Returns:    one row if the lease is ours; none otherwise, and then nothing was changed.
with lease as materialized (
    select token from outbox.lease where token = $1 and ended_at is null for share
), unmarked as (
    update outbox.batch b
    set dispatched_at = null
    from unnest($2::text[], $3::bigint[]) as l (stream, n)
    where b.stream = l.stream and b.last_n > l.n and b.dispatched_at is not null
      and exists (select from lease)
)
select token from lease
