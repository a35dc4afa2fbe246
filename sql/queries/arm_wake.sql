-- outbox.arm_wake: asks writers for a NOTIFY for the next seconds.
--
-- Called by:  outbox::wake, before the relay sleeps and at each slow poll.
-- Locks:      none.
-- Parameters: $1 seconds from now.
-- Returns:    the deadline, in epoch seconds.
select setval('outbox.wake_until',
              ceil(extract(epoch from clock_timestamp()) + $1::bigint)::bigint) as until
