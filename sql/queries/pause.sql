-- outbox.pause: holds a stream that has had a row.
--
-- Called by:  outbox::hold, for `outbox-relay pause`.
-- Locks:      the row of the stream.
-- Parameters: $1 stream, $2 who.
-- Returns:    whether somebody held it already; no row if there is no such stream.
with known as materialized (
    select s.stream as name from outbox.stream_status s where s.stream = $1
), before as materialized (
    select s.paused_at is not null as was from outbox.stream s where s.name = $1
), held as (
    insert into outbox.stream as s (name, paused_at, paused_by)
    select known.name, clock_timestamp(), $2 from known
    on conflict (name) do update set paused_at = excluded.paused_at, paused_by = excluded.paused_by
    where s.paused_at is null
)
select coalesce((select was from before), false) as was from known
