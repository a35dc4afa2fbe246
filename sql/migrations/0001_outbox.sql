-- The whole schema `outbox`: where applications write entries, and the log from which the relay
-- fills Redis streams.
--
-- Run by:  `outbox-relay migrate`, in one transaction, under an advisory lock.
-- Locks:   nothing that exists; every object here is new.
-- Form:    rows of outbox.entry are inserted and never updated. No row anywhere is updated once per
--          batch: while somebody's transaction stays open, dead versions of such a row pile up and
--          every read walks them. So the log is insert-only, and what must change often (when the
--          lease ends, until when the relay wants to be woken) is a sequence, which has no versions.

create schema outbox;
comment on schema outbox is
    'Transactional outbox: applications insert into outbox.entry, outbox-relay carries each committed row into a Redis stream.';

-- ---------------------------------------------------------------------------------------------
-- What this database is
-- ---------------------------------------------------------------------------------------------

create table outbox.migration (
    version    integer     primary key,
    name       text        not null,
    applied_at timestamptz not null default clock_timestamp()
);
comment on table outbox.migration is 'Schema versions applied by `outbox-relay migrate`.';

create table outbox.identity (
    only_row          boolean primary key default true check (only_row),
    id                uuid    not null default gen_random_uuid(),
    system_identifier text    not null
);
comment on table outbox.identity is
    'Which outbox this is (id, also kept in Redis) and in which Postgres cluster it lives (system_identifier). One row.';
insert into outbox.identity (system_identifier)
select system_identifier::text from pg_catalog.pg_control_system();

-- ---------------------------------------------------------------------------------------------
-- Entries: what applications write
-- ---------------------------------------------------------------------------------------------

-- xid stands before id on purpose: defaults are evaluated in the order of the columns, so a
-- transaction has its xid before it draws its first id.
create table outbox.entry (
    xid        xid8        not null default pg_current_xact_id(),
    id         bigint      generated always as identity (cache 1),
    event_id   uuid        not null default gen_random_uuid(),
    stream     text        not null,
    key        text,
    type       text,
    payload    jsonb       not null,
    headers    jsonb,
    created_at timestamptz not null default clock_timestamp(),
    primary key (id)
) partition by range (id);
create index entry_xid_id on outbox.entry (xid, id);

comment on table outbox.entry is
    'One row becomes one entry of the Redis stream named by "stream". Insert only; partitioned by id into leaves made ahead of need.';
comment on sequence outbox.entry_id_seq is
    'Numbers the rows of outbox.entry. CACHE 1: with more, a session would keep old ids for later rows.';
comment on column outbox.entry.xid is
    'Transaction that wrote the row; the relay finds new rows by comparing it with its last snapshot.';
comment on column outbox.entry.id is
    'Order of rows within what becomes visible at once. Filled in by the database.';
comment on column outbox.entry.event_id is 'Identity of the event, field "id" of the stream entry.';
comment on column outbox.entry.stream is
    'Redis stream (the relay''s prefix comes before it): 1 to 128 of A-Z a-z 0-9 . _ : { } -, the first a letter or digit, not beginning with "outbox:".';
comment on column outbox.entry.key is 'What the event is about, for order per key; at most 1,024 bytes.';
comment on column outbox.entry.type is 'Kind of event; at most 1,024 bytes.';
comment on column outbox.entry.payload is 'JSON, at most 65,536 bytes as text: an id and a status, not a document.';
comment on column outbox.entry.headers is 'JSON, at most 8,192 bytes as text.';
comment on column outbox.entry.created_at is 'When the row was inserted, by the clock of the database.';

-- Bounds are a BEFORE ROW trigger with all conditions in WHEN rather than CHECK constraints: a
-- constraint can only show its name, the trigger says what to do. The function is not called for a
-- row that is in bounds. The regex has no counted repetition: `{0,127}` makes its automaton 128
-- states deep and one match cost 7 microseconds where this form costs 0.3.
create function outbox.refuse_entry() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    remedy constant text := 'Store an id and a status, and let the consumer read the rest from its table.';
    bytes  integer;
