-- outbox.hasty_roles: for whom commits are set not to wait for the disk.
--
-- Called by:  outbox::cluster, for `outbox-relay doctor`.
-- Locks:      none.
-- Returns:    whose commits, and the statement that makes them wait again.
select case when s.setrole = 0 and s.setdatabase = 0 then 'all roles'
            when s.setrole = 0 then format('all roles in database %I', d.datname)
            when s.setdatabase = 0 then format('role %I', r.rolname)
            else format('role %I in database %I', r.rolname, d.datname) end as whose,
       case when s.setrole = 0 and s.setdatabase = 0 then 'alter role all reset synchronous_commit'
            when s.setrole = 0 then format('alter database %I reset synchronous_commit', d.datname)
            when s.setdatabase = 0 then format('alter role %I reset synchronous_commit', r.rolname)
            else format('alter role %I in database %I reset synchronous_commit', r.rolname, d.datname)
       end as remedy
from pg_db_role_setting s
left join pg_roles r on r.oid = s.setrole
left join pg_database d on d.oid = s.setdatabase
where (s.setdatabase = 0 or d.datname = current_database())
  and exists (select from unnest(s.setconfig) c
              where c ~ '^synchronous_commit=(off|false|no|0)$')
order by 1
