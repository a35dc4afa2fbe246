-- outbox.find: the next committed rows that are not sealed, in id order.
--
-- Called by:  outbox::find, on the reading connection, once per batch and per poll.
-- Locks:      none beyond those of any select.
-- Parameters: $1 xids in progress in the base snapshot, $2 its xmax, $3 the snapshot being worked
--             through (null: begin a new one), $4 where the search by id begins (high),
--             $5 ids up to here are done (after), $6 rows at most.
-- Returns:    first a row with id null that carries the snapshot, the last id drawn, the clock in
--             milliseconds and whether the search below `high` was cut off; then the rows.
--
-- A row is new if the target snapshot shows it and the base does not: its xid was in progress in
-- the base (`old`), or is not below the base's xmax. That is exact for gaps, late commits and ids
-- drawn long before the transaction had an xid; `high` only says where to look for what.
--   above high  one ordered scan of the primary key, which under backlog reads what it returns;
--   below high  the index on (xid, id), by exact xid for transactions that were in progress and by
--               range for newer ones. Transactions still open are left out: an open transaction
--               with a million rows would otherwise be walked at every poll.
-- `e.id + 0` keeps the planner from walking the primary key there, over all rows kept: with a
-- million of them that took 757 ms a poll. `$4 > $5` skips the lookup for the rest of a window once
-- the search is above `high`, so a backlog is walked by transaction once, not once per batch.
-- The snapshot is asked about each row, also where it is this statement's own: an xid from another
-- cluster may lie in the future, and such a row would be new for ever.
-- The snapshot must come from this very statement: a snapshot taken by another one shows other rows.
with now as materialized (
    select coalesce($3::text::pg_snapshot, pg_current_snapshot()) as target
), old as materialized (
    select o.xid
    from now, unnest($1::text[]::xid8[]) as o (xid)
    where pg_visible_in_snapshot(o.xid, now.target)
), fresh as materialized (
    select e.id
    from outbox.entry e
    where $4::bigint > $5::bigint
      and e.xid >= $2::text::xid8 and e.xid < pg_snapshot_xmax((select target from now))
      and e.id + 0 <= $4 and e.id + 0 > $5
      and pg_visible_in_snapshot(e.xid, (select target from now))
    order by e.id + 0
    limit $6
), late as materialized (
    select id from fresh
    union all
    select o.id
    from old cross join lateral (
        select e.id from outbox.entry e
        where e.xid = old.xid and e.id <= $4 and e.id > $5
        order by e.id
        limit $6
    ) o
), found as (
    (select e.* from (select id from late order by id limit $6) l join outbox.entry e on e.id = l.id)
    union all
    (select e.*
     from outbox.entry e
     where e.id > greatest($4::bigint, $5::bigint)
       and (e.xid >= $2::text::xid8 or e.xid = any (array(select xid from old)))
       and pg_visible_in_snapshot(e.xid, (select target from now))
     order by e.id
     limit $6)
)
select null::bigint as id, null::uuid as event_id, null::text as stream, null::text as key,
       null::text as type, null::text as payload, null::text as headers, null::timestamptz as created_at,
       (select target::text from now) as snapshot,
       coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0) as drawn,
       (extract(epoch from clock_timestamp()) * 1000000)::bigint as clock_us,
       (select count(*) from fresh) >= $6::bigint as cut
union all
(select f.id, f.event_id, f.stream, f.key, f.type, f.payload::text, f.headers::text, f.created_at,
        null, null, null, null
 from found f
 order by f.id
 limit $6)
