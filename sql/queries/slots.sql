-- outbox.slots: replication slots that nobody uses and that keep Postgres from cleaning up.
--
-- Called by:  outbox::cluster, for `outbox-relay doctor`.
-- Locks:      none.
-- Returns:    name, bytes of WAL kept for it, the statement that drops it. One that keeps neither rows nor
--             more than 1 GiB of WAL is no matter.
select s.slot_name::text as name, coalesce(s.kept, 0)::bigint as kept,
       format('select pg_drop_replication_slot(%L)', s.slot_name) as remedy
from (
    select r.*, pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn()
                                     else pg_current_wal_lsn() end, r.restart_lsn) as kept
    from pg_replication_slots r
    where not r.active
) s
where s.xmin is not null or s.catalog_xmin is not null or s.kept > 1024 * 1024 * 1024
order by s.kept desc nulls last