begin
    if octet_length(new.stream) > 128 or new.stream !~ '^[A-Za-z0-9][A-Za-z0-9._:{}-]*$' then
        raise exception using errcode = 'check_violation', schema = 'outbox', table = 'entry', column = 'stream',
            message = format('outbox.entry: stream name %L is not allowed', left(new.stream, 200)),
            hint = 'Use 1 to 128 of A-Z a-z 0-9 . _ : { } - and begin with a letter or digit.';
    elsif new.stream like 'outbox:%' then
        raise exception using errcode = 'check_violation', schema = 'outbox', table = 'entry', column = 'stream',
            message = format('outbox.entry: stream name %L is reserved', new.stream),
            hint = 'Names that begin with "outbox:" are the relay''s own keys in Redis; choose another.';
    end if;
    bytes := octet_length(new.payload::text);
    if bytes > 65536 then
        raise exception using errcode = 'check_violation', schema = 'outbox', table = 'entry', column = 'payload',
            message = format('outbox.entry: payload has %s bytes as text, at most 65536 are allowed', bytes),
            hint = remedy;
    end if;
    bytes := octet_length(new.headers::text);
    if bytes > 8192 then
        raise exception using errcode = 'check_violation', schema = 'outbox', table = 'entry', column = 'headers',
            message = format('outbox.entry: headers have %s bytes as text, at most 8192 are allowed', bytes),
            hint = remedy;
    end if;
    bytes := octet_length(new.key);
    if bytes > 1024 then
        raise exception using errcode = 'check_violation', schema = 'outbox', table = 'entry', column = 'key',
            message = format('outbox.entry: key has %s bytes, at most 1024 are allowed', bytes),
            hint = 'Use the identifier of the aggregate, or a hash of it.';
    end if;
    raise exception using errcode = 'check_violation', schema = 'outbox', table = 'entry', column = 'type',
        message = format('outbox.entry: type has %s bytes, at most 1024 are allowed', octet_length(new.type)),
        hint = 'Use a short name such as order.paid.';
end
$$;
comment on function outbox.refuse_entry() is
    'Trigger: says which bound of outbox.entry a row breaks and what to do. Locks nothing.';

create trigger refuse_entry before insert on outbox.entry for each row
when (new.stream !~ '^[A-Za-z0-9][A-Za-z0-9._:{}-]*$'
      or octet_length(new.stream) > 128
      or new.stream like 'outbox:%'
      or octet_length(new.payload::text) > 65536
      or octet_length(new.headers::text) > 8192
      or octet_length(new.key) > 1024
      or octet_length(new.type) > 1024)
execute function outbox.refuse_entry();

-- ---------------------------------------------------------------------------------------------
-- Wake: NOTIFY only while the relay asks for it
-- ---------------------------------------------------------------------------------------------

create sequence outbox.wake_until minvalue 0 start 0 cache 1;
comment on sequence outbox.wake_until is
    'Epoch second until which the relay wants a NOTIFY for each insert. A sequence, because a table would be read as of the writer''s snapshot.';

create function outbox.wake() returns trigger
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    perform pg_notify('outbox', '');
    return null;
end
$$;
comment on function outbox.wake() is
    'Trigger: wakes the sleeping relay. NOTIFY takes a lock of the whole database through commit, so it is sent only while the relay asks.';

create trigger wake after insert on outbox.entry for each statement
when (pg_sequence_last_value('outbox.wake_until') > extract(epoch from clock_timestamp())
      and coalesce(current_setting('outbox.wake', true), '') <> 'off')
execute function outbox.wake();

-- ---------------------------------------------------------------------------------------------
-- emit: an insert as a function
-- ---------------------------------------------------------------------------------------------

create function outbox.emit(
    stream   text,
    payload  jsonb,
    key      text    default null,
    type     text    default null,
    headers  jsonb   default null,
    event_id uuid    default null,
    ordered  boolean default false
) returns uuid
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
declare
    event constant uuid := coalesce(emit.event_id, gen_random_uuid());
