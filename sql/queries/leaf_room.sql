-- outbox.leaf_room: how many more numbers have a leaf to go to.
--
-- Called by:  outbox::schema, for `outbox-relay doctor`.
-- Locks:      none beyond those of any select.
-- Returns:    table and room, 0 or less once rows go into the net.
select l.tree,
       max(l.upper) - 1 - case l.tree
           when 'entry' then coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0)
           else coalesce((select max(s.seal) from outbox.seal s), 0) end as room
from outbox.leaf l
group by l.tree
order by l.tree
