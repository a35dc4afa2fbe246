-- outbox.save_groups: a checkpoint of streams: their consumer groups and floors.
--
-- Called by:  outbox::checkpoint, about every second, for streams where something changed.
-- Locks:      the lease row, FOR SHARE, as a seal does; the rows of the streams, in the order of their
--             names, as set_state does.
-- Parameters: $1 token, $2 half of the table to write to, $3 nonce and $4 count of the canary;
--             arrays, one element per stream: $5 name, $6 number of the floor, $7 groups as JSON, null for
--             those stored before, with their canary, $8 whether they were looked at after they had been put
--             back, $9 when a look at them had not begun yet, in milliseconds since 1970.
-- Returns:    first a row with stream null if the lease is ours; none if it is another's, and then nothing
--             was changed. Then one row per stream that was stored, with the position of its floor.
--
-- A stream whose groups were found lost while it was being looked at is left out: what was seen may be
-- half of what is to come back. The milliseconds of the floor are asked of the log, for the entry may have
-- been trimmed; where the log does not have it, the stream tells. No floor is below what was purged.
with lease as materialized (
    select token from outbox.lease where token = $1 and ended_at is null for share
), locked as materialized (
    select s.name, s.purged_ms, s.purged_n, s.head_ms, s.head_n, s.groups_lost
    from outbox.stream s
    where s.name = any ($5::text[]) and exists (select from lease)
    order by s.name
    for no key update
), seen as materialized (
    select s.*, c.groups, greatest(c.n, s.purged_n) as n, c.looked_ms
    from unnest($5::text[], $6::bigint[], $7::jsonb[], $8::boolean[], $9::bigint[])
        as c (stream, n, groups, restored, looked_ms)
    join locked s on s.name = c.stream
    where c.restored or not s.groups_lost
), placed as materialized (
    select p.name, p.n, p.groups_lost and p.groups is not null as found,
           -- A relay that has just begun does not know the clock yet.
           case when p.looked_ms > 1000000000000 then to_timestamp(p.looked_ms / 1000.0)
                else clock_timestamp() end as taken_at,
           coalesce(p.groups, f.groups, '[]') as groups,
           case when p.groups is null and f.nonce is not null then f.nonce else $3 end as nonce,
           case when p.groups is null and f.nonce is not null then f.count else $4 end as count,
           case when p.n = p.purged_n then p.purged_ms
                when p.n = p.head_n then p.head_ms
                else coalesce(b.ms, 0) end as ms
    from seen p
    left join outbox.floor f on f.stream = p.name and p.groups is null
    left join lateral (
        select b.ms from outbox.batch b
        where b.stream = p.name and b.last_n >= p.n order by b.last_n limit 1
    ) b on p.n > 0
), sound as (
    update outbox.stream s set groups_lost = false
    from placed p
    where s.name = p.name and p.found
), saved as (
    insert into outbox.checkpoint (half, stream, taken_at, nonce, count, floor_ms, floor_n, groups)
    select $2, p.name, p.taken_at, p.nonce, p.count, p.ms, p.n, p.groups from placed p
    returning stream, floor_ms, floor_n
)
select null as stream, 0::bigint as floor_ms, 0::bigint as floor_n from lease
union all
select stream, floor_ms, floor_n from saved
