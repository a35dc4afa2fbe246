-- outbox.nets: rows for which no leaf was attached in time.
--
-- Called by:  outbox::schema, for `outbox-relay doctor`.
-- Locks:      none beyond those of any select.
-- Returns:    the name of each net that is not empty.
select 'outbox.entry_net' as name where exists (select from outbox.entry_net)
union all
select 'outbox.seal_net' where exists (select from outbox.seal_net)
union all
select 'outbox.batch_net' where exists (select from outbox.batch_net)
