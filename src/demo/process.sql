-- What a worker does with entries: each event once, and a note of every delivery.
--
-- Run by:     demo/worker.rs, for a few entries at a time; it is committed before they are acknowledged.
-- Parameters: arrays, one element per entry: $1 stream, $2 entry ID, $3 event, $4 order; $5 worker,
--             $6 when Redis gave them.
-- Returns:    one row: how many events were processed now, and how many had been before.
-- Locks:      the keys of shop.processed, in their order, so that two workers with the same events
--             wait for each other and never crosswise.
with given as (
    select * from unnest($1::text[], $2::text[], $3::uuid[], $4::bigint[])
        as g (stream, entry_id, event_id, order_id)
), done as (
    -- The event only says that something happened; the facts are in the tables of the shop.
    insert into shop.processed (event_id, stream, entry_id, worker, order_status)
    select g.event_id, g.stream, g.entry_id, $5, o.status
    from given g left join shop.orders o on o.id = g.order_id
    where g.event_id is not null
    order by g.event_id
    on conflict do nothing
    returning event_id, entry_id
), noted as (
    insert into shop.delivery (stream, entry_id, event_id, worker, given_at, again)
    select g.stream, g.entry_id, g.event_id, $5, $6, g.event_id is not null and d.event_id is null
    from given g left join done d on d.event_id = g.event_id and d.entry_id = g.entry_id
    returning event_id, again
)
select count(*) filter (where event_id is not null and not again), count(*) filter (where again) from noted