begin
    if emit.ordered then
        -- Taken before the id is drawn and kept until the transaction has ended and is visible, so
        -- the order of ids of this key is the order of commits.
        perform pg_advisory_xact_lock(
            hashtextextended(coalesce(emit.key, ''), hashtextextended(emit.stream, 0)));
    end if;
    insert into outbox.entry (event_id, stream, key, type, payload, headers)
    values (event, emit.stream, emit.key, emit.type, emit.payload, emit.headers);
    return event;
end
$$;
comment on function outbox.emit(text, jsonb, text, text, jsonb, uuid, boolean) is
    'Inserts one outbox entry and returns its event_id. ordered => true takes an advisory lock on (stream, key) until the transaction ends; otherwise it locks nothing.';

-- ---------------------------------------------------------------------------------------------
-- Streams and the log
-- ---------------------------------------------------------------------------------------------

create table outbox.stream (
    name       text        primary key,
    created_at timestamptz not null default clock_timestamp(),
    head_ms    bigint      not null default 0,
    head_n     bigint      not null default 0,
    floor_ms   bigint      not null default 0,
    floor_n    bigint      not null default 0,
    state      text        not null default 'active'
               check (state in ('active', 'rebuilding', 'full', 'paused', 'halted')),
    reason     text
);
comment on table outbox.stream is 'Streams that have had an entry sealed. Changed only when the state of a stream changes.';
comment on column outbox.stream.floor_n is
    'Number up to which every consumer group has acknowledged: what a lost stream need not get back.';
comment on column outbox.stream.head_n is
    'Number up to which the stream is settled without the log: entries found in Redis whose rows Postgres lost.';

create table outbox.seal (
    seal      bigint      not null,
    token     bigint      not null,
    base      pg_snapshot not null,
    target    pg_snapshot,
    through   bigint,
    high      bigint      not null,
    sealed_at timestamptz not null default clock_timestamp(),
    primary key (seal)
) partition by range (seal);
comment on table outbox.seal is 'One row per transaction that sealed batches: how far the relay has found rows.';
comment on column outbox.seal.base is 'Every row that this snapshot shows is sealed.';
comment on column outbox.seal.target is
    'The snapshot being worked through: of the rows it shows and base does not, those with id <= through are sealed. Null when there is none.';
comment on column outbox.seal.high is 'Where the search by id begins; a hint that makes it fast, never what makes it right.';

create table outbox.batch (
    seal          bigint      not null,
    stream        text        not null,
    first_n       bigint      not null,
    last_n        bigint      not null,
    ms            bigint      not null,
    first_id      bigint      not null,
    last_id       bigint      not null,
    ids           bigint[]    not null,
    dispatched_at timestamptz,
    primary key (stream, last_n, seal)
) partition by range (seal);
create index batch_ids on outbox.batch using gist (int8range(first_id, last_id, '[]'));
alter table outbox.batch alter column ids set storage external;
comment on table outbox.batch is
    'The log: one sealed run of one stream. Entry ids[i] has number first_n + i - 1 and the stream entry ID ms-number.';
comment on column outbox.batch.dispatched_at is
    'When the batch was known to be in Redis; taken back when Redis lost it. A cache of what Redis has, never a licence to delete.';

create table outbox.phantom (
    stream   text        not null,
    entry_id text        not null,
    event_id text,
    fields   jsonb       not null,
    found_at timestamptz not null default clock_timestamp(),
    primary key (stream, entry_id)
);
comment on table outbox.phantom is
    'Stream entries whose rows Postgres no longer has: its history was lost after the entry had been appended.';

create table outbox.scrub (
    only_row boolean primary key default true check (only_row),
    proved   bigint  not null default 0
);
comment on table outbox.scrub is
    'Every row with id <= proved has been compared with the log; the background scrub goes on from here. One row.';
insert into outbox.scrub default values;

-- ---------------------------------------------------------------------------------------------
-- Lease: who may seal
-- ---------------------------------------------------------------------------------------------

create table outbox.lease (
    token    bigint      primary key,
    holder   text        not null,
    taken_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz
);
create unique index lease_current on outbox.lease ((true)) where ended_at is null;
comment on table outbox.lease is
    'Who may seal: the one row without ended_at. Each seal locks that row and names its token, so a relay that was replaced cannot seal.';
