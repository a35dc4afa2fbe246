-- outbox.transactions: the oldest transaction that is open or prepared.
--
-- Called by:  outbox::survey, every few seconds for metrics, and by `outbox-relay status`.
-- Locks:      none.
-- Returns:    its age in seconds as far as this role may see it, and the oldest id in progress, null if
--             none is. Without pg_read_all_stats a role sees begins of its own sessions only, so the
--             caller also watches for how long the same id stays the oldest.
select (select case when count(begun) > 0
                    then greatest(0, extract(epoch from clock_timestamp() - min(begun))) end::float8
        from (select a.xact_start as begun from pg_stat_activity a
              where a.datname = current_database() and a.pid <> pg_backend_pid()
                and a.application_name not like 'outbox-relay %'
              union all
              select p.prepared from pg_prepared_xacts p where p.database = current_database()) t) as age,
       case when pg_snapshot_xmin(s) < pg_snapshot_xmax(s) then pg_snapshot_xmin(s)::text end as oldest_xid
from pg_current_snapshot() s
