-- outbox.missing_rights: what outbox.grant_relay gives and this role does not have.
--
-- Called by:  outbox::schema, for `outbox-relay doctor`.
-- Locks:      none: only the catalogue is read, which needs no right.
-- Returns:    one row per right, as `grant` names it.
--
-- Leaves are left out: they are read and written through their tables.
with object as materialized (
    select c.oid, c.relname::text as name, c.relkind,
           c.relispartition and c.relname not like '%\_net' as leaf
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'outbox'
), wanted (name, part, privilege) as (
    select o.name, null, 'select' from object o where o.relkind in ('r', 'p', 'v') and not o.leaf
    union all
    select unnest('{seal,batch,stream,phantom,lease,checkpoint}'::text[]), null, 'insert'
    union all
    values ('batch', 'dispatched_at', 'update'), ('lease', 'ended_at', 'update'),
           ('scrub', 'proved', 'update')
    union all
    select 'partitioning', p, 'update' from unnest('{partitions,before,closed,changed_at,wanted}'::text[]) p
    union all
    select 'stream', p, 'update'
    from unnest('{head_ms,head_n,groups_lost,state,reason,paused_at,paused_by}'::text[]) p
), missing as (
    select format('%s%s on outbox.%s', w.privilege, ' (' || w.part || ')', w.name) as missing
    from wanted w join object o on o.name = w.name
    where not case when w.part is null then has_table_privilege(o.oid, w.privilege)
                   else has_column_privilege(o.oid, w.part, w.privilege) end
    union all
    select format('%s on sequence outbox.%s', w.privilege, o.name)
    from (values ('wake_until', 'select'), ('wake_until', 'update'), ('lease_until', 'select'),
                 ('lease_until', 'update'), ('entry_id_seq', 'select')) w (name, privilege)
    join object o on o.name = w.name
    where not has_sequence_privilege(o.oid, w.privilege)
    union all
    select format('execute on function outbox.%s', p.proname)
    from pg_proc p join pg_namespace n on n.oid = p.pronamespace
    where n.nspname = 'outbox' and p.proname in (
          'attach_leaves', 'pending_entries', 'adopt', 'rotate_checkpoints', 'purge_entries', 'purge_log',
          'needs', 'drop_leaves', 'leap', 'empty_nets', 'batches_over', 'partition_names', 'crc16',
          'partition_of', 'open_ends', 'open_partitions', 'retry_dead_letter', 'discard_dead_letter',
          'purge_done')
      and not has_function_privilege(p.oid, 'execute')
    union all
    select 'usage on schema outbox'
    from pg_namespace n
    where n.nspname = 'outbox' and not has_schema_privilege(n.oid, 'usage')
)
select m.missing from missing m order by m.missing
