-- Partitions: the rows of one stream go to several Redis streams, by the hash of their key.
--
-- Run by:  `outbox-relay migrate`, in one transaction, under an advisory lock.
-- Locks:   ACCESS EXCLUSIVE on the views entry_status and stream_status until it commits; never outbox.entry, so
--          writers do not wait.
-- Form:    a partition is a stream like any other, with a log, groups and a floor of its own; which one a row goes
--          to is decided when it is sealed. A change is asked for here; the relay that leads makes it between two
--          seals, with the last number of each stream until then, and what goes to new streams waits until
--          every group has acknowledged up to there. So a key's entries are read in their order also across
--          the change.

create table outbox.partitioning (
    stream     text    primary key,
    partitions integer not null default 1 check (partitions between 1 and 256),
    before     integer,
    closed     jsonb,
    changed_at timestamptz,
    wanted     integer check (wanted between 1 and 256)
);
comment on table outbox.partitioning is
    'Streams whose rows go to several Redis streams. Changed by outbox.set_partitions and by the relay.';
comment on index outbox.partitioning_pkey is 'By stream.';
comment on column outbox.partitioning.stream is 'The stream, as rows name it.';
comment on column outbox.partitioning.partitions is
    'Rows that are sealed now go to so many streams, orders:{0}, orders:{1} and so on; 1 for the stream itself.';
comment on column outbox.partitioning.before is
    'How many there were before; null once every consumer group has acknowledged all that went there until the change.';
comment on column outbox.partitioning.closed is 'Of each stream that rows went to before, the last number until the change.';
comment on column outbox.partitioning.changed_at is 'When that change was.';
comment on column outbox.partitioning.wanted is 'Asked for, and not in force yet; null if nothing is.';

create function outbox.partition_names(stream text, partitions integer) returns setof text
    language sql immutable parallel safe
begin atomic
    select stream where partitions = 1
    union all
    select format('%s:{%s}', stream, n) from generate_series(0, partitions - 1) n where partitions > 1;
end;
comment on function outbox.partition_names(text, integer) is
    'Names of the Redis streams of a stream with so many partitions. Locks nothing.';

create function outbox.crc16(bytes bytea) returns integer
    language plpgsql immutable strict parallel safe set search_path = pg_catalog, pg_temp
as $$
declare
    crc integer := 0;
