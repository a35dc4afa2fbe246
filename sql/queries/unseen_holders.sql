-- outbox.unseen_holders: transactions that have been open for long although their begin cannot be seen.
--
-- Called by:  outbox::schema, for `outbox-relay doctor` by a role without pg_read_all_stats.
-- Locks:      none beyond those of any select.
-- Parameters: $1 seconds.
-- Returns:    as outbox.holders, without an age.
--
-- Everybody sees which transaction id a session has. One that had been given out when a seal of long
-- ago was made is at least as old as that seal.
with past as materialized (
    select pg_snapshot_xmax(s.base)::text::bigint as xid
    from outbox.seal s
    where s.sealed_at < clock_timestamp() - make_interval(secs => $1)
    order by s.seal desc
    limit 1
)
select a.pid::text as name,
       format('application %L, role %s', coalesce(a.application_name, ''), a.usename) as who,
       format('select pg_terminate_backend(%s)', a.pid) as remedy
from pg_stat_activity a cross join past
where a.datname = current_database() and a.pid <> pg_backend_pid()
  and coalesce(a.application_name, '') not like 'outbox-relay %'
  and a.xact_start is null and a.backend_xid is not null
  and pg_snapshot_xmax(pg_current_snapshot())::text::bigint - age(a.backend_xid) < past.xid
order by age(a.backend_xid) desc