insert into outbox.lease (token, holder) values (0, '');

create sequence outbox.lease_until minvalue 0 start 0 cache 1;
comment on sequence outbox.lease_until is
    'Epoch millisecond at which the current lease ends unless renewed. A sequence, so that heartbeats leave no dead rows behind.';

-- ---------------------------------------------------------------------------------------------
-- Leaves: partitions made ahead of need
-- ---------------------------------------------------------------------------------------------

create table outbox.leaf (
    tree  text   not null check (tree in ('entry', 'seal', 'batch')),
    lower bigint not null,
    upper bigint not null,
    name  text   not null unique,
    primary key (tree, lower),
    check (lower < upper)
);
comment on table outbox.leaf is 'Partitions of entry, seal and batch: name holds lower <= id (or seal) < upper.';

create table outbox.entry_net partition of outbox.entry default;
create table outbox.seal_net partition of outbox.seal default;
create table outbox.batch_net partition of outbox.batch default;
comment on table outbox.entry_net is 'Takes rows for which no leaf was attached in time, so that an insert never fails. Should be empty.';
comment on table outbox.seal_net is 'Takes rows for which no leaf was attached in time. Should be empty.';
comment on table outbox.batch_net is 'Takes rows for which no leaf was attached in time. Should be empty.';

create function outbox.attach_leaves(size bigint default 10000000, ahead integer default 2)
returns integer
    language plpgsql security definer set search_path = pg_catalog, pg_temp
    set lock_timeout = '200ms'
as $$
declare
    root     text;
    used     bigint;
    edge     bigint;
    leaf     text;
    attached integer := 0;
begin
    if size < 1 or ahead < 1 then
        raise exception 'outbox.attach_leaves: size and ahead must be at least 1';
    end if;
    lock table outbox.leaf in share row exclusive mode;
    foreach root in array array['entry', 'seal', 'batch'] loop
        used := case root
            when 'entry' then coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0)
            else coalesce((select max(seal) from outbox.seal), 0)
        end;
        edge := coalesce((select max(upper) from outbox.leaf l where l.tree = root), 0);
        if edge between 1 and used then
            -- Numbers have outrun the leaves, and a leaf cannot take a number that is in the net: the
            -- net keeps what has been drawn, and what will be while we wait for its lock.
            edge := used + 1 + size / 100;
        end if;
        while edge <= used + size * (ahead - 1) loop
            leaf := format('%s_%s', root, edge);
            execute format('create table outbox.%I (like outbox.%I including defaults including storage)', leaf, root);
            if root = 'batch' then
                -- Marking a batch rewrites its row: keep the row short, its ids outside of it, and
                -- room on the page, so that the new version needs no new index entry.
                execute format('alter table outbox.%I set (fillfactor = 80, toast_tuple_target = 256)', leaf);
            end if;
            -- ATTACH waits for nobody who writes to other leaves; CREATE ... PARTITION OF would.
            execute format('alter table outbox.%I attach partition outbox.%I for values from (%L) to (%L)',
                           root, leaf, edge, edge + size);
            insert into outbox.leaf (tree, lower, upper, name) values (root, edge, edge + size, leaf);
            edge := edge + size;
            attached := attached + 1;
        end loop;
    end loop;
    return attached;
end
$$;
comment on function outbox.attach_leaves(bigint, integer) is
    'Makes and attaches leaves so that at least "ahead" times "size" more rows fit. Waits at most 200 ms for a lock; takes ACCESS EXCLUSIVE only on new leaves and on the nets, which nobody uses.';

-- ---------------------------------------------------------------------------------------------
-- Views for people
-- ---------------------------------------------------------------------------------------------

create view outbox.cursor as
select coalesce(s.seal, 0) as seal,
       coalesce(s.base, '1:1:'::pg_snapshot) as base,
       s.target, s.through, coalesce(s.high, 0) as high
from (select) one
left join lateral (select * from outbox.seal order by seal.seal desc limit 1) s on true;
comment on view outbox.cursor is 'How far rows have been sealed: the last row of outbox.seal, or the beginning.';

