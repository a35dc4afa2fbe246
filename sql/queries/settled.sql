-- outbox.settled: has every transaction ended that was in progress when the wake flag was set?
--
-- Called by:  outbox::wake, while the relay settles down to sleep.
-- Locks:      none.
-- Parameters: $1 an xid drawn after the flag was set.
-- Returns:    true if no older transaction is in progress.
select pg_snapshot_xmin(pg_current_snapshot()) > $1::text::xid8 as settled
