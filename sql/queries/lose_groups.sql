-- outbox.lose_groups: remembers that the consumer groups of a stream are not what they were.
--
-- Called by:  outbox::log_reader, before anything is put back into the stream; a checkpoint takes it back.
-- Locks:      the row of the stream.
-- Parameters: $1 stream.
--
-- No token is asked for: it is never wrong to put groups back to where a checkpoint saw them.
update outbox.stream set groups_lost = true where name = $1 and not groups_lost
