-- outbox.paused: streams that somebody holds.
--
-- Called by:  outbox::hold, every second while a relay leads.
-- Locks:      none beyond those of any select.
select name from outbox.stream where paused_at is not null order by name
