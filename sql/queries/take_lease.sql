-- outbox.take_lease: begins a new term of leadership if the last one has run out or was ours.
--
-- Called by:  outbox::lease, when the relay starts, reconnects, or stands by.
-- Locks:      the current lease row: waits for a seal of the last holder that is still running, so
--             that after this statement no seal is left whose fate is unknown.
-- Parameters: $1 holder, $2 milliseconds for which the lease holds.
-- Returns:    the new token; no row while somebody else holds the lease.
with ended as (
    update outbox.lease
    set ended_at = clock_timestamp()
    where ended_at is null
      and (holder = $1
           or coalesce(pg_sequence_last_value('outbox.lease_until'), 0)
              <= extract(epoch from clock_timestamp()) * 1000)
    returning token
), taken as (
    insert into outbox.lease (token, holder) select ended.token + 1, $1 from ended
    returning token
)
select taken.token,
       setval('outbox.lease_until',
              (extract(epoch from clock_timestamp()) * 1000)::bigint + $2::bigint) as lease_until
from taken
