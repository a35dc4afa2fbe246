-- outbox.saved_groups: the consumer groups of a stream, as of its latest checkpoint.
--
-- Called by:  outbox::log_reader, to put back what Redis lost, and by commands.
-- Locks:      none beyond those of any select.
-- Parameters: $1 stream.
-- Returns:    floor ms and n, and the groups as JSON; no row if there is no such stream.
select f.ms, f.n, f.groups from outbox.floor f where f.stream = $1
