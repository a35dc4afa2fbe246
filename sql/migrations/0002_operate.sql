-- What people do by hand: hold a stream, consent to another cluster; and a comment on everything.
--
-- Run by:  `outbox-relay migrate`, in one transaction, under an advisory lock.
-- Locks:   ACCESS EXCLUSIVE on outbox.stream, outbox.identity and the view outbox.stream_status, each
--          for a moment; never outbox.entry, so writers do not wait.
-- Form:    columns are added without a default that would rewrite a table. Roles that run a relay
--          already are granted the new rights at once.

-- ---------------------------------------------------------------------------------------------
-- A stream that somebody holds
-- ---------------------------------------------------------------------------------------------

alter table outbox.stream add column paused_at timestamptz, add column paused_by text;
create index stream_paused on outbox.stream (name) where paused_at is not null;
comment on column outbox.stream.paused_at is
    'Since when `outbox-relay pause` holds the stream: its rows are sealed and wait in Postgres. Null while it flows.';
comment on column outbox.stream.paused_by is 'Who paused it: user and host of the command.';

create or replace view outbox.stream_status as
with waiting as materialized (
    select p.stream, count(*) as entries, min(p.created_at) as oldest from outbox.pending p group by p.stream
)
select coalesce(s.name, w.stream) as stream,
       greatest(coalesce(h.last_n, 0), coalesce(s.head_n, 0)) as sealed,
       greatest(coalesce(d.last_n, 0), coalesce(s.head_n, 0)) as dispatched,
       nullif(s.floor_n, 0) as acked,
       greatest(coalesce(h.last_n, 0), coalesce(s.head_n, 0))
           - greatest(coalesce(d.last_n, 0), coalesce(s.head_n, 0)) + coalesce(w.entries, 0) as undispatched,
       coalesce(o.created_at, w.oldest) as oldest_undispatched_at,
       case when s.paused_at is not null then 'paused' else coalesce(s.state, 'active') end as state,
       case when s.paused_at is not null
            then format('paused by %s at %s; `outbox-relay resume %s` lets it flow again',
                        coalesce(s.paused_by, 'somebody'),
                        to_char(s.paused_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), s.name)
            else s.reason end as reason
from outbox.stream s
full join waiting w on w.stream = s.name
left join lateral (
    select b.last_n from outbox.batch b where b.stream = s.name order by b.last_n desc limit 1
) h on true
left join lateral (
    -- Batches of a stream are marked in order, so this walks back over the backlog and no further.
    select b.last_n from outbox.batch b
    where b.stream = s.name and b.dispatched_at is not null order by b.last_n desc limit 1
) d on true
left join lateral (
    select e.created_at
    from (select b.ids[1] as id from outbox.batch b
          where b.stream = s.name and b.last_n > greatest(coalesce(d.last_n, 0), s.head_n)
          order by b.last_n limit 1) first
    join outbox.entry e on e.id = first.id
) o on true;

-- ---------------------------------------------------------------------------------------------
-- Another cluster
-- ---------------------------------------------------------------------------------------------

alter table outbox.identity add column former_systems text[] not null default '{}';
comment on column outbox.identity.former_systems is
    'Clusters that this outbox lived in before, as `outbox-relay adopt` left them: a Redis that names one of them is still ours.';

