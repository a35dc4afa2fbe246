-- What keeps everything bounded: checkpoints of consumer groups, and the purge of rows and log.
--
-- Run by:  `outbox-relay migrate`, in one transaction, under an advisory lock.
-- Locks:   ACCESS EXCLUSIVE on outbox.stream and the view outbox.stream_status, each for a moment; never
--          outbox.entry, so writers do not wait.
-- Form:    a checkpoint is inserted, never updated: one row updated per second leaves a dead version per
--          second for as long as somebody's transaction stays open. What is no longer the latest goes
--          when its half of the table is truncated.

-- ---------------------------------------------------------------------------------------------
-- Checkpoints: where consumer groups are
-- ---------------------------------------------------------------------------------------------

create table outbox.checkpoint (
    half     smallint    not null check (half in (0, 1)),
    id       bigint      generated always as identity (cache 1),
    stream   text        not null,
    taken_at timestamptz not null default clock_timestamp(),
    nonce    text        not null,
    count    bigint      not null,
    floor_ms bigint      not null,
    floor_n  bigint      not null,
    groups   jsonb       not null,
    primary key (stream, id, half)
) partition by list (half);
create table outbox.checkpoint_0 partition of outbox.checkpoint for values in (0);
create table outbox.checkpoint_1 partition of outbox.checkpoint for values in (1);
create index checkpoint_id on outbox.checkpoint (id);

comment on table outbox.checkpoint is
    'Consumer groups of each stream as they were in Redis; the row with the highest id per stream counts. Insert only: when one half has grown, the latest rows are copied to the other and it is truncated.';
comment on column outbox.checkpoint.half is 'Which half of the table: one is written to, the other is empty.';
comment on column outbox.checkpoint.id is 'Order of checkpoints.';
comment on column outbox.checkpoint.stream is 'The stream.';
comment on column outbox.checkpoint.taken_at is 'When.';
comment on column outbox.checkpoint.nonce is
    'Which life of Redis: a Redis with another nonce has lost everything since.';
comment on column outbox.checkpoint.count is
    'How often the canary in Redis had been raised: a Redis that counts less has gone back to a time before this checkpoint.';
comment on column outbox.checkpoint.floor_ms is 'Milliseconds of the position of floor_n.';
comment on column outbox.checkpoint.floor_n is
    'Number up to which every consumer group has acknowledged, or, without groups, up to which the stream was trimmed: what a lost stream need not get back.';
comment on column outbox.checkpoint.groups is
    'Each group: its name, the last entry it was given, and what it has not acknowledged.';
comment on index outbox.checkpoint_pkey is 'By stream; the last one counts.';
comment on index outbox.checkpoint_id is 'By id: which half is written to.';
comment on table outbox.checkpoint_0 is 'One half of outbox.checkpoint.';
comment on table outbox.checkpoint_1 is 'The other half of outbox.checkpoint.';
comment on sequence outbox.checkpoint_id_seq is 'Numbers checkpoints.';

create function outbox.rotate_checkpoints(bytes bigint default 16777216) returns smallint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '100ms'
as $$
declare
    active  smallint := coalesce((select c.half from outbox.checkpoint c order by c.id desc limit 1), 0);
    leaf    text := format('checkpoint_%s', active);
    streams bigint;
    held    bigint;
begin
    if pg_table_size(format('outbox.%I', leaf)) < bytes then
        return active;
    end if;
    execute format('lock table outbox.%I in access exclusive mode', leaf);
    execute format('select count(distinct stream), count(*) from outbox.%I', leaf) into streams, held;
    -- Where most rows are the latest of their stream, copying them would free nothing.
    if held < 4 * streams then
        return active;
    end if;
    execute format(
        'insert into outbox.checkpoint (half, stream, taken_at, nonce, count, floor_ms, floor_n, groups) '
        'select distinct on (stream) %s, stream, taken_at, nonce, count, floor_ms, floor_n, groups '
        'from outbox.%I order by stream, id desc', 1 - active, leaf);
    execute format('truncate outbox.%I', leaf);
    return 1 - active;
end
$$;
comment on function outbox.rotate_checkpoints(bigint) is
    'Returns the half of outbox.checkpoint to write to; if it has grown beyond "bytes", copies the latest rows to the other one and truncates it. Locks that half (ACCESS EXCLUSIVE, waited for at most 100 ms), which only the relay and readers of status use.';
