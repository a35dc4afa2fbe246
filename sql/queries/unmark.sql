-- outbox.unmark: takes marks back from batches that Redis has lost, the last ones first, a piece at
-- a time.
--
-- Called by:  outbox::log, before a lost stream is replayed, until a piece is empty.
-- Locks:      the lease row, FOR SHARE, as a seal does.
-- Parameters: $1 token, $2 stream, $3 the last number Redis still has, $4 batches at most.
-- Returns:    one row with the number of batches if the lease is ours; none otherwise, and then
--             nothing was changed.
--
-- In the same step the stream is known to have lost its groups: when nothing is marked any more, nothing
-- else tells.
--
-- From the end, so that what is still marked is always the beginning of a stream; in pieces, so that
-- a stream of millions of one-row batches does not meet the statement timeout.
with lease as materialized (
    select token from outbox.lease where token = $1 and ended_at is null for share
), lost as materialized (
    select b.seal, b.last_n
    from outbox.batch b
    where b.stream = $2 and b.last_n > $3 and b.dispatched_at is not null
      and exists (select from lease)
    order by b.last_n desc
    limit $4
), lose as (
    update outbox.stream s set groups_lost = true
    where s.name = $2 and not s.groups_lost and exists (select from lease)
), unmarked as (
    update outbox.batch b
    set dispatched_at = null
    from lost
    where b.seal = lost.seal and b.stream = $2 and b.last_n = lost.last_n
    returning 1
)
select (select count(*) from unmarked) as batches from lease