-- A function, because only a function can keep the planner from reading the whole table: it expects
-- a third of all rows behind any xid.
create function outbox.pending_entries() returns setof outbox.entry
    language sql stable set search_path = pg_catalog, pg_temp
    set enable_seqscan = off set enable_bitmapscan = off set jit = off
as $$
    with c as materialized (select * from outbox.cursor),
    found as (
        select e.* from c cross join lateral (
            select * from outbox.entry e where e.xid >= pg_snapshot_xmax(c.base) offset 0
        ) e
        union all
        select e.* from c cross join lateral pg_snapshot_xip(c.base) as old (xid) cross join lateral (
            select * from outbox.entry e where e.xid = old.xid offset 0
        ) e
    )
    select f.* from found f, c
    where pg_visible_in_snapshot(f.xid, pg_current_snapshot())
      and (c.target is null or f.id > c.through or not pg_visible_in_snapshot(f.xid, c.target))
$$;
comment on function outbox.pending_entries() is 'The rows of the view outbox.pending. Locks nothing.';

create view outbox.pending as select * from outbox.pending_entries();
comment on view outbox.pending is 'Committed rows that are not sealed yet. Its cost grows with their number, not with rows kept.';

create view outbox.entry_status as
select e.id, e.event_id, e.stream, e.key, e.type, e.created_at, b.n,
       b.ms || '-' || b.n as entry_id,
       case when b.n is null then 'pending' when b.dispatched_at is null then 'sealed' else 'dispatched' end as state,
       b.dispatched_at
from outbox.entry e
left join lateral (
    select batch.ms, batch.dispatched_at, batch.first_n + array_position(batch.ids, e.id) - 1 as n
    from outbox.batch
    where int8range(batch.first_id, batch.last_id, '[]') @> e.id
      and batch.stream = e.stream and e.id = any (batch.ids)
    limit 1
) b on true;
comment on view outbox.entry_status is 'Each entry with its number and ID in its stream: pending, sealed or dispatched. Ask by id.';

create view outbox.stream_status as
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
       coalesce(s.state, 'active') as state,
       s.reason
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
comment on view outbox.stream_status is
    'Each stream: numbers sealed and dispatched, what waits, since when, and its state. Its cost grows with streams and backlog, not with rows kept.';

-- ---------------------------------------------------------------------------------------------
-- Rights
-- ---------------------------------------------------------------------------------------------

revoke all on all functions in schema outbox from public;

create function outbox.grant_application(role regrole) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('grant usage on schema outbox to %s', role);
    execute format('grant insert (event_id, stream, key, type, payload, headers), select (id, event_id) '
                   'on outbox.entry to %s', role);
    execute format('grant select on sequence outbox.wake_until to %s', role);
    execute format('grant execute on function outbox.emit(text, jsonb, text, text, jsonb, uuid, boolean) to %s', role);
end
$$;
comment on function outbox.grant_application(regrole) is
    'Lets a role insert entries and read back id and event_id, and nothing else.';
revoke all on function outbox.grant_application(regrole) from public;

create function outbox.grant_relay(role regrole) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('grant usage on schema outbox to %s', role);
    execute format('grant select on all tables in schema outbox to %s', role);
    execute format('grant insert on outbox.seal, outbox.batch, outbox.stream, outbox.phantom, outbox.lease to %s', role);
    execute format('grant update (dispatched_at) on outbox.batch to %s', role);
    execute format('grant update (head_ms, head_n, floor_ms, floor_n, state, reason) on outbox.stream to %s', role);
    execute format('grant update (ended_at) on outbox.lease to %s', role);
    execute format('grant update (proved) on outbox.scrub to %s', role);
    execute format('grant select, update on sequence outbox.wake_until, outbox.lease_until to %s', role);
    execute format('grant select on sequence outbox.entry_id_seq to %s', role);
    execute format('grant execute on function outbox.attach_leaves(bigint, integer), outbox.pending_entries() to %s', role);
end
$$;
comment on function outbox.grant_relay(regrole) is
    'Lets a role run the relay: read all of the schema, write the log, hold the lease. It owns nothing and deletes nothing.';
revoke all on function outbox.grant_relay(regrole) from public;
