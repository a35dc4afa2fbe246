-- outbox.named: whether a row names a stream, sealed or not, or may go there as to a partition.
--
-- Called by:  outbox::log_reader, before a stream of this name is made of a part of another one's log.
-- Locks:      none beyond those of any select.
-- Parameters: $1 stream.
-- Returns:    true or false. Its cost grows with the backlog, not with rows kept.
select exists (select from outbox.stream s where s.name = $1)
    or exists (select from outbox.pending p where p.stream = $1)
    or exists (select from outbox.partitioning p where starts_with($1, p.stream || ':{'))