-- Transaction ids of one cluster mean nothing in another, so "what is visible and was not sealed"
-- cannot be asked across the change. It is asked of the log instead, once and whole, and the search
-- begins anew with the rows of this cluster.
create function outbox.adopt(out sealed bigint, out restamped bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    here constant text := (select c.system_identifier::text from pg_control_system() c);
    now_ms constant bigint := (extract(epoch from clock_timestamp()) * 1000)::bigint;
    high     bigint;
    term     bigint;
    new_seal bigint;
begin
    -- Nobody is in the middle of a transaction with entries: every row there is, is committed.
    lock table outbox.entry in share row exclusive mode;
    update outbox.identity i
    set former_systems = array_append(array_remove(i.former_systems, here), i.system_identifier),
        system_identifier = here
    where i.system_identifier <> here;

    update outbox.lease l set ended_at = clock_timestamp() where l.ended_at is null returning l.token + 1 into term;
    insert into outbox.lease (token, holder) values (term, 'adopt');
    perform setval('outbox.lease_until', 1);

    -- A logical copy brings rows and leaves sequences behind.
    high := greatest((select coalesce(max(e.id), 0) from outbox.entry e),
                     coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0));
    if high > 0 then
        perform setval('outbox.entry_id_seq', high);
    end if;

    -- The only update of entries there is: ids that are still to come in this cluster would make old
    -- rows look new when their turn comes. 3 is the first id that any cluster gives out.
    update outbox.entry e set xid = '3' where e.xid >= pg_snapshot_xmin(pg_current_snapshot());
    get diagnostics restamped = row_count;

    new_seal := 1 + coalesce((select max(s.seal) from outbox.seal s), 0);
    with logged as materialized (
        select unnest(b.ids) as id from outbox.batch b
    ), unlogged as materialized (
        select e.stream, e.id, row_number() over (partition by e.stream order by e.id) as i
        from outbox.entry e
        where not exists (select from logged where logged.id = e.id)
    ), named as (
        insert into outbox.stream (name)
        select distinct u.stream from unlogged u
        on conflict (name) do nothing
    ), head as (
        select n.stream, greatest(coalesce(l.last_n, 0), coalesce(s.head_n, 0)) as n,
               case when coalesce(l.last_n, 0) > coalesce(s.head_n, 0) then l.ms else coalesce(s.head_ms, 0) end as ms
        from (select distinct u.stream from unlogged u) n
        left join outbox.stream s on s.name = n.stream
        left join lateral (
            select b.last_n, b.ms from outbox.batch b where b.stream = n.stream order by b.last_n desc limit 1
        ) l on true
    ), batched as (
        insert into outbox.batch (seal, stream, first_n, last_n, ms, first_id, last_id, ids)
        select new_seal, u.stream, h.n + min(u.i), h.n + max(u.i),
               greatest(h.ms, now_ms), min(u.id), max(u.id), array_agg(u.id order by u.id)
        from unlogged u join head h on h.stream = u.stream
        group by u.stream, h.n, h.ms, (u.i - 1) / 1000
    )
    select count(*) into sealed from unlogged;

    insert into outbox.seal (seal, token, base, high)
    values (new_seal, term, pg_current_snapshot(), high);
end
$$;
comment on function outbox.adopt() is
    'Consents to this cluster after a restore, copy or upgrade: seals all rows that the log does not have and begins the search anew. Locks outbox.entry against writers until it commits. Returns how many rows it sealed, and how many carried transaction ids of another cluster.';
revoke all on function outbox.adopt() from public;

-- ---------------------------------------------------------------------------------------------
-- Rights
-- ---------------------------------------------------------------------------------------------

create or replace function outbox.grant_relay(role regrole) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('grant usage on schema outbox to %s', role);
    execute format('grant select on all tables in schema outbox to %s', role);
    execute format('grant insert on outbox.seal, outbox.batch, outbox.stream, outbox.phantom, outbox.lease to %s', role);
    execute format('grant update (dispatched_at) on outbox.batch to %s', role);
    execute format('grant update (head_ms, head_n, floor_ms, floor_n, state, reason, paused_at, paused_by) '
                   'on outbox.stream to %s', role);
    execute format('grant update (ended_at) on outbox.lease to %s', role);
    execute format('grant update (proved) on outbox.scrub to %s', role);
    execute format('grant select, update on sequence outbox.wake_until, outbox.lease_until to %s', role);
    execute format('grant select on sequence outbox.entry_id_seq to %s', role);
    execute format('grant execute on function outbox.attach_leaves(bigint, integer), outbox.pending_entries(), '
                   'outbox.adopt() to %s', role);
end
$$;

do $$
declare
    relay regrole;
begin
    for relay in
        select distinct a.grantee::regrole
        from pg_attribute c cross join aclexplode(c.attacl) a
        where c.attrelid = 'outbox.stream'::regclass and c.attname = 'state' and a.privilege_type = 'UPDATE'
    loop
        perform outbox.grant_relay(relay);
    end loop;
end
$$;

-- ---------------------------------------------------------------------------------------------
-- What else a reader of the catalogue asks
-- ---------------------------------------------------------------------------------------------

