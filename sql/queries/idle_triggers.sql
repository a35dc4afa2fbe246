-- outbox.idle_triggers: triggers of outbox.entry that do not fire.
--
-- Called by:  outbox::schema, for `outbox-relay doctor`.
-- Locks:      none.
-- Returns:    name, and the statement that enables it; null where there is no such trigger. A trigger of a
--             leaf is told only where that of the table itself fires.
with wanted (name) as (
    values ('refuse_entry'), ('wake')
), found as materialized (
    select t.tgname as name, n.nspname, c.relname, c.relname = 'entry' as whole,
           t.tgenabled in ('O', 'A') as fires
    from pg_trigger t
    join pg_class c on c.oid = t.tgrelid
    join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'outbox' and (c.relname = 'entry' or t.tgparentid <> 0)
)
select w.name, format('alter table %I.%I enable trigger %I', f.nspname, f.relname, f.name) as remedy
from wanted w
join found f on f.name = w.name and not f.fires
where f.whole or exists (select from found p where p.name = w.name and p.whole and p.fires)
union all
select w.name, null from wanted w
where not exists (select from found f where f.name = w.name and f.whole)
