-- outbox.holders: transactions of this database that have been open or prepared for long.
--
-- Called by:  outbox::cluster, for `outbox-relay doctor`.
-- Locks:      none.
-- Parameters: $1 seconds.
-- Returns:    name, whether it is prepared, who, age in seconds, the statement that ends it; the oldest
--             first. A role without pg_read_all_stats sees begins of its own sessions only; see
--             outbox.unseen_holders.
select t.name, t.prepared, t.who, extract(epoch from clock_timestamp() - t.begun)::float8 as age, t.remedy
from (
    select a.pid::text as name, false as prepared, a.xact_start as begun,
           format('application %L, role %s', coalesce(a.application_name, ''), a.usename) as who,
           format('select pg_terminate_backend(%s)', a.pid) as remedy
    from pg_stat_activity a
    where a.datname = current_database() and a.pid <> pg_backend_pid()
      and coalesce(a.application_name, '') not like 'outbox-relay %'
      and coalesce(a.backend_type, '') <> 'autovacuum worker'
    union all
    select quote_literal(p.gid), true, p.prepared, format('role %s', p.owner),
           format('rollback prepared %L', p.gid)
    from pg_prepared_xacts p
    where p.database = current_database()
) t
where t.begun < clock_timestamp() - make_interval(secs => $1)
order by t.begun