comment on column outbox.migration.version is 'Number of the migration: 1, 2, 3 …';
comment on column outbox.migration.name is 'What it is called in sql/migrations.';
comment on column outbox.migration.applied_at is 'When it was applied.';
comment on column outbox.identity.only_row is 'Always true: the table has one row.';
comment on column outbox.identity.id is 'Which outbox this is; kept in Redis as well.';
comment on column outbox.identity.system_identifier is 'The Postgres cluster it lives in, as pg_control_system() names it.';
comment on index outbox.entry_pkey is 'By id: the order in which rows are sealed, and `returning id`.';
comment on index outbox.entry_xid_id is 'By transaction: how new rows are found without reading those that are kept.';
comment on trigger refuse_entry on outbox.entry is
    'Refuses a row that breaks a bound, with an error that says what to do. Its function runs for such rows only.';
comment on trigger wake on outbox.entry is
    'Sends NOTIFY outbox, only while the relay asks for it and the session has not said `set outbox.wake = off`.';
comment on column outbox.stream.name is 'The stream, as rows of outbox.entry name it.';
comment on column outbox.stream.created_at is 'When its first row was sealed.';
comment on column outbox.stream.head_ms is 'Milliseconds of the position of head_n.';
comment on column outbox.stream.floor_ms is 'Milliseconds of the position of floor_n.';
comment on column outbox.stream.state is 'What the relay last said of it: active, rebuilding, full, halted.';
comment on column outbox.stream.reason is 'Why, in one sentence that names the remedy; null while it is active.';
comment on index outbox.stream_pkey is 'By name.';
comment on index outbox.stream_paused is 'Streams that somebody holds; the relay asks for them every second.';
comment on column outbox.seal.seal is 'Number of the transaction: 1, 2, 3 …';
comment on column outbox.seal.token is 'Which term of leadership sealed it.';
comment on column outbox.seal.through is 'See target.';
comment on column outbox.seal.sealed_at is 'When.';
comment on index outbox.seal_pkey is 'By number; the last one says where the search goes on.';
comment on column outbox.batch.seal is 'The transaction that sealed it.';
comment on column outbox.batch.stream is 'The stream.';
comment on column outbox.batch.first_n is 'Number of its first entry in the stream.';
comment on column outbox.batch.last_n is 'Number of its last entry in the stream.';
comment on column outbox.batch.ms is 'Milliseconds of all its positions, by the clock of Postgres, never decreasing within a stream.';
comment on column outbox.batch.first_id is 'The lowest id of its rows.';
comment on column outbox.batch.last_id is 'The highest id of its rows.';
comment on column outbox.batch.ids is 'Ids of its rows in outbox.entry, in order.';
comment on index outbox.batch_pkey is 'By stream and number: replays, heads, marks.';
comment on index outbox.batch_ids is 'By range of ids: the view entry_status and the scrub.';
comment on column outbox.phantom.stream is 'The stream.';
comment on column outbox.phantom.entry_id is 'Its ID in Redis.';
comment on column outbox.phantom.event_id is 'Its field "id".';
comment on column outbox.phantom.fields is 'All its fields: what is left of the lost row.';
comment on column outbox.phantom.found_at is 'When the relay found it.';
comment on column outbox.scrub.only_row is 'Always true: the table has one row.';
comment on column outbox.scrub.proved is 'Rows up to this id have been compared with the log.';
comment on column outbox.lease.token is 'Number of the term; grows by one whenever a relay takes over.';
comment on column outbox.lease.holder is 'Host, process and a random part: which relay.';
comment on column outbox.lease.taken_at is 'When the term began.';
comment on column outbox.lease.ended_at is 'When it was taken over; null for the current one. Its time may have run out: see lease_until.';
comment on index outbox.lease_current is 'At most one term is current.';
comment on column outbox.leaf.tree is 'Which table it is a partition of.';
comment on column outbox.leaf.lower is 'Its lowest id or seal.';
comment on column outbox.leaf.upper is 'One more than its highest.';
comment on column outbox.leaf.name is 'Name of the partition in the schema outbox.';
comment on index outbox.migration_pkey is 'By version.';
comment on index outbox.identity_pkey is 'One row.';
comment on index outbox.phantom_pkey is 'By stream and ID.';
comment on index outbox.scrub_pkey is 'One row.';
comment on index outbox.lease_pkey is 'By token.';
comment on index outbox.leaf_pkey is 'By table and lowest number.';
comment on index outbox.leaf_name_key is 'By name.';
comment on function outbox.grant_application(regrole) is
    'Lets a role insert entries and read back id and event_id, and nothing else. Locks nothing that is in use.';
comment on function outbox.grant_relay(regrole) is
    'Lets a role run the relay: read all of the schema, write the log, hold the lease. It owns nothing and deletes nothing. Locks nothing that is in use.';
