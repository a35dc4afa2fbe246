-- outbox.arm_wake: asks writers for a NOTIFY for the next seconds.
--
-- Called by:  outbox::wake, before the relay sleeps and at each slow poll.
-- Locks:      none.
-- Parameters: $1 seconds from now; 0 or less stops asking.
-- Returns:    the xid of this transaction.
--
-- The xid is taken on purpose. A snapshot lists a transaction as in progress only if its xid is
-- below that of the last transaction that ended; the ending of this one makes the list complete for
-- everybody who may have read the flag before it was set.
select setval('outbox.wake_until',
              greatest(0, (extract(epoch from clock_timestamp()) + $1::bigint)::bigint)) as until,
       pg_current_xact_id()::text as xid