revoke all on function outbox.rotate_checkpoints(bigint) from public;

-- ---------------------------------------------------------------------------------------------
-- Streams: how far they are purged, and their floor
-- ---------------------------------------------------------------------------------------------

alter table outbox.stream rename column floor_ms to purged_ms;
alter table outbox.stream rename column floor_n to purged_n;
comment on column outbox.stream.purged_ms is 'Milliseconds of the position of purged_n.';
comment on column outbox.stream.purged_n is 'Number up to which rows and log have been purged: nobody needs them any more.';
alter table outbox.stream add column groups_lost boolean not null default false;
comment on column outbox.stream.groups_lost is
    'Redis has lost something of the stream, and its consumer groups are not back yet: whoever leads next begins with them.';
comment on column outbox.stream.head_n is
    'Number up to which the stream is settled without the log: entries that were purged, or found in Redis without a row in Postgres.';

create view outbox.floor as
select s.name as stream,
       case when coalesce(c.floor_n, 0) > s.purged_n then c.floor_ms else s.purged_ms end as ms,
       greatest(coalesce(c.floor_n, 0), s.purged_n) as n,
       c.nonce, c.count, c.taken_at, coalesce(c.groups, '[]') as groups
from outbox.stream s
left join lateral (
    select * from outbox.checkpoint k where k.stream = s.name order by k.id desc limit 1
) c on true;
comment on view outbox.floor is
    'Each stream with its floor, below which nobody needs anything, and its consumer groups, as of the latest checkpoint.';

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
       case when s.paused_at is not null then 'paused' else coalesce(s.state, 'active') end as state,
       case when s.paused_at is not null
            then format('paused by %s at %s; `outbox-relay resume %s` lets it flow again',
                        coalesce(s.paused_by, 'somebody'),
                        to_char(s.paused_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'), s.name)
            else s.reason end as reason,
       coalesce(s.purged_n, 0) as purged
from outbox.stream s
full join waiting w on w.stream = s.name
left join outbox.floor f on f.stream = s.name
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
-- Purge: leaves whose rows nobody needs are emptied, empty ones are dropped
-- ---------------------------------------------------------------------------------------------

-- A leaf is looked through without a lock, then locked and looked at again for what may have changed,
-- which is cheap: no batch with its ids was sealed since, every row in it is sealed, and floors have not
-- gone back. Whoever has written to the leaf and not committed holds a lock on it, so once it is locked
-- there is no such row; whoever has drawn an id and not yet come to the leaf finds it empty, and there.
create function outbox.purge_entries(retention interval, out leaves integer, out entries bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '50ms' set enable_seqscan = off
as $$
declare
    before  constant timestamptz := clock_timestamp() - retention;
    leaf    record;
    last    bigint;
    seen    record;
    needed  boolean;
begin
    leaves := 0;
    entries := 0;
    for leaf in select l.name, l.lower, l.upper from outbox.leaf l where l.tree = 'entry' order by l.lower loop
        execute format('select max(id) from outbox.%I', leaf.name) into last;
        -- The newest row alone tells most leaves that are in use.
        continue when last is null or not exists (
            select from outbox.batch b join outbox.floor f on f.stream = b.stream and f.n >= b.last_n
            where int8range(b.first_id, b.last_id, '[]') @> last and b.dispatched_at is not null
              and not exists (select from outbox.seal s where s.seal = b.seal and s.sealed_at >= before));
        select max(o.seal) as seal, array_agg(o.stream) as streams, array_agg(o.n) as ns,
               bool_and(o.dispatched) as dispatched, sum(o.entries) as entries
        into seen
        from (select b.stream, max(b.seal) as seal, max(b.last_n) as n,
                     sum(case when b.first_id >= leaf.lower and b.last_id <= last then b.last_n - b.first_n + 1
                              else (select count(*) from unnest(b.ids) i (id) where i.id between leaf.lower and last)
                         end) as entries,
                     bool_and(b.dispatched_at is not null) as dispatched
              from outbox.batch b
              where int8range(b.first_id, b.last_id, '[]') && int8range(leaf.lower, last, '[]')
              group by b.stream) o;
        continue when not seen.dispatched
            or exists (select from outbox.seal s where s.seal = seen.seal and s.sealed_at >= before)
            or outbox.needs(seen.streams, seen.ns);
        begin
            execute format('lock table outbox.%I in access exclusive mode', leaf.name);
            execute format(
                'select exists (select from outbox.%1$I e, outbox.cursor c '
                               'where e.xid >= pg_snapshot_xmax(c.base)) '
                    'or exists (select from outbox.%1$I e '
                               'where e.xid = any (array(select pg_snapshot_xip(c.base) from outbox.cursor c)))',
                leaf.name) into needed;
            if needed or outbox.needs(seen.streams, seen.ns) or exists (
                select from outbox.batch b
                where b.seal > seen.seal
                  and int8range(b.first_id, b.last_id, '[]') && int8range(leaf.lower, leaf.upper)
            ) then
                raise lock_not_available;
            end if;
            execute format('truncate outbox.%I', leaf.name);
            leaves := 1;
            entries := seen.entries;
            -- One at a time: the lock is held until the transaction ends.
            return;
        exception when lock_not_available then
            -- Somebody writes to it, or reads all of it, or a late row has come: another time. The
            -- exception gives the lock back.
            null;
        end;
    end loop;
end
$$;
comment on function outbox.purge_entries(interval) is
    'Empties a leaf of outbox.entry all of whose rows are older than "retention", in Redis, and acknowledged by every consumer group. Locks such a leaf (ACCESS EXCLUSIVE, waited for at most 50 ms, held for a few milliseconds).';

create function outbox.needs(streams text[], ns bigint[]) returns boolean
    language sql stable set search_path = pg_catalog, pg_temp
as $$
    select exists (
        select from unnest(streams, ns) as u (stream, n)
        left join outbox.floor f on f.stream = u.stream
        where coalesce(f.n, 0) < u.n)
$$;
comment on function outbox.needs(text[], bigint[]) is
    'Whether one of these streams has its floor below the number beside it. Locks nothing.';

-- The log of a row goes after the row: without it the row would look as if it had never been sealed.
create function outbox.purge_log(retention interval, out leaves integer)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '50ms' set enable_seqscan = off
as $$
declare
    before  constant timestamptz := clock_timestamp() - retention;
    newest  constant bigint := (select c.seal from outbox.cursor c);
    leaf    record;
    seen    record;
    again   bigint;
begin
    leaves := 0;
    for leaf in select l.name, l.lower, l.upper from outbox.leaf l where l.tree = 'batch' order by l.lower loop
        execute format('select seal from outbox.%I limit 1', leaf.name) into again;
        continue when again is null or exists (
            select from outbox.seal s
            where s.seal = (select max(t.seal) from outbox.seal t where t.seal < leaf.upper)
              and s.sealed_at >= before);
        execute format(
            'select min(b.first_id) as first_id, max(b.last_id) as last_id, max(b.seal) as seal, '
                   'bool_and(b.dispatched_at is not null) as dispatched from outbox.%I b', leaf.name) into seen;
        continue when not seen.dispatched
            or exists (select from outbox.entry e where e.id >= seen.first_id and e.id <= seen.last_id);
        begin
            execute format('lock table outbox.%I in access exclusive mode', leaf.name);
            -- Numbering goes on from here when no row of the log is left.
            execute format(
                'with last as materialized ('
                    'select distinct on (b.stream) b.stream, b.last_n, b.ms, b.dispatched_at, b.seal '
                    'from outbox.%I b order by b.stream, b.last_n desc), '
                'carried as ('
                    'update outbox.stream s set '
                        'head_ms = case when l.last_n > s.head_n then l.ms else s.head_ms end, '
                        'head_n = greatest(l.last_n, s.head_n), '
                        'purged_ms = case when l.last_n > s.purged_n then l.ms else s.purged_ms end, '
                        'purged_n = greatest(l.last_n, s.purged_n) '
                    'from last l where s.name = l.stream) '
                'select case when bool_and(l.dispatched_at is not null and f.n >= l.last_n) then max(l.seal) end '
                'from last l left join outbox.floor f on f.stream = l.stream', leaf.name) into again;
            if again is null or again > seen.seal then
                raise lock_not_available;
            end if;
            execute format('truncate outbox.%I', leaf.name);
            leaves := 1;
            return;
        exception when lock_not_available then
            null;
        end;
    end loop;
    for leaf in select l.name, l.lower, l.upper from outbox.leaf l
                where l.tree = 'seal' and l.upper <= newest order by l.lower loop
        execute format('select max(seal) from outbox.%I', leaf.name) into again;
        continue when again is null
            or exists (select from outbox.seal s where s.seal = again and s.sealed_at >= before)
            or exists (select from outbox.batch b where b.seal >= leaf.lower and b.seal < leaf.upper);
        begin
            execute format('truncate outbox.%I', leaf.name);
            leaves := 1;
            return;
        exception when lock_not_available then
            null;
        end;
    end loop;
end
$$;
comment on function outbox.purge_log(interval) is
    'Empties a leaf of outbox.batch or outbox.seal whose rows of outbox.entry are purged, and writes into outbox.stream how far each stream had got. Locks such a leaf (ACCESS EXCLUSIVE, waited for at most 50 ms).';

create function outbox.drop_leaves() returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '50ms'
as $$
declare
    leaf  record;
    used  bigint;
    held  boolean;
begin
    lock table outbox.leaf in share row exclusive mode;
    for leaf in select l.tree, l.name, l.lower, l.upper from outbox.leaf l order by l.tree, l.lower loop
        used := case leaf.tree
            when 'entry' then coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0)
            else (select c.seal from outbox.cursor c)
        end;
        -- The next number may still be for the leaf that ends with the last one.
        continue when leaf.upper > used;
        execute format('select exists (select from outbox.%I)', leaf.name) into held;
        continue when held;
        begin
            execute format('lock table only outbox.%I in access exclusive mode', leaf.tree);
            execute format('select exists (select from outbox.%I)', leaf.name) into held;
            if held then
                raise lock_not_available;
            end if;
            execute format('drop table outbox.%I', leaf.name);
            delete from outbox.leaf l where l.name = leaf.name;
            return 1;
        exception when lock_not_available then
            return 0;
        end;
    end loop;
    return 0;
end
$$;
comment on function outbox.drop_leaves() is
    'Drops one empty leaf that numbers have left behind. Locks its table (ACCESS EXCLUSIVE, waited for at most 50 ms), behind which writers wait, so it is called seldom.';

-- A leaf is emptied as a whole, so a leaf that fills slowly would keep its oldest rows for long. Numbers
-- leap to the next leaf instead; there are enough of them.
create function outbox.leap(age interval, out id bigint, out seal bigint)
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '50ms' set enable_seqscan = off
as $$
declare
    before constant timestamptz := clock_timestamp() - age;
    used   bigint := coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0);
    leaf   record;
    first  timestamptz;
begin
    select l.name, l.upper into leaf from outbox.leaf l
    where l.tree = 'entry' and l.lower <= used and l.upper > used + 1
      and exists (select from outbox.leaf next where next.tree = 'entry' and next.lower = l.upper);
    if not found then
        -- No leaf takes the next id: the net does, until ids have come to the next leaf.
        select 'entry_net', l.lower into leaf.name, leaf.upper from outbox.leaf l
        where l.tree = 'entry' and l.lower > used and exists (select from outbox.entry_net)
        order by l.lower limit 1;
    end if;
    if found then
        execute format('select created_at from outbox.%I order by id limit 1', leaf.name) into first;
        if first < before or leaf.name = 'entry_net' then
            begin
                -- Changes nothing, but waits for whoever has drawn an id and keeps others from drawing
                -- one: a number set back would be given out twice.
                alter sequence outbox.entry_id_seq cache 1;
                if pg_sequence_last_value('outbox.entry_id_seq') < leaf.upper - 1 then
                    perform setval('outbox.entry_id_seq', leaf.upper - 1);
                    id := leaf.upper;
                end if;
            exception when lock_not_available then
                null;
            end;
        end if;
    end if;

    select c.seal into used from outbox.cursor c;
    select l.name, l.upper into leaf from outbox.leaf l
    where l.tree = 'seal' and l.lower <= used and l.upper > used
      and exists (select from outbox.leaf next where next.tree = 'seal' and next.lower = l.upper)
      and exists (select from outbox.leaf next where next.tree = 'batch' and next.lower = l.upper);
    if found then
        execute format('select sealed_at from outbox.%I order by seal limit 1', leaf.name) into first;
        if first < before then
            seal := leaf.upper;
        end if;
    end if;
end
$$;
comment on function outbox.leap(interval) is
    'If the leaf of outbox.entry in use has a row older than "age", or ids have come to the net, lets the next id be the first of the next leaf, and returns it; and returns the number from which seals should go on for the same reason. Locks the sequence (SHARE ROW EXCLUSIVE, waited for at most 50 ms) against writers that draw an id.';

-- ---------------------------------------------------------------------------------------------
-- Nets: rows for which no leaf was attached in time
-- ---------------------------------------------------------------------------------------------

create function outbox.empty_nets() returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '200ms'
as $$
declare
    root  text;
    gap   record;
    moved bigint := 0;
    rows  bigint;
    leaf  text;
    held  boolean;
begin
    foreach root in array array['entry', 'seal', 'batch'] loop
        execute format('select exists (select from outbox.%I)', root || '_net') into held;
        continue when not held;
        begin
            -- What is behind the last leaf is a gap only once there is a next one.
            perform outbox.attach_leaves();
            lock table outbox.leaf in share row exclusive mode;
            execute format('lock table outbox.%I in access exclusive mode', root || '_net');
            for gap in
                select g.lower, g.upper
                from (select coalesce(lag(l.upper) over (order by l.lower), 0) as lower, l.lower as upper
                      from outbox.leaf l where l.tree = root) g
                where g.lower < g.upper
                  -- Writers that still come to the net would wait for the whole move.
                  and (root <> 'entry' or g.upper <= coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0) + 1)
            loop
                leaf := format('%s_%s', root, gap.lower);
                execute format('select exists (select from outbox.%I where %I >= $1 and %2$I < $2)',
                               root || '_net', case root when 'entry' then 'id' else 'seal' end)
                    into held using gap.lower, gap.upper;
                continue when not held;
                execute format('create table outbox.%I (like outbox.%I including defaults including storage)', leaf, root);
                if root = 'batch' then
                    execute format('alter table outbox.%I set (fillfactor = 80, toast_tuple_target = 256)', leaf);
                end if;
                -- Rows keep their transaction in their own column, so the search and the log still know them.
                execute format(
                    'with moved as (delete from outbox.%I where %I >= $1 and %2$I < $2 returning *) '
                    'insert into outbox.%I select * from moved',
                    root || '_net', case root when 'entry' then 'id' else 'seal' end, leaf)
                    using gap.lower, gap.upper;
                get diagnostics rows = row_count;
                execute format('alter table outbox.%I attach partition outbox.%I for values from (%L) to (%L)',
                               root, leaf, gap.lower, gap.upper);
                insert into outbox.leaf (tree, lower, upper, name) values (root, gap.lower, gap.upper, leaf);
                moved := moved + rows;
            end loop;
        exception when lock_not_available then
            null;
        end;
    end loop;
    return moved;
