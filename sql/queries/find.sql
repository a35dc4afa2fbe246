-- outbox.find: the next committed rows that are not sealed, in id order.
--
-- Called by:  outbox::find, on the reading connection, once per batch and per poll.
-- Locks:      none beyond those of any select.
-- Parameters: $1 xids in progress in the base snapshot, $2 its xmax, $3 the snapshot being worked
--             through (null: begin a new one), $4 where the search by id begins (high),
--             $5 ids up to here are done (after), $6 rows at most, $7 ids below `high` looked up at most.
-- Returns:    the rows in id order, and before them one with id null, whose stream is the snapshot, whose
--             key is the last id drawn, whose type is the clock in microseconds, and whose payload is
--             `true` if the search below `high` was cut off: in the columns of a row, for more columns
--             would be sent with every row.
--
-- A row is new if the target snapshot shows it and the base does not: its xid was in progress in
-- the base (`old`), or is not below the base's xmax. That is exact for gaps, late commits and ids
-- drawn long before the transaction had an xid; `high` only says where to look for what.
--   above high  one ordered scan of the primary key, which under backlog reads what it returns;
--   below high  the index on (xid, id), by exact xid for transactions that were in progress and by
--               range for newer ones. Transactions still open are left out: an open transaction
--               with a million rows would otherwise be walked at every poll.
--
-- What else was tried, with 10 million rows kept, each of a transaction of its own, and one held open
-- since a million rows ago (PostgreSQL 15, 2 cores, medians of 3):
--   a poll that finds nothing, this way                                        0.18 ms
--     by id from the first one that the held transaction may have drawn      196 ms
--     by xid over all since the held transaction                              98 ms
--     without an index on xid (BRIN has no operator class for xid8)          980 ms
--   5,000 ids of a backlog of a million, this way                              0.8 ms
--     by xid alone, which sorts the backlog for each batch                   347 ms
--   5,000 ids of one late transaction of a million rows, this way              1.1 ms
--     with an index on xid alone, which sorts them for each batch            271 ms
-- The index is 300 MB there, one on xid alone 214 MB. Writers do not notice: 16 of them, who did not wait
-- for the disk, made 17,756 inserts a second without the column, 17,566 with it, 17,588 with an index on
-- xid, 17,263 with this one (medians of 4; 15,000 to 20,000 each).
--
-- `e.id + 0` keeps the planner from walking the primary key there, over all rows kept: with a
-- million of them that took 757 ms a poll. `$4 > $5` skips the lookup for the rest of a window once
-- the search is above `high`, so a backlog is walked by transaction once, not once per batch.
-- The snapshot is asked about each row, also where it is this statement's own: an xid from another
-- cluster may lie in the future, and such a row would be new for ever.
-- The snapshot must come from this very statement: a snapshot taken by another one shows other rows.
-- Branches that are sorted as they are read are merged and never held; what depends on a parameter alone
-- is a subquery of `now`, for it would be read from its text again for every row. Together 3.5
-- microseconds a row of 200 bytes where the same with a CTE of all rows took 3.9, and the bare columns by
-- primary key take 3.3 (medians of 25, 5,000 rows a search); two of these are JSON becoming text.
with now as materialized (
    select coalesce($3::text::pg_snapshot, pg_current_snapshot()) as target, $2::text::xid8 as base_xmax
), old as materialized (
    select o.xid
    from now, unnest($1::text[]::xid8[]) as o (xid)
    where pg_visible_in_snapshot(o.xid, now.target)
), fresh as materialized (
    select e.id
    from outbox.entry e
    where $4::bigint > $5::bigint
      and e.xid >= (select base_xmax from now) and e.xid < (select pg_snapshot_xmax(target) from now)
      and e.id + 0 <= $4 and e.id + 0 > $5
      and pg_visible_in_snapshot(e.xid, (select target from now))
    order by e.id + 0
    limit $7
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
)
select null::bigint as id, null::uuid as event_id, (select target::text from now) as stream,
       coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0)::text as key,
       (extract(epoch from clock_timestamp()) * 1000000)::bigint::text as type,
       ((select count(*) from fresh) >= $7::bigint)::text as payload,
       null::text as headers, null::timestamptz as created_at
union all
(select f.id, f.event_id, f.stream, f.key, f.type, f.payload::text, f.headers::text, f.created_at
 from (
    (select e.*
     from (select id from late order by id limit $6) l join outbox.entry e on e.id = l.id
     order by l.id)
    union all
    (select e.*
     from outbox.entry e
     where e.id > greatest($4::bigint, $5::bigint)
       and (e.xid >= (select base_xmax from now) or e.xid = any (array(select xid from old)))
       and (e.xid < (select pg_snapshot_xmin(target) from now)
            or pg_visible_in_snapshot(e.xid, (select target from now)))
     order by e.id
     limit $6)
 ) f
 order by f.id
 limit $6)
