-- Workers: what a consumer group has done with events, and what it gave up.
--
-- Run by:  `outbox-relay migrate`, in one transaction, under an advisory lock.
-- Locks:   nothing that exists but for an instant; every table here is new, so writers do not wait.
-- Form:    a note that an event is done commits with what was done about it. Notes are of one table with one
--          primary key, which is what makes them true, so they are deleted by rows and not by leaves; the index by
--          time makes that cheap, and is only ever written at its end.

create table outbox.done (
    consumer_group text        not null check (consumer_group <> ''),
    event_id       uuid        not null,
    done_at        timestamptz not null default clock_timestamp(),
    primary key (consumer_group, event_id)
);
create index done_done_at on outbox.done (consumer_group, done_at);
comment on table outbox.done is
    'Events that a consumer group has done. A worker inserts here first, with "on conflict do nothing", in the transaction of its effect: no row inserted means that it was done before.';
comment on column outbox.done.consumer_group is 'Name of the consumer group in Redis.';
comment on column outbox.done.event_id is 'The event: column event_id of outbox.entry, field id in Redis.';
comment on column outbox.done.done_at is 'When.';
comment on index outbox.done_pkey is 'What makes a second worker with the same event wait for the first, and then skip it.';
comment on index outbox.done_done_at is 'Of each group the oldest first, for the purge.';

create table outbox.dead_letter (
    consumer_group text        not null check (consumer_group <> ''),
    event_id       uuid        not null,
    stream         text        not null,
    entry_id       text        not null,
    key            text,
    type           text,
    payload        jsonb       not null,
    headers        jsonb,
    created_at     timestamptz not null,
    deliveries     bigint      not null,
    error          text        not null,
    died_at        timestamptz not null default clock_timestamp(),
    retry_at       timestamptz,
    primary key (consumer_group, event_id)
);
comment on table outbox.dead_letter is
    'Events that a consumer group has given up after its limit of attempts. Nothing but outbox-relay dead takes them away.';
comment on column outbox.dead_letter.consumer_group is 'Name of the consumer group in Redis.';
comment on column outbox.dead_letter.event_id is 'The event: column event_id of outbox.entry.';
comment on column outbox.dead_letter.stream is 'The stream that it came by.';
comment on column outbox.dead_letter.entry_id is 'Its ID there.';
comment on column outbox.dead_letter.key is 'Its key.';
comment on column outbox.dead_letter.type is 'Its type.';
comment on column outbox.dead_letter.payload is 'Its payload.';
comment on column outbox.dead_letter.headers is 'Its headers.';
comment on column outbox.dead_letter.created_at is 'When it was written.';
comment on column outbox.dead_letter.deliveries is 'How often it was given to a worker.';
comment on column outbox.dead_letter.error is 'Why the last attempt failed.';
comment on column outbox.dead_letter.died_at is 'When it was given up, the last time.';
comment on column outbox.dead_letter.retry_at is
    'When somebody asked for one more attempt, which a worker has not begun yet; null if nobody has.';
comment on index outbox.dead_letter_pkey is 'By group and event.';

create index dead_letter_retry_at on outbox.dead_letter (consumer_group, stream, retry_at) where retry_at is not null;
comment on index outbox.dead_letter_retry_at is 'What workers look for: those to be tried again.';

create function outbox.retry_dead_letter(consumer_group text, event_id uuid) returns boolean
    language sql security definer set search_path = pg_catalog, pg_temp
as $$
    with asked as (
        update outbox.dead_letter d set retry_at = clock_timestamp()
        where d.consumer_group = $1 and d.event_id = $2
        returning d.event_id)
    select exists (select from asked)
$$;
comment on function outbox.retry_dead_letter(text, uuid) is
    'Asks for one more attempt with an event that the group has given up; false if it has not. Locks its row.';

create function outbox.discard_dead_letter(consumer_group text, event_id uuid) returns boolean
    language sql security definer set search_path = pg_catalog, pg_temp
as $$
    with gone as (
        delete from outbox.dead_letter d where d.consumer_group = $1 and d.event_id = $2 returning d.event_id)
    select exists (select from gone)
$$;
comment on function outbox.discard_dead_letter(text, uuid) is
    'Forgets an event that the group has given up, for good; false if it has not. Locks its row.';

-- An event that was done before the first entry that its group still needs was written is acknowledged: it is not
-- given again, whatever Redis loses. Of a group that no checkpoint knows, its age alone decides.
create function outbox.purge_done(retention interval, most integer default 10000) returns bigint
    language plpgsql security definer set search_path = pg_catalog, pg_temp
as $$
declare
    before constant timestamptz := clock_timestamp() - retention;
    worker text;
    needed timestamptz;
    rows   bigint;
    purged bigint := 0;
begin
    select min(d.consumer_group) into worker from outbox.done d;
    while worker is not null loop
        select to_timestamp(min(b.ms) / 1000.0) into needed
        from outbox.floor f
        cross join lateral jsonb_to_recordset(f.groups) as g (name text, floor bigint)
        cross join lateral (
            select b.ms from outbox.batch b
            where b.stream = f.stream and b.last_n > g.floor order by b.last_n limit 1
        ) b
        where g.name = worker;
        with old as materialized (
            select d.event_id from outbox.done d
            where d.consumer_group = worker and d.done_at < least(before, needed)
            order by d.done_at limit most)
        delete from outbox.done d using old where d.consumer_group = worker and d.event_id = old.event_id;
        get diagnostics rows = row_count;
        purged := purged + rows;
        select min(d.consumer_group) into worker from outbox.done d where d.consumer_group > worker;
    end loop;
    return purged;
end
$$;
comment on function outbox.purge_done(interval, integer) is
    'Deletes notes of outbox.done that are older than "retention", of events that cannot be given to their group again; of each group at most "most". Locks those rows.';

revoke all on function outbox.retry_dead_letter(text, uuid), outbox.discard_dead_letter(text, uuid),
    outbox.purge_done(interval, integer) from public;

-- ---------------------------------------------------------------------------------------------
-- Rights
-- ---------------------------------------------------------------------------------------------

create function outbox.grant_worker(role regrole) returns void
    language plpgsql set search_path = pg_catalog, pg_temp
as $$
begin
    execute format('grant usage on schema outbox to %s', role);
    execute format('grant select, insert (consumer_group, event_id) on outbox.done to %s', role);
    execute format('grant select, insert, update, delete on outbox.dead_letter to %s', role);
    execute format('grant execute on function outbox.retry_dead_letter(text, uuid), '
                   'outbox.discard_dead_letter(text, uuid) to %s', role);
end
$$;
comment on function outbox.grant_worker(regrole) is
    'Lets a role note what its workers have done and what they gave up, and nothing else. Locks nothing.';
revoke all on function outbox.grant_worker(regrole) from public;

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
                   'outbox.open_ends(jsonb, timestamptz), outbox.open_partitions(), '
                   'outbox.retry_dead_letter(text, uuid), outbox.discard_dead_letter(text, uuid), '
                   'outbox.purge_done(interval, integer) to %s', role);
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