end
$$;
comment on function outbox.empty_nets() is
    'Moves rows out of the nets into leaves of their own, those of outbox.entry once ids have passed the net (see outbox.leap); returns how many. Locks a net (ACCESS EXCLUSIVE, waited for at most 200 ms) while it moves: whoever writes to other leaves does not wait.';

revoke all on function outbox.purge_entries(interval), outbox.purge_log(interval), outbox.needs(text[], bigint[]),
    outbox.drop_leaves(), outbox.leap(interval), outbox.empty_nets() from public;

-- ---------------------------------------------------------------------------------------------
-- Another cluster, where the log outlives its rows
-- ---------------------------------------------------------------------------------------------

create or replace function outbox.adopt(out sealed bigint, out restamped bigint)
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
    -- The log may know ids whose rows have been purged: given out again they would look sealed.
    high := greatest((select coalesce(max(e.id), 0) from outbox.entry e),
                     (select coalesce(max(b.last_id), 0) from outbox.batch b),
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
    execute format('grant update (ended_at) on outbox.lease to %s', role);
    execute format('grant update (proved) on outbox.scrub to %s', role);
    execute format('grant select, update on sequence outbox.wake_until, outbox.lease_until to %s', role);
    execute format('grant select on sequence outbox.entry_id_seq to %s', role);
    execute format('grant execute on function outbox.attach_leaves(bigint, integer), outbox.pending_entries(), '
                   'outbox.adopt(), outbox.rotate_checkpoints(bigint), outbox.purge_entries(interval), '
                   'outbox.purge_log(interval), outbox.needs(text[], bigint[]), outbox.drop_leaves(), '
                   'outbox.leap(interval), outbox.empty_nets() to %s', role);
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
        execute format('revoke update (purged_ms, purged_n) on outbox.stream from %s', relay);
        perform outbox.grant_relay(relay);
    end loop;
end
$$;
