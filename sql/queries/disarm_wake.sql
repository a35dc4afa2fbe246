-- outbox.disarm_wake: stops asking writers for a NOTIFY, if the lease is still ours.
--
-- Called by:  outbox::wake, under load and when the relay stops.
-- Locks:      the lease row, FOR SHARE: a relay that was frozen must not end the question of the one
--             that has taken the lease over.
-- Parameters: $1 token.
-- Returns:    one row if it has stopped; none if the lease is no longer ours.
with lease as materialized (
    select token from outbox.lease where token = $1 and ended_at is null for share
)
select setval('outbox.wake_until', 0) as until
from lease
