-- outbox.worker_rights: whether this role may do what a worker does.
--
-- Called by:  outbox::work_log, when a worker begins.
-- Locks:      none.
-- Returns:    one row: true or false; an error if the schema is older.
select has_column_privilege('outbox.done', 'event_id', 'insert')
   and bool_and(has_table_privilege('outbox.dead_letter', needed))
from unnest('{select,insert,update,delete}'::text[]) needed
