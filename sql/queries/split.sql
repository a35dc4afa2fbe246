-- outbox.split: the partitions of a stream that somebody has asked for come into force.
--
-- Called by:  outbox::log, between two seals: rows of all later ones go by the new partitions.
-- Locks:      the lease row, FOR SHARE, as a seal does; the row of the stream in outbox.partitioning.
-- Parameters: $1 token, $2 stream as rows name it, $3 the partitions asked for; arrays, one element per
--             Redis stream that its rows went to: $4 name, $5 last number.
-- Returns:    whether it was done, if the lease is ours; no row otherwise, and then nothing was changed. It
--             is not done if nobody asks for it any more, or somebody holds a lock.
with lease as materialized (
    select token from outbox.lease where token = $1 and ended_at is null for share
), free as materialized (
    -- Somebody in psql may hold it: another time, for every stream waits for this statement.
    select p.stream from outbox.partitioning p
    where p.stream = $2 and p.wanted = $3 and exists (select from lease)
    for update skip locked
), split as (
    update outbox.partitioning p
    set before = p.partitions, partitions = p.wanted, wanted = null, changed_at = clock_timestamp(),
        closed = (select coalesce(jsonb_object_agg(c.name, c.n), '{}')
                  from unnest($4::text[], $5::bigint[]) as c (name, n) where c.n > 0)
    from free
    where p.stream = free.stream
    returning p.stream, p.partitions
), named as (
    insert into outbox.stream (name)
    select outbox.partition_names(s.stream, s.partitions) from split s
    on conflict (name) do nothing
)
select exists (select from split) as done from lease
