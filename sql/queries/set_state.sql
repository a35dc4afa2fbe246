-- outbox.set_state: writes the states of streams, for people to read.
--
-- Called by:  outbox::log, when a state changes; never once per batch.
-- Locks:      the lease row, FOR SHARE, and the rows of the streams, in the order of their names.
-- Parameters: $1 token; arrays, one element per stream: $2 name, $3 state, $4 reason.
-- Returns:    one row if the lease is ours; none otherwise, and then nothing was changed.
with lease as materialized (
    select token from outbox.lease where token = $1 and ended_at is null for share
), locked as materialized (
    select s.name from outbox.stream s
    where s.name = any ($2::text[]) and exists (select from lease)
    order by s.name
    for no key update
), changed as (
    update outbox.stream s
    set state = c.state, reason = c.reason
    from unnest($2::text[], $3::text[], $4::text[]) as c (name, state, reason)
    join locked l on l.name = c.name
    where s.name = c.name and (s.state, s.reason) is distinct from (c.state, c.reason)
)
select token from lease
