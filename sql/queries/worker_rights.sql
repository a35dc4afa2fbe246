-- outbox.worker_rights: whether this role may do what a worker does.
--
-- Called by:  outbox::work_log, when a worker connects.
-- Locks:      none: only the catalogue is read, which needs no right.
-- Returns:    one row: for outbox.done and for outbox.dead_letter true or false, null where it does not
--             exist.
with object as (
    select c.relname::text as name, c.oid, has_schema_privilege(n.oid, 'usage') as usage
    from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'outbox'
)
select (select o.usage and has_column_privilege(o.oid, 'event_id', 'insert')
        from object o where o.name = 'done'),
       (select o.usage and bool_and(has_table_privilege(o.oid, needed))
        from object o, unnest('{select,insert,update,delete}'::text[]) needed
        where o.name = 'dead_letter' group by o.usage)
