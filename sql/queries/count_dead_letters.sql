-- outbox.count_dead_letters: how many events consumer groups have given up.
--
-- Called by:  outbox::survey, for `outbox-relay status` and metrics, every few seconds.
-- Locks:      none beyond those of any select.
-- Returns:    one row.
select count(*) from outbox.dead_letter
