-- outbox.keep_lease: the heartbeat; moves the end of the lease.
--
-- Called by:  outbox::lease, three times per lease, and with 0 to give the lease up.
-- Locks:      none: a sequence has no versions and no row lock.
-- Parameters: $1 token, $2 milliseconds for which the lease holds from now.
-- Returns:    one row if the lease is still ours, none otherwise.
select setval('outbox.lease_until',
              (extract(epoch from clock_timestamp()) * 1000)::bigint + $2::bigint) as lease_until
from outbox.lease
where token = $1 and ended_at is null