begin
    for i in 0 .. octet_length(bytes) - 1 loop
        crc := crc # (get_byte(bytes, i) << 8);
        for bit in 1 .. 8 loop
            crc := case when crc & 32768 <> 0 then ((crc << 1) # 4129) & 65535 else (crc << 1) & 65535 end;
        end loop;
    end loop;
    return crc;
end
$$;
comment on function outbox.crc16(bytea) is
    'CRC-16/XMODEM, the hash of Redis Cluster. For single keys: a row takes microseconds a byte. Locks nothing.';

-- The relay computes the same, in the order of rows.
create function outbox.partition_of(stream text, key text, id bigint default 0) returns text
    language sql stable set search_path = pg_catalog, pg_temp
as $$
    select case when coalesce(p.partitions, 1) = 1 then partition_of.stream
                else format('%s:{%s}', partition_of.stream,
                            case when partition_of.key is null then partition_of.id % p.partitions
                                 else outbox.crc16(convert_to(partition_of.key, 'UTF8')) % p.partitions end) end
    from (select) one left join outbox.partitioning p on p.stream = partition_of.stream
$$;
comment on function outbox.partition_of(text, text, bigint) is
    'Name of the Redis stream that a row with this key goes to, as partitions are now; a row without a key goes by its id. Locks nothing.';

create function outbox.set_partitions(stream text, partitions integer) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    now    outbox.partitioning;
    lonely text;
begin
    if set_partitions.partitions is null or set_partitions.partitions not between 1 and 256 then
        raise exception using errcode = 'check_violation',
            message = format('outbox.set_partitions: %s partitions are asked for', coalesce(partitions::text, 'null')),
            hint = 'A stream has 1 to 256 partitions.';
    end if;
    if set_partitions.stream is null or set_partitions.stream !~ '^[A-Za-z0-9][A-Za-z0-9._:-]{0,121}$'
       or set_partitions.stream like 'outbox:%' then
        raise exception using errcode = 'check_violation',
            message = format('outbox.set_partitions: stream %L cannot have partitions', left(stream, 200)),
            hint = 'Its name may have up to 122 of A-Z a-z 0-9 . _ : - and no braces, for those of the partition decide its slot.';
    end if;
    insert into outbox.partitioning (stream) values (set_partitions.stream) on conflict do nothing;
    -- Without a lock: one that is refused holds none for as long as its transaction stays open.
    select p.* into now from outbox.partitioning p where p.stream = set_partitions.stream;
    if now.wanted is not null or now.before is not null then
        raise exception using errcode = 'object_not_in_prerequisite_state',
            message = format('outbox.set_partitions: the change of %s to %s partitions is still under way',
                             stream, coalesce(now.wanted, now.partitions)),
            hint = coalesce((select g.reason from outbox.gated g where g.of = set_partitions.stream limit 1),
                            'A relay that runs makes it within a second or two.');
    end if;
    if now.partitions = set_partitions.partitions then
        return;
    end if;
    if now.partitions > 1 and set_partitions.partitions > 1 and set_partitions.partitions % now.partitions <> 0 then
        raise exception using errcode = 'check_violation',
            message = format('outbox.set_partitions: %s has %s partitions and cannot get %s in one step',
                             stream, now.partitions, partitions),
            hint = 'Keys of one partition would get into another that has entries of its own; ask for a multiple, or for 1 first.';
    end if;
    select f.stream into lonely
    from outbox.floor f join outbox.stream s on s.name = f.stream
    where f.stream in (select outbox.partition_names(set_partitions.stream, now.partitions)) and f.groups = '[]'
      and (s.head_n > 0 or s.purged_n > 0 or exists (select from outbox.batch b where b.stream = s.name))
    limit 1;
    if lonely is not null then
        raise exception using errcode = 'object_not_in_prerequisite_state',
            message = format('outbox.set_partitions: stream %s has no consumer group', lonely),
            hint = 'What goes to other partitions has to wait until every group has acknowledged what is there now, and without a group nobody can tell. Make one, and ask again: the relay may take half a minute to see it.';
    end if;
    update outbox.partitioning p set wanted = set_partitions.partitions
    where p.stream = set_partitions.stream and p.partitions = now.partitions and p.wanted is null and p.before is null;
    if not found then
        raise exception using errcode = 'serialization_failure',
            message = format('outbox.set_partitions: somebody else changes the partitions of %s at the same time', stream),
            hint = 'Look what outbox.partitioning says now, and ask again.';
    end if;
end
$$;
comment on function outbox.set_partitions(text, integer) is
    'Asks for the rows of a stream to go to so many Redis streams, orders:{0}, orders:{1} and so on, by the hash of their key. The relay makes the change within seconds; entries of new partitions wait until every consumer group has acknowledged all that came before. Locks the row of the stream in outbox.partitioning.';
revoke all on function outbox.set_partitions(text, integer) from public;

-- As text in a view it would be asked with the rights of the view's owner; as a function it is asked with those of
-- whoever asks, who may read all of these.
-- What was stored before the change may lack a group that had been made by then: a stream with nothing to do is
-- looked at rarely.
create function outbox.open_ends(closed jsonb, changed_at timestamptz, out stream text, out n bigint)
    returns setof record
    language sql stable set search_path = pg_catalog, pg_temp
as $$
    select c.key, c.value::bigint
    from jsonb_each_text(closed) c
    join outbox.floor f on f.stream = c.key
    where f.n < c.value::bigint or f.groups = '[]' or f.taken_at is null or f.taken_at < changed_at
$$;
comment on function outbox.open_ends(jsonb, timestamptz) is
    'Of streams with a number each, those where a consumer group has not acknowledged up to it, where there is none, or where nobody has looked since. Locks nothing.';

create view outbox.gated as
select n.name as stream, p.stream as of,
       case when p.before is null then format('partitions of %s are about to change', p.stream)
            else format('partitions of %s changed from %s to %s; what comes after waits until every consumer group has '
                        'acknowledged what came before: %s', p.stream, p.before, p.partitions,
                        coalesce((select string_agg(format('%s up to %s', o.stream, o.n), ', ' order by o.stream)
                                  from outbox.open_ends(p.closed, p.changed_at) o), 'it has')) end as reason
from outbox.partitioning p
cross join lateral (
    select outbox.partition_names(p.stream, coalesce(p.wanted, p.partitions)) as name
    except
    select outbox.partition_names(p.stream, case when p.wanted is null then p.before else p.partitions end)
) n
where p.wanted is not null or p.before is not null;
comment on view outbox.gated is
    'New partitions whose entries wait until every consumer group has acknowledged what came before their partitions changed.';
comment on column outbox.gated.stream is 'The Redis stream that waits.';
comment on column outbox.gated.of is 'The stream, as rows name it.';
comment on column outbox.gated.reason is 'What it waits for.';

-- Groups of the streams before are made in the new ones as well, at their beginning: they are stored as if they were
-- there and lost, for putting back what is lost is what the relay can do.
create function outbox.open_partitions() returns setof text
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    one  record;
    half constant smallint := coalesce((select c.half from outbox.checkpoint c order by c.id desc limit 1), 0);
begin
    for one in
        select p.* from outbox.partitioning p
        where p.before is not null and not exists (select from outbox.open_ends(p.closed, p.changed_at))
        for update skip locked
    loop
        with old as materialized (
            select f.* from outbox.floor f
            where f.stream in (select outbox.partition_names(one.stream, one.before)) and f.nonce is not null
        ), new as materialized (
            select f.* from outbox.gated g join outbox.floor f on f.stream = g.stream where g.of = one.stream
        ), made as (
            select n.stream, jsonb_agg(jsonb_build_object(
                'name', g.name, 'delivered', '0-0', 'read', null, 'given', 0, 'floor', 0, 'waiting', 0,
                'pending', '[]'::jsonb)) as groups
            from new n
            cross join (select distinct e ->> 'name' as name from old o, jsonb_array_elements(o.groups) e) g
            where not exists (select from jsonb_array_elements(n.groups) e where e ->> 'name' = g.name)
            group by n.stream
        ), lost as (
            update outbox.stream s set groups_lost = true from made m where s.name = m.stream
        )
        insert into outbox.checkpoint (half, stream, nonce, count, floor_ms, floor_n, groups)
        select half, n.stream, o.nonce, o.count, n.ms, n.n, n.groups || m.groups
        from new n join made m on m.stream = n.stream
        cross join (select nonce, count from old order by taken_at desc limit 1) o;
        update outbox.partitioning p set before = null, closed = null, changed_at = null where p.stream = one.stream;
        return next one.stream;
    end loop;
end
$$;
comment on function outbox.open_partitions() is
    'Lets new partitions flow once every consumer group has acknowledged what came before them, and stores those groups for them. Returns the streams, as rows name them. Locks their rows in outbox.partitioning.';
revoke all on function outbox.open_partitions() from public;

-- A row that is not found in the stream that it names is looked for in its partitions. Each branch stands for itself,
-- as batches_over does, for a view reads tables with the rights of its owner and a function does not.
create or replace view outbox.entry_status as
select e.id, e.event_id, coalesce(b.stream, e.stream) as stream, e.key, e.type, e.created_at, b.n,
       b.ms || '-' || b.n as entry_id,
       case when b.n is null then 'pending' when b.dispatched_at is null then 'sealed' else 'dispatched' end as state,
       b.dispatched_at
from outbox.entry e
left join lateral (
    select a.stream, a.ms, a.dispatched_at, a.first_n + array_position(a.ids, e.id) - 1 as n
    from (
        select * from outbox.batch b
        where b.last_id - b.first_id < 10000
          and b.first_id > e.id - 10000 and b.first_id <= e.id and b.last_id >= e.id and b.stream = e.stream
        union all
        select * from outbox.batch b
        where b.last_id - b.first_id >= 10000
          and int8range(b.first_id, b.last_id, '[]') @> e.id and b.stream = e.stream
        union all
        -- From the highest id down, for the batch that has a row begins close to it.
        (select b.* from outbox.partitioning p join outbox.batch b
           on b.last_id - b.first_id < 10000
           and b.first_id > e.id - 10000 and b.first_id <= e.id and b.last_id >= e.id
           and starts_with(b.stream, e.stream || ':{') and e.id = any (b.ids)
         where p.stream = e.stream
         order by b.first_id desc limit 1)
        union all
        select b.* from outbox.partitioning p join outbox.batch b
          on b.last_id - b.first_id >= 10000
          and int8range(b.first_id, b.last_id, '[]') @> e.id and starts_with(b.stream, e.stream || ':{')
        where p.stream = e.stream
    ) a
    where e.id = any (a.ids)
    limit 1
) b on true;

create or replace view outbox.stream_status as
with waiting as materialized (
    select p.stream, count(*) as entries, min(p.created_at) as oldest from outbox.pending p group by p.stream
)
select coalesce(s.name, w.stream) as stream,
       greatest(coalesce(h.last_n, 0), coalesce(s.head_n, 0)) as sealed,
       greatest(coalesce(d.last_n, 0), coalesce(s.head_n, 0)) as dispatched,
       case when f.groups <> '[]' then f.n end as acked,
       greatest(coalesce(h.last_n, 0), coalesce(s.head_n, 0))
           - greatest(coalesce(d.last_n, 0), coalesce(s.head_n, 0)) + coalesce(w.entries, 0) as undispatched,
       coalesce(o.created_at, w.oldest) as oldest_undispatched_at,
       case when s.paused_at is not null or g.stream is not null then 'paused' else coalesce(s.state, 'active') end as state,
       case when s.paused_at is not null
            then format('paused by %s at %s; `outbox-relay resume %s` lets it flow again',
                        coalesce(s.paused_by, 'somebody'),
                        to_char(s.paused_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), s.name)
            else coalesce(g.reason, s.reason) end as reason,
       coalesce(s.purged_n, 0) as purged
from outbox.stream s
full join waiting w on w.stream = s.name
left join outbox.floor f on f.stream = s.name
left join outbox.gated g on g.stream = s.name
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

-- Rows that adopt seals go where the relay would have sent them. A copy that brings no sequences gets that of
-- checkpoints set as well: new ones with numbers below those that came with it would not count.
create or replace function outbox.adopt(out sealed bigint, out restamped bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    here constant text := (select c.system_identifier::text from pg_control_system() c);
    now_ms constant bigint := (extract(epoch from clock_timestamp()) * 1000)::bigint;
    high     bigint;
    term     bigint;
    new_seal bigint;
    last_checkpoint bigint;
    partitioned constant boolean := exists (select from outbox.partitioning);
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
    -- The log may know ids whose rows have been purged: given out again they would look sealed.
    high := greatest((select coalesce(max(e.id), 0) from outbox.entry e),
                     (select coalesce(max(b.last_id), 0) from outbox.batch b),
                     coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0));
    if high > 0 then
        perform setval('outbox.entry_id_seq', high);
    end if;
    -- The checkpoint with the highest id counts: new ones below those that were copied would not.
    last_checkpoint := greatest((select coalesce(max(c.id), 0) from outbox.checkpoint c),
                                coalesce(pg_sequence_last_value('outbox.checkpoint_id_seq'), 0));
    if last_checkpoint > 0 then
        perform setval('outbox.checkpoint_id_seq', last_checkpoint);
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
        from (select case when partitioned then outbox.partition_of(e.stream, e.key, e.id) else e.stream end as stream, e.id
              from outbox.entry e
              where not exists (select from logged where logged.id = e.id)) e
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

revoke all on function outbox.partition_names(text, integer), outbox.crc16(bytea),
    outbox.partition_of(text, text, bigint), outbox.open_ends(jsonb, timestamptz) from public;

-- ---------------------------------------------------------------------------------------------
-- Rights
-- ---------------------------------------------------------------------------------------------

create or replace function outbox.grant_relay(role regrole) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('grant usage on schema outbox to %s', role);
    execute format('grant select on all tables in schema outbox to %s', role);
    execute format('grant insert on outbox.seal, outbox.batch, outbox.stream, outbox.phantom, outbox.lease, '
                   'outbox.checkpoint to %s', role);
    execute format('grant update (dispatched_at) on outbox.batch to %s', role);
    execute format('grant update (head_ms, head_n, groups_lost, state, reason, paused_at, paused_by) '
                   'on outbox.stream to %s', role);
    execute format('grant update (partitions, before, closed, changed_at, wanted) on outbox.partitioning to %s', role);
    execute format('grant update (ended_at) on outbox.lease to %s', role);
    execute format('grant update (proved) on outbox.scrub to %s', role);
    execute format('grant select, update on sequence outbox.wake_until, outbox.lease_until to %s', role);
    execute format('grant select on sequence outbox.entry_id_seq to %s', role);
    execute format('grant execute on function outbox.attach_leaves(bigint, integer), outbox.pending_entries(), '
                   'outbox.adopt(), outbox.rotate_checkpoints(bigint), outbox.purge_entries(interval), '
                   'outbox.purge_log(interval), outbox.needs(text[], bigint[]), outbox.drop_leaves(), '
                   'outbox.leap(interval), outbox.empty_nets(), outbox.batches_over(bigint, bigint), '
                   'outbox.partition_names(text, integer), outbox.crc16(bytea), outbox.partition_of(text, text, bigint), '
                   'outbox.open_ends(jsonb, timestamptz), outbox.open_partitions() to %s', role);
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
