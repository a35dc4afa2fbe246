-- outbox.cluster: what the server says of itself.
--
-- Called by:  outbox::cluster, for `outbox-relay doctor`.
-- Locks:      none.
-- Returns:    one row. A setting that this session changes is read as the session found it. The state of
--             a standby is null for a role without pg_read_all_stats; then it may be a synchronous one.
select current_setting('server_version_num')::integer as version_number,
       current_setting('server_version') as version,
       pg_is_in_recovery() as standby,
       current_setting('server_encoding') as encoding,
       current_setting('fsync') = 'on' as fsync,
       current_setting('full_page_writes') = 'on' as full_page_writes,
       current_setting('autovacuum') = 'on' as autovacuum,
       exists (select from pg_settings s where s.name = 'synchronous_commit' and s.setting = 'off'
               and s.source not in ('user', 'database', 'database user', 'client', 'session')) as hasty,
       current_setting('synchronous_standby_names') as standby_names,
       exists (select from pg_stat_replication r
               where coalesce(r.sync_state, 'sync') in ('sync', 'quorum')) as has_synchronous_standby,
       exists (select from pg_settings s
               where s.name = 'idle_in_transaction_session_timeout' and s.reset_val = '0') as idle_unbounded,
       (select coalesce(sum(d.numbackends), 0) from pg_stat_database d)::bigint as connections,
       current_setting('max_connections')::bigint as max_connections,
       current_user::text as role,
       current_database()::text as database,
       (select r.rolsuper from pg_roles r where r.rolname = current_user) as superuser,
       exists (select from pg_namespace n
               where n.nspname = 'outbox' and pg_has_role(current_user, n.nspowner, 'usage')) as owner
