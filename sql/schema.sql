-- The schema `outbox` as pg_dump 15 writes it down after `outbox-relay migrate`, for review.
-- Generated; do not edit. Anew with: UPDATE_GOLDEN=1 cargo test --test it golden
--
-- PostgreSQL database dump
--

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: outbox; Type: SCHEMA; Schema: -; Owner: -
--

CREATE SCHEMA outbox;

--
-- Name: SCHEMA outbox; Type: COMMENT; Schema: -; Owner: -
--

COMMENT ON SCHEMA outbox IS 'Transactional outbox: applications insert into outbox.entry, outbox-relay carries each committed row into a Redis stream.';

--
-- Name: adopt(); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.adopt(OUT sealed bigint, OUT restamped bigint) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

--
-- Name: FUNCTION adopt(OUT sealed bigint, OUT restamped bigint); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.adopt(OUT sealed bigint, OUT restamped bigint) IS 'Consents to this cluster after a restore, copy or upgrade: seals all rows that the log does not have and begins the search anew. Locks outbox.entry against writers until it commits. Returns how many rows it sealed, and how many carried transaction ids of another cluster.';

--
-- Name: attach_leaves(bigint, integer); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.attach_leaves(size bigint DEFAULT 10000000, ahead integer DEFAULT 2) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '200ms'
    AS $$
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

--
-- Name: FUNCTION attach_leaves(size bigint, ahead integer); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.attach_leaves(size bigint, ahead integer) IS 'Makes and attaches leaves so that at least "ahead" times "size" more rows fit. Waits at most 200 ms for a lock; takes ACCESS EXCLUSIVE only on new leaves and on the nets, which nobody uses.';

SET default_tablespace = '';

--
-- Name: batch; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.batch (
    seal bigint NOT NULL,
    stream text NOT NULL,
    first_n bigint NOT NULL,
    last_n bigint NOT NULL,
    ms bigint NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    ids bigint[] NOT NULL,
    dispatched_at timestamp with time zone
)
PARTITION BY RANGE (seal);
ALTER TABLE ONLY outbox.batch ALTER COLUMN ids SET STORAGE EXTERNAL;

--
-- Name: TABLE batch; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.batch IS 'The log: one sealed run of one stream. Entry ids[i] has number first_n + i - 1 and the stream entry ID ms-number.';

--
-- Name: COLUMN batch.seal; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.batch.seal IS 'The transaction that sealed it.';

--
-- Name: COLUMN batch.stream; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.batch.stream IS 'The stream.';

--
-- Name: COLUMN batch.first_n; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.batch.first_n IS 'Number of its first entry in the stream.';

--
-- Name: COLUMN batch.last_n; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.batch.last_n IS 'Number of its last entry in the stream.';

--
-- Name: COLUMN batch.ms; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.batch.ms IS 'Milliseconds of all its positions, by the clock of Postgres, never decreasing within a stream.';

--
-- Name: COLUMN batch.first_id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.batch.first_id IS 'The lowest id of its rows.';

--
-- Name: COLUMN batch.last_id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.batch.last_id IS 'The highest id of its rows.';

--
-- Name: COLUMN batch.ids; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.batch.ids IS 'Ids of its rows in outbox.entry, in order.';

--
-- Name: COLUMN batch.dispatched_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.batch.dispatched_at IS 'When the batch was known to be in Redis; taken back when Redis lost it. A cache of what Redis has, never a licence to delete.';

--
-- Name: batches_over(bigint, bigint); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.batches_over(lowest bigint, highest bigint) RETURNS SETOF outbox.batch
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT b.seal,
     b.stream,
     b.first_n,
     b.last_n,
     b.ms,
     b.first_id,
     b.last_id,
     b.ids,
     b.dispatched_at
    FROM outbox.batch b
   WHERE (((b.last_id - b.first_id) < 10000) AND (b.first_id > (batches_over.lowest - 10000)) AND (b.first_id <= batches_over.highest) AND (b.last_id >= batches_over.lowest))
 UNION ALL
  SELECT b.seal,
     b.stream,
     b.first_n,
     b.last_n,
     b.ms,
     b.first_id,
     b.last_id,
     b.ids,
     b.dispatched_at
    FROM outbox.batch b
   WHERE (((b.last_id - b.first_id) >= 10000) AND (int8range(b.first_id, b.last_id, '[]'::text) && int8range(batches_over.lowest, batches_over.highest, '[]'::text)));
END;

--
-- Name: FUNCTION batches_over(lowest bigint, highest bigint); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.batches_over(lowest bigint, highest bigint) IS 'Batches whose range of ids overlaps this one, both ends included. Locks nothing.';

--
-- Name: crc16(bytea); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.crc16(bytes bytea) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

--
-- Name: FUNCTION crc16(bytes bytea); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.crc16(bytes bytea) IS 'CRC-16/XMODEM, the hash of Redis Cluster. For single keys: a row takes microseconds a byte. Locks nothing.';

--
-- Name: discard_dead_letter(text, uuid); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.discard_dead_letter(consumer_group text, event_id uuid) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    with gone as (
        delete from outbox.dead_letter d where d.consumer_group = $1 and d.event_id = $2 returning d.event_id)
    select exists (select from gone)
$_$;

--
-- Name: FUNCTION discard_dead_letter(consumer_group text, event_id uuid); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.discard_dead_letter(consumer_group text, event_id uuid) IS 'Forgets an event that the group has given up, for good; false if it has not. Locks its row.';

--
-- Name: drop_leaves(); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.drop_leaves() RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
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

--
-- Name: FUNCTION drop_leaves(); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.drop_leaves() IS 'Drops one empty leaf that numbers have left behind. Locks its table (ACCESS EXCLUSIVE, waited for at most 50 ms), behind which writers wait, so it is called seldom.';

--
-- Name: emit(text, jsonb, text, text, jsonb, uuid, boolean); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.emit(stream text, payload jsonb, key text DEFAULT NULL::text, type text DEFAULT NULL::text, headers jsonb DEFAULT NULL::jsonb, event_id uuid DEFAULT NULL::uuid, ordered boolean DEFAULT false) RETURNS uuid
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

--
-- Name: FUNCTION emit(stream text, payload jsonb, key text, type text, headers jsonb, event_id uuid, ordered boolean); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.emit(stream text, payload jsonb, key text, type text, headers jsonb, event_id uuid, ordered boolean) IS 'Inserts one outbox entry and returns its event_id. ordered => true takes an advisory lock on (stream, key) until the transaction ends; otherwise it locks nothing.';

--
-- Name: empty_nets(); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.empty_nets() RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '200ms'
    AS $_$
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
$_$;

--
-- Name: FUNCTION empty_nets(); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.empty_nets() IS 'Moves rows out of the nets into leaves of their own, those of outbox.entry once ids have passed the net (see outbox.leap); returns how many. Locks a net (ACCESS EXCLUSIVE, waited for at most 200 ms) while it moves: whoever writes to other leaves does not wait.';

--
-- Name: grant_application(regrole); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.grant_application(role regrole) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    execute format('grant usage on schema outbox to %s', role);
    execute format('grant insert (event_id, stream, key, type, payload, headers), select (id, event_id) '
                   'on outbox.entry to %s', role);
    execute format('grant select on sequence outbox.wake_until to %s', role);
    execute format('grant execute on function outbox.emit(text, jsonb, text, text, jsonb, uuid, boolean) to %s', role);
end
$$;

--
-- Name: FUNCTION grant_application(role regrole); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.grant_application(role regrole) IS 'Lets a role insert entries and read back id and event_id, and nothing else. Locks nothing that is in use.';

--
-- Name: grant_relay(regrole); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.grant_relay(role regrole) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

--
-- Name: FUNCTION grant_relay(role regrole); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.grant_relay(role regrole) IS 'Lets a role run the relay: read all of the schema, write the log, hold the lease. It owns nothing and deletes nothing. Locks nothing that is in use.';

--
-- Name: grant_worker(regrole); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.grant_worker(role regrole) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    execute format('grant usage on schema outbox to %s', role);
    execute format('grant select, insert (consumer_group, event_id) on outbox.done to %s', role);
    execute format('grant select, insert, update, delete on outbox.dead_letter to %s', role);
    execute format('grant execute on function outbox.retry_dead_letter(text, uuid), '
                   'outbox.discard_dead_letter(text, uuid) to %s', role);
end
$$;

--
-- Name: FUNCTION grant_worker(role regrole); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.grant_worker(role regrole) IS 'Lets a role note what its workers have done and what they gave up, and nothing else. Locks nothing.';

--
-- Name: leap(interval); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.leap(age interval, OUT id bigint, OUT seal bigint) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET enable_seqscan TO 'off'
    AS $$
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

--
-- Name: FUNCTION leap(age interval, OUT id bigint, OUT seal bigint); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.leap(age interval, OUT id bigint, OUT seal bigint) IS 'If the leaf of outbox.entry in use has a row older than "age", or ids have come to the net, lets the next id be the first of the next leaf, and returns it; and returns the number from which seals should go on for the same reason. Locks the sequence (SHARE ROW EXCLUSIVE, waited for at most 50 ms) against writers that draw an id.';

--
-- Name: needs(text[], bigint[]); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.needs(streams text[], ns bigint[]) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select exists (
        select from unnest(streams, ns) as u (stream, n)
        left join outbox.floor f on f.stream = u.stream
        where coalesce(f.n, 0) < u.n)
$$;

--
-- Name: FUNCTION needs(streams text[], ns bigint[]); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.needs(streams text[], ns bigint[]) IS 'Whether one of these streams has its floor below the number beside it. Locks nothing.';

--
-- Name: open_ends(jsonb, timestamp with time zone); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.open_ends(closed jsonb, changed_at timestamp with time zone, OUT stream text, OUT n bigint) RETURNS SETOF record
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select c.key, c.value::bigint
    from jsonb_each_text(closed) c
    join outbox.floor f on f.stream = c.key
    where f.n < c.value::bigint or f.groups = '[]' or f.taken_at is null or f.taken_at < changed_at
$$;

--
-- Name: FUNCTION open_ends(closed jsonb, changed_at timestamp with time zone, OUT stream text, OUT n bigint); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.open_ends(closed jsonb, changed_at timestamp with time zone, OUT stream text, OUT n bigint) IS 'Of streams with a number each, those where a consumer group has not acknowledged up to it, where there is none, or where nobody has looked since. Locks nothing.';

--
-- Name: open_partitions(); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.open_partitions() RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

--
-- Name: FUNCTION open_partitions(); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.open_partitions() IS 'Lets new partitions flow once every consumer group has acknowledged what came before them, and stores those groups for them. Returns the streams, as rows name them. Locks their rows in outbox.partitioning.';

--
-- Name: partition_names(text, integer); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.partition_names(stream text, partitions integer) RETURNS SETOF text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    BEGIN ATOMIC
 SELECT partition_names.stream AS stream
   WHERE (partition_names.partitions = 1)
 UNION ALL
  SELECT format('%s:{%s}'::text, partition_names.stream, n.n) AS format
    FROM generate_series(0, (partition_names.partitions - 1)) n(n)
   WHERE (partition_names.partitions > 1);
END;

--
-- Name: FUNCTION partition_names(stream text, partitions integer); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.partition_names(stream text, partitions integer) IS 'Names of the Redis streams of a stream with so many partitions. Locks nothing.';

--
-- Name: partition_of(text, text, bigint); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.partition_of(stream text, key text, id bigint DEFAULT 0) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select case when coalesce(p.partitions, 1) = 1 then partition_of.stream
                else format('%s:{%s}', partition_of.stream,
                            case when partition_of.key is null then partition_of.id % p.partitions
                                 else outbox.crc16(convert_to(partition_of.key, 'UTF8')) % p.partitions end) end
    from (select) one left join outbox.partitioning p on p.stream = partition_of.stream
$$;

--
-- Name: FUNCTION partition_of(stream text, key text, id bigint); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.partition_of(stream text, key text, id bigint) IS 'Name of the Redis stream that a row with this key goes to, as partitions are now; a row without a key goes by its id. Locks nothing.';

--
-- Name: entry; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.entry (
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    id bigint NOT NULL,
    event_id uuid DEFAULT gen_random_uuid() NOT NULL,
    stream text NOT NULL,
    key text,
    type text,
    payload jsonb NOT NULL,
    headers jsonb,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
)
PARTITION BY RANGE (id);

--
-- Name: TABLE entry; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.entry IS 'One row becomes one entry of the Redis stream named by "stream". Insert only; partitioned by id into leaves made ahead of need.';

--
-- Name: COLUMN entry.xid; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.entry.xid IS 'Transaction that wrote the row; the relay finds new rows by comparing it with its last snapshot.';

--
-- Name: COLUMN entry.id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.entry.id IS 'Order of rows within what becomes visible at once. Filled in by the database.';

--
-- Name: COLUMN entry.event_id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.entry.event_id IS 'Identity of the event, field "id" of the stream entry.';

--
-- Name: COLUMN entry.stream; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.entry.stream IS 'Redis stream (the relay''s prefix comes before it): 1 to 128 of A-Z a-z 0-9 . _ : { } -, the first a letter or digit, not beginning with "outbox:".';

--
-- Name: COLUMN entry.key; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.entry.key IS 'What the event is about, for order per key; at most 1,024 bytes.';

--
-- Name: COLUMN entry.type; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.entry.type IS 'Kind of event; at most 1,024 bytes.';

--
-- Name: COLUMN entry.payload; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.entry.payload IS 'JSON, at most 65,536 bytes as text: an id and a status, not a document.';

--
-- Name: COLUMN entry.headers; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.entry.headers IS 'JSON, at most 8,192 bytes as text.';

--
-- Name: COLUMN entry.created_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.entry.created_at IS 'When the row was inserted, by the clock of the database.';

--
-- Name: pending_entries(); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.pending_entries() RETURNS SETOF outbox.entry
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

--
-- Name: FUNCTION pending_entries(); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.pending_entries() IS 'The rows of the view outbox.pending. Locks nothing.';

--
-- Name: purge_done(interval, integer); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.purge_done(retention interval, most integer DEFAULT 10000) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

--
-- Name: FUNCTION purge_done(retention interval, most integer); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.purge_done(retention interval, most integer) IS 'Deletes notes of outbox.done that are older than "retention", of events that cannot be given to their group again; of each group at most "most". Locks those rows.';

--
-- Name: purge_entries(interval); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.purge_entries(retention interval, OUT leaves integer, OUT entries bigint) RETURNS record
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET enable_seqscan TO 'off'
    AS $_$
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
            select from outbox.batches_over(last, last) b
            join outbox.floor f on f.stream = b.stream and f.n >= b.last_n
            where b.dispatched_at is not null
              and not exists (select from outbox.seal s where s.seal = b.seal and s.sealed_at >= before));
        select max(o.seal) as seal, array_agg(o.stream) as streams, array_agg(o.n) as ns,
               bool_and(o.dispatched) as dispatched, sum(o.entries) as entries
        into seen
        from (select b.stream, max(b.seal) as seal, max(b.last_n) as n,
                     sum(case when b.first_id >= leaf.lower and b.last_id <= last then b.last_n - b.first_n + 1
                              else (select count(*) from unnest(b.ids) i (id) where i.id between leaf.lower and last)
                         end) as entries,
                     bool_and(b.dispatched_at is not null) as dispatched
              from outbox.batches_over(leaf.lower, last) b
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
                select from outbox.batches_over(leaf.lower, leaf.upper - 1) b where b.seal > seen.seal
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
$_$;

--
-- Name: FUNCTION purge_entries(retention interval, OUT leaves integer, OUT entries bigint); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.purge_entries(retention interval, OUT leaves integer, OUT entries bigint) IS 'Empties a leaf of outbox.entry all of whose rows are older than "retention", in Redis, and acknowledged by every consumer group. Locks such a leaf (ACCESS EXCLUSIVE, waited for at most 50 ms, held for a few milliseconds).';

--
-- Name: purge_log(interval); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.purge_log(retention interval, OUT leaves integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    SET enable_seqscan TO 'off'
    AS $$
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

--
-- Name: FUNCTION purge_log(retention interval, OUT leaves integer); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.purge_log(retention interval, OUT leaves integer) IS 'Empties a leaf of outbox.batch or outbox.seal whose rows of outbox.entry are purged, and writes into outbox.stream how far each stream had got. Locks such a leaf (ACCESS EXCLUSIVE, waited for at most 50 ms).';

--
-- Name: refuse_entry(); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.refuse_entry() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;

--
-- Name: FUNCTION refuse_entry(); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.refuse_entry() IS 'Trigger: says which bound of outbox.entry a row breaks and what to do. Locks nothing.';

--
-- Name: retry_dead_letter(text, uuid); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.retry_dead_letter(consumer_group text, event_id uuid) RETURNS boolean
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
    with asked as (
        update outbox.dead_letter d set retry_at = clock_timestamp()
        where d.consumer_group = $1 and d.event_id = $2
        returning d.event_id)
    select exists (select from asked)
$_$;

--
-- Name: FUNCTION retry_dead_letter(consumer_group text, event_id uuid); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.retry_dead_letter(consumer_group text, event_id uuid) IS 'Asks for one more attempt with an event that the group has given up; false if it has not. Locks its row.';

--
-- Name: rotate_checkpoints(bigint); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.rotate_checkpoints(bytes bigint DEFAULT 16777216) RETURNS smallint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '100ms'
    AS $$
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

--
-- Name: FUNCTION rotate_checkpoints(bytes bigint); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.rotate_checkpoints(bytes bigint) IS 'Returns the half of outbox.checkpoint to write to; if it has grown beyond "bytes", copies the latest rows to the other one and truncates it. Locks that half (ACCESS EXCLUSIVE, waited for at most 100 ms), which only the relay and readers of status use.';

--
-- Name: set_partitions(text, integer); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.set_partitions(stream text, partitions integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
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
$_$;

--
-- Name: FUNCTION set_partitions(stream text, partitions integer); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.set_partitions(stream text, partitions integer) IS 'Asks for the rows of a stream to go to so many Redis streams, orders:{0}, orders:{1} and so on, by the hash of their key. The relay makes the change within seconds; entries of new partitions wait until every consumer group has acknowledged all that came before. Locks the row of the stream in outbox.partitioning.';

--
-- Name: wake(); Type: FUNCTION; Schema: outbox; Owner: -
--

CREATE FUNCTION outbox.wake() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform pg_notify('outbox', '');
    return null;
end
$$;

--
-- Name: FUNCTION wake(); Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON FUNCTION outbox.wake() IS 'Trigger: wakes the sleeping relay. NOTIFY takes a lock of the whole database through commit, so it is sent only while the relay asks.';

SET default_table_access_method = heap;

--
-- Name: batch_0; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.batch_0 (
    seal bigint NOT NULL,
    stream text NOT NULL,
    first_n bigint NOT NULL,
    last_n bigint NOT NULL,
    ms bigint NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    ids bigint[] NOT NULL,
    dispatched_at timestamp with time zone
)
WITH (fillfactor='80', toast_tuple_target='256');
ALTER TABLE ONLY outbox.batch_0 ALTER COLUMN ids SET STORAGE EXTERNAL;

--
-- Name: batch_10000000; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.batch_10000000 (
    seal bigint NOT NULL,
    stream text NOT NULL,
    first_n bigint NOT NULL,
    last_n bigint NOT NULL,
    ms bigint NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    ids bigint[] NOT NULL,
    dispatched_at timestamp with time zone
)
WITH (fillfactor='80', toast_tuple_target='256');
ALTER TABLE ONLY outbox.batch_10000000 ALTER COLUMN ids SET STORAGE EXTERNAL;

--
-- Name: batch_net; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.batch_net (
    seal bigint NOT NULL,
    stream text NOT NULL,
    first_n bigint NOT NULL,
    last_n bigint NOT NULL,
    ms bigint NOT NULL,
    first_id bigint NOT NULL,
    last_id bigint NOT NULL,
    ids bigint[] NOT NULL,
    dispatched_at timestamp with time zone
);
ALTER TABLE ONLY outbox.batch_net ALTER COLUMN ids SET STORAGE EXTERNAL;

--
-- Name: TABLE batch_net; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.batch_net IS 'Takes rows for which no leaf was attached in time. Should be empty.';

--
-- Name: checkpoint; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.checkpoint (
    half smallint NOT NULL,
    id bigint NOT NULL,
    stream text NOT NULL,
    taken_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    nonce text NOT NULL,
    count bigint NOT NULL,
    floor_ms bigint NOT NULL,
    floor_n bigint NOT NULL,
    groups jsonb NOT NULL,
    CONSTRAINT checkpoint_half_check CHECK ((half = ANY (ARRAY[0, 1])))
)
PARTITION BY LIST (half);

--
-- Name: TABLE checkpoint; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.checkpoint IS 'Consumer groups of each stream as they were in Redis; the row with the highest id per stream counts. Insert only: when one half has grown, the latest rows are copied to the other and it is truncated.';

--
-- Name: COLUMN checkpoint.half; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.checkpoint.half IS 'Which half of the table: one is written to, the other is empty.';

--
-- Name: COLUMN checkpoint.id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.checkpoint.id IS 'Order of checkpoints.';

--
-- Name: COLUMN checkpoint.stream; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.checkpoint.stream IS 'The stream.';

--
-- Name: COLUMN checkpoint.taken_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.checkpoint.taken_at IS 'When.';

--
-- Name: COLUMN checkpoint.nonce; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.checkpoint.nonce IS 'Which life of Redis: a Redis with another nonce has lost everything since.';

--
-- Name: COLUMN checkpoint.count; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.checkpoint.count IS 'How often the canary in Redis had been raised: a Redis that counts less has gone back to a time before this checkpoint.';

--
-- Name: COLUMN checkpoint.floor_ms; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.checkpoint.floor_ms IS 'Milliseconds of the position of floor_n.';

--
-- Name: COLUMN checkpoint.floor_n; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.checkpoint.floor_n IS 'Number up to which every consumer group has acknowledged, or, without groups, up to which the stream was trimmed: what a lost stream need not get back.';

--
-- Name: COLUMN checkpoint.groups; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.checkpoint.groups IS 'Each group: its name, the last entry it was given, and what it has not acknowledged.';

--
-- Name: checkpoint_0; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.checkpoint_0 (
    half smallint NOT NULL,
    id bigint NOT NULL,
    stream text NOT NULL,
    taken_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    nonce text NOT NULL,
    count bigint NOT NULL,
    floor_ms bigint NOT NULL,
    floor_n bigint NOT NULL,
    groups jsonb NOT NULL,
    CONSTRAINT checkpoint_half_check CHECK ((half = ANY (ARRAY[0, 1])))
);

--
-- Name: TABLE checkpoint_0; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.checkpoint_0 IS 'One half of outbox.checkpoint.';

--
-- Name: checkpoint_1; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.checkpoint_1 (
    half smallint NOT NULL,
    id bigint NOT NULL,
    stream text NOT NULL,
    taken_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    nonce text NOT NULL,
    count bigint NOT NULL,
    floor_ms bigint NOT NULL,
    floor_n bigint NOT NULL,
    groups jsonb NOT NULL,
    CONSTRAINT checkpoint_half_check CHECK ((half = ANY (ARRAY[0, 1])))
);

--
-- Name: TABLE checkpoint_1; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.checkpoint_1 IS 'The other half of outbox.checkpoint.';

--
-- Name: checkpoint_id_seq; Type: SEQUENCE; Schema: outbox; Owner: -
--

ALTER TABLE outbox.checkpoint ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.checkpoint_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

--
-- Name: SEQUENCE checkpoint_id_seq; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON SEQUENCE outbox.checkpoint_id_seq IS 'Numbers checkpoints.';

--
-- Name: seal; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.seal (
    seal bigint NOT NULL,
    token bigint NOT NULL,
    base pg_snapshot NOT NULL,
    target pg_snapshot,
    through bigint,
    high bigint NOT NULL,
    sealed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
)
PARTITION BY RANGE (seal);

--
-- Name: TABLE seal; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.seal IS 'One row per transaction that sealed batches: how far the relay has found rows.';

--
-- Name: COLUMN seal.seal; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.seal.seal IS 'Number of the transaction: 1, 2, 3 …';

--
-- Name: COLUMN seal.token; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.seal.token IS 'Which term of leadership sealed it.';

--
-- Name: COLUMN seal.base; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.seal.base IS 'Every row that this snapshot shows is sealed.';

--
-- Name: COLUMN seal.target; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.seal.target IS 'The snapshot being worked through: of the rows it shows and base does not, those with id <= through are sealed. Null when there is none.';

--
-- Name: COLUMN seal.through; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.seal.through IS 'See target.';

--
-- Name: COLUMN seal.high; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.seal.high IS 'Where the search by id begins; a hint that makes it fast, never what makes it right.';

--
-- Name: COLUMN seal.sealed_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.seal.sealed_at IS 'When.';

--
-- Name: cursor; Type: VIEW; Schema: outbox; Owner: -
--

CREATE VIEW outbox.cursor AS
 SELECT COALESCE(s.seal, (0)::bigint) AS seal,
    COALESCE(s.base, '1:1:'::pg_snapshot) AS base,
    s.target,
    s.through,
    COALESCE(s.high, (0)::bigint) AS high
   FROM (( SELECT) one
     LEFT JOIN LATERAL ( SELECT seal.seal,
            seal.token,
            seal.base,
            seal.target,
            seal.through,
            seal.high,
            seal.sealed_at
           FROM outbox.seal
          ORDER BY seal.seal DESC
         LIMIT 1) s ON (true));

--
-- Name: VIEW cursor; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON VIEW outbox.cursor IS 'How far rows have been sealed: the last row of outbox.seal, or the beginning.';

--
-- Name: dead_letter; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.dead_letter (
    consumer_group text NOT NULL,
    event_id uuid NOT NULL,
    stream text NOT NULL,
    entry_id text NOT NULL,
    key text,
    type text,
    payload jsonb NOT NULL,
    headers jsonb,
    created_at timestamp with time zone NOT NULL,
    deliveries bigint NOT NULL,
    error text NOT NULL,
    died_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    retry_at timestamp with time zone,
    CONSTRAINT dead_letter_consumer_group_check CHECK ((consumer_group <> ''::text))
);

--
-- Name: TABLE dead_letter; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.dead_letter IS 'Events that a consumer group has given up after its limit of attempts. Nothing but outbox-relay dead takes them away.';

--
-- Name: COLUMN dead_letter.consumer_group; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.consumer_group IS 'Name of the consumer group in Redis.';

--
-- Name: COLUMN dead_letter.event_id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.event_id IS 'The event: column event_id of outbox.entry.';

--
-- Name: COLUMN dead_letter.stream; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.stream IS 'The stream that it came by.';

--
-- Name: COLUMN dead_letter.entry_id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.entry_id IS 'Its ID there.';

--
-- Name: COLUMN dead_letter.key; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.key IS 'Its key.';

--
-- Name: COLUMN dead_letter.type; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.type IS 'Its type.';

--
-- Name: COLUMN dead_letter.payload; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.payload IS 'Its payload.';

--
-- Name: COLUMN dead_letter.headers; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.headers IS 'Its headers.';

--
-- Name: COLUMN dead_letter.created_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.created_at IS 'When it was written.';

--
-- Name: COLUMN dead_letter.deliveries; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.deliveries IS 'How often it was given to a worker.';

--
-- Name: COLUMN dead_letter.error; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.error IS 'Why the last attempt failed.';

--
-- Name: COLUMN dead_letter.died_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.died_at IS 'When it was given up, the last time.';

--
-- Name: COLUMN dead_letter.retry_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.dead_letter.retry_at IS 'When somebody asked for one more attempt, which a worker has not begun yet; null if nobody has.';

--
-- Name: done; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.done (
    consumer_group text NOT NULL,
    event_id uuid NOT NULL,
    done_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT done_consumer_group_check CHECK ((consumer_group <> ''::text))
);

--
-- Name: TABLE done; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.done IS 'Events that a consumer group has done. A worker inserts here first, with "on conflict do nothing", in the transaction of its effect: no row inserted means that it was done before.';

--
-- Name: COLUMN done.consumer_group; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.done.consumer_group IS 'Name of the consumer group in Redis.';

--
-- Name: COLUMN done.event_id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.done.event_id IS 'The event: column event_id of outbox.entry, field id in Redis.';

--
-- Name: COLUMN done.done_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.done.done_at IS 'When.';

--
-- Name: entry_0; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.entry_0 (
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    id bigint NOT NULL,
    event_id uuid DEFAULT gen_random_uuid() NOT NULL,
    stream text NOT NULL,
    key text,
    type text,
    payload jsonb NOT NULL,
    headers jsonb,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

--
-- Name: entry_10000000; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.entry_10000000 (
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    id bigint NOT NULL,
    event_id uuid DEFAULT gen_random_uuid() NOT NULL,
    stream text NOT NULL,
    key text,
    type text,
    payload jsonb NOT NULL,
    headers jsonb,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

--
-- Name: entry_id_seq; Type: SEQUENCE; Schema: outbox; Owner: -
--

ALTER TABLE outbox.entry ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME outbox.entry_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

--
-- Name: SEQUENCE entry_id_seq; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON SEQUENCE outbox.entry_id_seq IS 'Numbers the rows of outbox.entry. CACHE 1: with more, a session would keep old ids for later rows.';

--
-- Name: entry_net; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.entry_net (
    xid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    id bigint NOT NULL,
    event_id uuid DEFAULT gen_random_uuid() NOT NULL,
    stream text NOT NULL,
    key text,
    type text,
    payload jsonb NOT NULL,
    headers jsonb,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

--
-- Name: TABLE entry_net; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.entry_net IS 'Takes rows for which no leaf was attached in time, so that an insert never fails. Should be empty.';

--
-- Name: partitioning; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.partitioning (
    stream text NOT NULL,
    partitions integer DEFAULT 1 NOT NULL,
    before integer,
    closed jsonb,
    changed_at timestamp with time zone,
    wanted integer,
    CONSTRAINT partitioning_partitions_check CHECK (((partitions >= 1) AND (partitions <= 256))),
    CONSTRAINT partitioning_wanted_check CHECK (((wanted >= 1) AND (wanted <= 256)))
);

--
-- Name: TABLE partitioning; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.partitioning IS 'Streams whose rows go to several Redis streams. Changed by outbox.set_partitions and by the relay.';

--
-- Name: COLUMN partitioning.stream; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.partitioning.stream IS 'The stream, as rows name it.';

--
-- Name: COLUMN partitioning.partitions; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.partitioning.partitions IS 'Rows that are sealed now go to so many streams, orders:{0}, orders:{1} and so on; 1 for the stream itself.';

--
-- Name: COLUMN partitioning.before; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.partitioning.before IS 'How many there were before; null once every consumer group has acknowledged all that went there until the change.';

--
-- Name: COLUMN partitioning.closed; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.partitioning.closed IS 'Of each stream that rows went to before, the last number until the change.';

--
-- Name: COLUMN partitioning.changed_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.partitioning.changed_at IS 'When that change was.';

--
-- Name: COLUMN partitioning.wanted; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.partitioning.wanted IS 'Asked for, and not in force yet; null if nothing is.';

--
-- Name: entry_status; Type: VIEW; Schema: outbox; Owner: -
--

CREATE VIEW outbox.entry_status AS
 SELECT e.id,
    e.event_id,
    COALESCE(b.stream, e.stream) AS stream,
    e.key,
    e.type,
    e.created_at,
    b.n,
    ((b.ms || '-'::text) || b.n) AS entry_id,
        CASE
            WHEN (b.n IS NULL) THEN 'pending'::text
            WHEN (b.dispatched_at IS NULL) THEN 'sealed'::text
            ELSE 'dispatched'::text
        END AS state,
    b.dispatched_at
   FROM (outbox.entry e
     LEFT JOIN LATERAL ( SELECT a.stream,
            a.ms,
            a.dispatched_at,
            ((a.first_n + array_position(a.ids, e.id)) - 1) AS n
           FROM ( SELECT b_1.seal,
                    b_1.stream,
                    b_1.first_n,
                    b_1.last_n,
                    b_1.ms,
                    b_1.first_id,
                    b_1.last_id,
                    b_1.ids,
                    b_1.dispatched_at
                   FROM outbox.batch b_1
                  WHERE (((b_1.last_id - b_1.first_id) < 10000) AND (b_1.first_id > (e.id - 10000)) AND (b_1.first_id <= e.id) AND (b_1.last_id >= e.id) AND (b_1.stream = e.stream))
                UNION ALL
                 SELECT b_1.seal,
                    b_1.stream,
                    b_1.first_n,
                    b_1.last_n,
                    b_1.ms,
                    b_1.first_id,
                    b_1.last_id,
                    b_1.ids,
                    b_1.dispatched_at
                   FROM outbox.batch b_1
                  WHERE (((b_1.last_id - b_1.first_id) >= 10000) AND (int8range(b_1.first_id, b_1.last_id, '[]'::text) @> e.id) AND (b_1.stream = e.stream))
                UNION ALL
                ( SELECT b_1.seal,
                    b_1.stream,
                    b_1.first_n,
                    b_1.last_n,
                    b_1.ms,
                    b_1.first_id,
                    b_1.last_id,
                    b_1.ids,
                    b_1.dispatched_at
                   FROM (outbox.partitioning p
                     JOIN outbox.batch b_1 ON ((((b_1.last_id - b_1.first_id) < 10000) AND (b_1.first_id > (e.id - 10000)) AND (b_1.first_id <= e.id) AND (b_1.last_id >= e.id) AND starts_with(b_1.stream, (e.stream || ':{'::text)) AND (e.id = ANY (b_1.ids)))))
                  WHERE (p.stream = e.stream)
                  ORDER BY b_1.first_id DESC
                 LIMIT 1)
                UNION ALL
                 SELECT b_1.seal,
                    b_1.stream,
                    b_1.first_n,
                    b_1.last_n,
                    b_1.ms,
                    b_1.first_id,
                    b_1.last_id,
                    b_1.ids,
                    b_1.dispatched_at
                   FROM (outbox.partitioning p
                     JOIN outbox.batch b_1 ON ((((b_1.last_id - b_1.first_id) >= 10000) AND (int8range(b_1.first_id, b_1.last_id, '[]'::text) @> e.id) AND starts_with(b_1.stream, (e.stream || ':{'::text)))))
                  WHERE (p.stream = e.stream)) a
          WHERE (e.id = ANY (a.ids))
         LIMIT 1) b ON (true));

--
-- Name: VIEW entry_status; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON VIEW outbox.entry_status IS 'Each entry with its number and ID in its stream: pending, sealed or dispatched. Ask by id.';

--
-- Name: stream; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.stream (
    name text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    head_ms bigint DEFAULT 0 NOT NULL,
    head_n bigint DEFAULT 0 NOT NULL,
    purged_ms bigint DEFAULT 0 NOT NULL,
    purged_n bigint DEFAULT 0 NOT NULL,
    state text DEFAULT 'active'::text NOT NULL,
    reason text,
    paused_at timestamp with time zone,
    paused_by text,
    groups_lost boolean DEFAULT false NOT NULL,
    CONSTRAINT stream_state_check CHECK ((state = ANY (ARRAY['active'::text, 'rebuilding'::text, 'full'::text, 'paused'::text, 'halted'::text])))
);

--
-- Name: TABLE stream; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.stream IS 'Streams that have had an entry sealed. Changed only when the state of a stream changes.';

--
-- Name: COLUMN stream.name; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.name IS 'The stream, as rows of outbox.entry name it.';

--
-- Name: COLUMN stream.created_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.created_at IS 'When its first row was sealed.';

--
-- Name: COLUMN stream.head_ms; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.head_ms IS 'Milliseconds of the position of head_n.';

--
-- Name: COLUMN stream.head_n; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.head_n IS 'Number up to which the stream is settled without the log: entries that were purged, or found in Redis without a row in Postgres.';

--
-- Name: COLUMN stream.purged_ms; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.purged_ms IS 'Milliseconds of the position of purged_n.';

--
-- Name: COLUMN stream.purged_n; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.purged_n IS 'Number up to which rows and log have been purged: nobody needs them any more.';

--
-- Name: COLUMN stream.state; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.state IS 'What the relay last said of it: active, rebuilding, full, halted.';

--
-- Name: COLUMN stream.reason; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.reason IS 'Why, in one sentence that names the remedy; null while it is active.';

--
-- Name: COLUMN stream.paused_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.paused_at IS 'Since when `outbox-relay pause` holds the stream: its rows are sealed and wait in Postgres. Null while it flows.';

--
-- Name: COLUMN stream.paused_by; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.paused_by IS 'Who paused it: user and host of the command.';

--
-- Name: COLUMN stream.groups_lost; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.stream.groups_lost IS 'Redis has lost something of the stream, and its consumer groups are not back yet: whoever leads next begins with them.';

--
-- Name: floor; Type: VIEW; Schema: outbox; Owner: -
--

CREATE VIEW outbox.floor AS
 SELECT s.name AS stream,
        CASE
            WHEN (COALESCE(c.floor_n, (0)::bigint) > s.purged_n) THEN c.floor_ms
            ELSE s.purged_ms
        END AS ms,
    GREATEST(COALESCE(c.floor_n, (0)::bigint), s.purged_n) AS n,
    c.nonce,
    c.count,
    c.taken_at,
    COALESCE(c.groups, '[]'::jsonb) AS groups
   FROM (outbox.stream s
     LEFT JOIN LATERAL ( SELECT k.half,
            k.id,
            k.stream,
            k.taken_at,
            k.nonce,
            k.count,
            k.floor_ms,
            k.floor_n,
            k.groups
           FROM outbox.checkpoint k
          WHERE (k.stream = s.name)
          ORDER BY k.id DESC
         LIMIT 1) c ON (true));

--
-- Name: VIEW floor; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON VIEW outbox.floor IS 'Each stream with its floor, below which nobody needs anything, and its consumer groups, as of the latest checkpoint.';

--
-- Name: gated; Type: VIEW; Schema: outbox; Owner: -
--

CREATE VIEW outbox.gated AS
 SELECT n.name AS stream,
    p.stream AS of,
        CASE
            WHEN (p.before IS NULL) THEN format('partitions of %s are about to change'::text, p.stream)
            ELSE format('partitions of %s changed from %s to %s; what comes after waits until every consumer group has acknowledged what came before: %s'::text, p.stream, p.before, p.partitions, COALESCE(( SELECT string_agg(format('%s up to %s'::text, o.stream, o.n), ', '::text ORDER BY o.stream) AS string_agg
               FROM outbox.open_ends(p.closed, p.changed_at) o(stream, n)), 'it has'::text))
        END AS reason
   FROM (outbox.partitioning p
     CROSS JOIN LATERAL ( SELECT outbox.partition_names(p.stream, COALESCE(p.wanted, p.partitions)) AS name
        EXCEPT
         SELECT outbox.partition_names(p.stream,
                CASE
                    WHEN (p.wanted IS NULL) THEN p.before
                    ELSE p.partitions
                END) AS partition_names) n)
  WHERE ((p.wanted IS NOT NULL) OR (p.before IS NOT NULL));

--
-- Name: VIEW gated; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON VIEW outbox.gated IS 'New partitions whose entries wait until every consumer group has acknowledged what came before their partitions changed.';

--
-- Name: COLUMN gated.stream; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.gated.stream IS 'The Redis stream that waits.';

--
-- Name: COLUMN gated.of; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.gated.of IS 'The stream, as rows name it.';

--
-- Name: COLUMN gated.reason; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.gated.reason IS 'What it waits for.';

--
-- Name: identity; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.identity (
    only_row boolean DEFAULT true NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    system_identifier text NOT NULL,
    former_systems text[] DEFAULT '{}'::text[] NOT NULL,
    CONSTRAINT identity_only_row_check CHECK (only_row)
);

--
-- Name: TABLE identity; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.identity IS 'Which outbox this is (id, also kept in Redis) and in which Postgres cluster it lives (system_identifier). One row.';

--
-- Name: COLUMN identity.only_row; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.identity.only_row IS 'Always true: the table has one row.';

--
-- Name: COLUMN identity.id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.identity.id IS 'Which outbox this is; kept in Redis as well.';

--
-- Name: COLUMN identity.system_identifier; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.identity.system_identifier IS 'The Postgres cluster it lives in, as pg_control_system() names it.';

--
-- Name: COLUMN identity.former_systems; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.identity.former_systems IS 'Clusters that this outbox lived in before, as `outbox-relay adopt` left them: a Redis that names one of them is still ours.';

--
-- Name: leaf; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.leaf (
    tree text NOT NULL,
    lower bigint NOT NULL,
    upper bigint NOT NULL,
    name text NOT NULL,
    CONSTRAINT leaf_check CHECK ((lower < upper)),
    CONSTRAINT leaf_tree_check CHECK ((tree = ANY (ARRAY['entry'::text, 'seal'::text, 'batch'::text])))
);

--
-- Name: TABLE leaf; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.leaf IS 'Partitions of entry, seal and batch: name holds lower <= id (or seal) < upper.';

--
-- Name: COLUMN leaf.tree; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.leaf.tree IS 'Which table it is a partition of.';

--
-- Name: COLUMN leaf.lower; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.leaf.lower IS 'Its lowest id or seal.';

--
-- Name: COLUMN leaf.upper; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.leaf.upper IS 'One more than its highest.';

--
-- Name: COLUMN leaf.name; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.leaf.name IS 'Name of the partition in the schema outbox.';

--
-- Name: lease; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.lease (
    token bigint NOT NULL,
    holder text NOT NULL,
    taken_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    ended_at timestamp with time zone
);

--
-- Name: TABLE lease; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.lease IS 'Who may seal: the one row without ended_at. Each seal locks that row and names its token, so a relay that was replaced cannot seal.';

--
-- Name: COLUMN lease.token; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.lease.token IS 'Number of the term; grows by one whenever a relay takes over.';

--
-- Name: COLUMN lease.holder; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.lease.holder IS 'Host, process and a random part: which relay.';

--
-- Name: COLUMN lease.taken_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.lease.taken_at IS 'When the term began.';

--
-- Name: COLUMN lease.ended_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.lease.ended_at IS 'When it was taken over; null for the current one. Its time may have run out: see lease_until.';

--
-- Name: lease_until; Type: SEQUENCE; Schema: outbox; Owner: -
--

CREATE SEQUENCE outbox.lease_until
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

--
-- Name: SEQUENCE lease_until; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON SEQUENCE outbox.lease_until IS 'Epoch millisecond at which the current lease ends unless renewed. A sequence, so that heartbeats leave no dead rows behind.';

--
-- Name: migration; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.migration (
    version integer NOT NULL,
    name text NOT NULL,
    applied_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

--
-- Name: TABLE migration; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.migration IS 'Schema versions applied by `outbox-relay migrate`.';

--
-- Name: COLUMN migration.version; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.migration.version IS 'Number of the migration: 1, 2, 3 …';

--
-- Name: COLUMN migration.name; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.migration.name IS 'What it is called in sql/migrations.';

--
-- Name: COLUMN migration.applied_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.migration.applied_at IS 'When it was applied.';

--
-- Name: pending; Type: VIEW; Schema: outbox; Owner: -
--

CREATE VIEW outbox.pending AS
 SELECT pending_entries.xid,
    pending_entries.id,
    pending_entries.event_id,
    pending_entries.stream,
    pending_entries.key,
    pending_entries.type,
    pending_entries.payload,
    pending_entries.headers,
    pending_entries.created_at
   FROM outbox.pending_entries() pending_entries(xid, id, event_id, stream, key, type, payload, headers, created_at);

--
-- Name: VIEW pending; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON VIEW outbox.pending IS 'Committed rows that are not sealed yet. Its cost grows with their number, not with rows kept.';

--
-- Name: phantom; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.phantom (
    stream text NOT NULL,
    entry_id text NOT NULL,
    event_id text,
    fields jsonb NOT NULL,
    found_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

--
-- Name: TABLE phantom; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.phantom IS 'Stream entries whose rows Postgres no longer has: its history was lost after the entry had been appended.';

--
-- Name: COLUMN phantom.stream; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.phantom.stream IS 'The stream.';

--
-- Name: COLUMN phantom.entry_id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.phantom.entry_id IS 'Its ID in Redis.';

--
-- Name: COLUMN phantom.event_id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.phantom.event_id IS 'Its field "id".';

--
-- Name: COLUMN phantom.fields; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.phantom.fields IS 'All its fields: what is left of the lost row.';

--
-- Name: COLUMN phantom.found_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.phantom.found_at IS 'When the relay found it.';

--
-- Name: scrub; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.scrub (
    only_row boolean DEFAULT true NOT NULL,
    proved bigint DEFAULT 0 NOT NULL,
    CONSTRAINT scrub_only_row_check CHECK (only_row)
);

--
-- Name: TABLE scrub; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.scrub IS 'Every row with id <= proved has been compared with the log; the background scrub goes on from here. One row.';

--
-- Name: COLUMN scrub.only_row; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.scrub.only_row IS 'Always true: the table has one row.';

--
-- Name: COLUMN scrub.proved; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON COLUMN outbox.scrub.proved IS 'Rows up to this id have been compared with the log.';

--
-- Name: seal_0; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.seal_0 (
    seal bigint NOT NULL,
    token bigint NOT NULL,
    base pg_snapshot NOT NULL,
    target pg_snapshot,
    through bigint,
    high bigint NOT NULL,
    sealed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

--
-- Name: seal_10000000; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.seal_10000000 (
    seal bigint NOT NULL,
    token bigint NOT NULL,
    base pg_snapshot NOT NULL,
    target pg_snapshot,
    through bigint,
    high bigint NOT NULL,
    sealed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

--
-- Name: seal_net; Type: TABLE; Schema: outbox; Owner: -
--

CREATE TABLE outbox.seal_net (
    seal bigint NOT NULL,
    token bigint NOT NULL,
    base pg_snapshot NOT NULL,
    target pg_snapshot,
    through bigint,
    high bigint NOT NULL,
    sealed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

--
-- Name: TABLE seal_net; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TABLE outbox.seal_net IS 'Takes rows for which no leaf was attached in time. Should be empty.';

--
-- Name: stream_status; Type: VIEW; Schema: outbox; Owner: -
--

CREATE VIEW outbox.stream_status AS
 WITH waiting AS MATERIALIZED (
         SELECT p.stream,
            count(*) AS entries,
            min(p.created_at) AS oldest
           FROM outbox.pending p
          GROUP BY p.stream
        )
 SELECT COALESCE(s.name, w.stream) AS stream,
    GREATEST(COALESCE(h.last_n, (0)::bigint), COALESCE(s.head_n, (0)::bigint)) AS sealed,
    GREATEST(COALESCE(d.last_n, (0)::bigint), COALESCE(s.head_n, (0)::bigint)) AS dispatched,
        CASE
            WHEN (f.groups <> '[]'::jsonb) THEN f.n
            ELSE NULL::bigint
        END AS acked,
    ((GREATEST(COALESCE(h.last_n, (0)::bigint), COALESCE(s.head_n, (0)::bigint)) - GREATEST(COALESCE(d.last_n, (0)::bigint), COALESCE(s.head_n, (0)::bigint))) + COALESCE(w.entries, (0)::bigint)) AS undispatched,
    COALESCE(o.created_at, w.oldest) AS oldest_undispatched_at,
        CASE
            WHEN ((s.paused_at IS NOT NULL) OR (g.stream IS NOT NULL)) THEN 'paused'::text
            ELSE COALESCE(s.state, 'active'::text)
        END AS state,
        CASE
            WHEN (s.paused_at IS NOT NULL) THEN format('paused by %s at %s; `outbox-relay resume %s` lets it flow again'::text, COALESCE(s.paused_by, 'somebody'::text), to_char((s.paused_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS"Z"'::text), s.name)
            ELSE COALESCE(g.reason, s.reason)
        END AS reason,
    COALESCE(s.purged_n, (0)::bigint) AS purged
   FROM ((((((outbox.stream s
     FULL JOIN waiting w ON ((w.stream = s.name)))
     LEFT JOIN outbox.floor f ON ((f.stream = s.name)))
     LEFT JOIN outbox.gated g ON ((g.stream = s.name)))
     LEFT JOIN LATERAL ( SELECT b.last_n
           FROM outbox.batch b
          WHERE (b.stream = s.name)
          ORDER BY b.last_n DESC
         LIMIT 1) h ON (true))
     LEFT JOIN LATERAL ( SELECT b.last_n
           FROM outbox.batch b
          WHERE ((b.stream = s.name) AND (b.dispatched_at IS NOT NULL))
          ORDER BY b.last_n DESC
         LIMIT 1) d ON (true))
     LEFT JOIN LATERAL ( SELECT e.created_at
           FROM (( SELECT b.ids[1] AS id
                   FROM outbox.batch b
                  WHERE ((b.stream = s.name) AND (b.last_n > GREATEST(COALESCE(d.last_n, (0)::bigint), s.head_n)))
                  ORDER BY b.last_n
                 LIMIT 1) first
             JOIN outbox.entry e ON ((e.id = first.id)))) o ON (true));

--
-- Name: VIEW stream_status; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON VIEW outbox.stream_status IS 'Each stream: numbers sealed and dispatched, what waits, since when, and its state. Its cost grows with streams and backlog, not with rows kept.';

--
-- Name: wake_until; Type: SEQUENCE; Schema: outbox; Owner: -
--

CREATE SEQUENCE outbox.wake_until
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

--
-- Name: SEQUENCE wake_until; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON SEQUENCE outbox.wake_until IS 'Epoch second until which the relay wants a NOTIFY for each insert. A sequence, because a table would be read as of the writer''s snapshot.';

--
-- Name: batch_0; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.batch ATTACH PARTITION outbox.batch_0 FOR VALUES FROM ('0') TO ('10000000');

--
-- Name: batch_10000000; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.batch ATTACH PARTITION outbox.batch_10000000 FOR VALUES FROM ('10000000') TO ('20000000');

--
-- Name: batch_net; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.batch ATTACH PARTITION outbox.batch_net DEFAULT;

--
-- Name: checkpoint_0; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.checkpoint ATTACH PARTITION outbox.checkpoint_0 FOR VALUES IN ('0');

--
-- Name: checkpoint_1; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.checkpoint ATTACH PARTITION outbox.checkpoint_1 FOR VALUES IN ('1');

--
-- Name: entry_0; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.entry ATTACH PARTITION outbox.entry_0 FOR VALUES FROM ('0') TO ('10000000');

--
-- Name: entry_10000000; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.entry ATTACH PARTITION outbox.entry_10000000 FOR VALUES FROM ('10000000') TO ('20000000');

--
-- Name: entry_net; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.entry ATTACH PARTITION outbox.entry_net DEFAULT;

--
-- Name: seal_0; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.seal ATTACH PARTITION outbox.seal_0 FOR VALUES FROM ('0') TO ('10000000');

--
-- Name: seal_10000000; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.seal ATTACH PARTITION outbox.seal_10000000 FOR VALUES FROM ('10000000') TO ('20000000');

--
-- Name: seal_net; Type: TABLE ATTACH; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.seal ATTACH PARTITION outbox.seal_net DEFAULT;

--
-- Name: batch batch_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.batch
    ADD CONSTRAINT batch_pkey PRIMARY KEY (stream, last_n, seal);

--
-- Name: batch_0 batch_0_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.batch_0
    ADD CONSTRAINT batch_0_pkey PRIMARY KEY (stream, last_n, seal);

--
-- Name: batch_10000000 batch_10000000_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.batch_10000000
    ADD CONSTRAINT batch_10000000_pkey PRIMARY KEY (stream, last_n, seal);

--
-- Name: batch_net batch_net_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.batch_net
    ADD CONSTRAINT batch_net_pkey PRIMARY KEY (stream, last_n, seal);

--
-- Name: checkpoint checkpoint_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.checkpoint
    ADD CONSTRAINT checkpoint_pkey PRIMARY KEY (stream, id, half);

--
-- Name: checkpoint_0 checkpoint_0_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.checkpoint_0
    ADD CONSTRAINT checkpoint_0_pkey PRIMARY KEY (stream, id, half);

--
-- Name: checkpoint_1 checkpoint_1_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.checkpoint_1
    ADD CONSTRAINT checkpoint_1_pkey PRIMARY KEY (stream, id, half);

--
-- Name: dead_letter dead_letter_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.dead_letter
    ADD CONSTRAINT dead_letter_pkey PRIMARY KEY (consumer_group, event_id);

--
-- Name: done done_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.done
    ADD CONSTRAINT done_pkey PRIMARY KEY (consumer_group, event_id);

--
-- Name: entry entry_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.entry
    ADD CONSTRAINT entry_pkey PRIMARY KEY (id);

--
-- Name: entry_0 entry_0_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.entry_0
    ADD CONSTRAINT entry_0_pkey PRIMARY KEY (id);

--
-- Name: entry_10000000 entry_10000000_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.entry_10000000
    ADD CONSTRAINT entry_10000000_pkey PRIMARY KEY (id);

--
-- Name: entry_net entry_net_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.entry_net
    ADD CONSTRAINT entry_net_pkey PRIMARY KEY (id);

--
-- Name: identity identity_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.identity
    ADD CONSTRAINT identity_pkey PRIMARY KEY (only_row);

--
-- Name: leaf leaf_name_key; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.leaf
    ADD CONSTRAINT leaf_name_key UNIQUE (name);

--
-- Name: leaf leaf_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.leaf
    ADD CONSTRAINT leaf_pkey PRIMARY KEY (tree, lower);

--
-- Name: lease lease_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.lease
    ADD CONSTRAINT lease_pkey PRIMARY KEY (token);

--
-- Name: migration migration_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (version);

--
-- Name: partitioning partitioning_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.partitioning
    ADD CONSTRAINT partitioning_pkey PRIMARY KEY (stream);

--
-- Name: phantom phantom_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.phantom
    ADD CONSTRAINT phantom_pkey PRIMARY KEY (stream, entry_id);

--
-- Name: scrub scrub_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.scrub
    ADD CONSTRAINT scrub_pkey PRIMARY KEY (only_row);

--
-- Name: seal seal_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.seal
    ADD CONSTRAINT seal_pkey PRIMARY KEY (seal);

--
-- Name: seal_0 seal_0_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.seal_0
    ADD CONSTRAINT seal_0_pkey PRIMARY KEY (seal);

--
-- Name: seal_10000000 seal_10000000_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.seal_10000000
    ADD CONSTRAINT seal_10000000_pkey PRIMARY KEY (seal);

--
-- Name: seal_net seal_net_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.seal_net
    ADD CONSTRAINT seal_net_pkey PRIMARY KEY (seal);

--
-- Name: stream stream_pkey; Type: CONSTRAINT; Schema: outbox; Owner: -
--

ALTER TABLE ONLY outbox.stream
    ADD CONSTRAINT stream_pkey PRIMARY KEY (name);

--
-- Name: batch_narrow; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX batch_narrow ON ONLY outbox.batch USING btree (first_id, stream) WHERE ((last_id - first_id) < 10000);

--
-- Name: INDEX batch_narrow; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.batch_narrow IS 'By lowest id and stream, batches whose ids lie close together: outbox.batches_over and the view entry_status.';

--
-- Name: batch_0_first_id_stream_idx; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX batch_0_first_id_stream_idx ON outbox.batch_0 USING btree (first_id, stream) WHERE ((last_id - first_id) < 10000);

--
-- Name: batch_wide; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX batch_wide ON ONLY outbox.batch USING gist (int8range(first_id, last_id, '[]'::text)) WHERE ((last_id - first_id) >= 10000);

--
-- Name: INDEX batch_wide; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.batch_wide IS 'By range of ids, all other batches: outbox.batches_over and the view entry_status.';

--
-- Name: batch_0_int8range_idx; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX batch_0_int8range_idx ON outbox.batch_0 USING gist (int8range(first_id, last_id, '[]'::text)) WHERE ((last_id - first_id) >= 10000);

--
-- Name: INDEX batch_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.batch_pkey IS 'By stream and number: replays, heads, marks.';

--
-- Name: batch_10000000_first_id_stream_idx; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX batch_10000000_first_id_stream_idx ON outbox.batch_10000000 USING btree (first_id, stream) WHERE ((last_id - first_id) < 10000);

--
-- Name: batch_10000000_int8range_idx; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX batch_10000000_int8range_idx ON outbox.batch_10000000 USING gist (int8range(first_id, last_id, '[]'::text)) WHERE ((last_id - first_id) >= 10000);

--
-- Name: batch_net_first_id_stream_idx; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX batch_net_first_id_stream_idx ON outbox.batch_net USING btree (first_id, stream) WHERE ((last_id - first_id) < 10000);

--
-- Name: batch_net_int8range_idx1; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX batch_net_int8range_idx1 ON outbox.batch_net USING gist (int8range(first_id, last_id, '[]'::text)) WHERE ((last_id - first_id) >= 10000);

--
-- Name: checkpoint_id; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX checkpoint_id ON ONLY outbox.checkpoint USING btree (id);

--
-- Name: INDEX checkpoint_id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.checkpoint_id IS 'By id: which half is written to.';

--
-- Name: checkpoint_0_id_idx; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX checkpoint_0_id_idx ON outbox.checkpoint_0 USING btree (id);

--
-- Name: INDEX checkpoint_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.checkpoint_pkey IS 'By stream; the last one counts.';

--
-- Name: checkpoint_1_id_idx; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX checkpoint_1_id_idx ON outbox.checkpoint_1 USING btree (id);

--
-- Name: INDEX dead_letter_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.dead_letter_pkey IS 'By group and event.';

--
-- Name: dead_letter_retry_at; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX dead_letter_retry_at ON outbox.dead_letter USING btree (consumer_group, stream, retry_at) WHERE (retry_at IS NOT NULL);

--
-- Name: INDEX dead_letter_retry_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.dead_letter_retry_at IS 'What workers look for: those to be tried again.';

--
-- Name: done_done_at; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX done_done_at ON outbox.done USING btree (consumer_group, done_at);

--
-- Name: INDEX done_done_at; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.done_done_at IS 'Of each group the oldest first, for the purge.';

--
-- Name: INDEX done_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.done_pkey IS 'What makes a second worker with the same event wait for the first, and then skip it.';

--
-- Name: INDEX entry_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.entry_pkey IS 'By id: the order in which rows are sealed, and `returning id`.';

--
-- Name: entry_xid_id; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX entry_xid_id ON ONLY outbox.entry USING btree (xid, id);

--
-- Name: INDEX entry_xid_id; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.entry_xid_id IS 'By transaction: how new rows are found without reading those that are kept.';

--
-- Name: entry_0_xid_id_idx; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX entry_0_xid_id_idx ON outbox.entry_0 USING btree (xid, id);

--
-- Name: entry_10000000_xid_id_idx; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX entry_10000000_xid_id_idx ON outbox.entry_10000000 USING btree (xid, id);

--
-- Name: entry_net_xid_id_idx; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX entry_net_xid_id_idx ON outbox.entry_net USING btree (xid, id);

--
-- Name: INDEX identity_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.identity_pkey IS 'One row.';

--
-- Name: INDEX leaf_name_key; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.leaf_name_key IS 'By name.';

--
-- Name: INDEX leaf_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.leaf_pkey IS 'By table and lowest number.';

--
-- Name: lease_current; Type: INDEX; Schema: outbox; Owner: -
--

CREATE UNIQUE INDEX lease_current ON outbox.lease USING btree ((true)) WHERE (ended_at IS NULL);

--
-- Name: INDEX lease_current; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.lease_current IS 'At most one term is current.';

--
-- Name: INDEX lease_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.lease_pkey IS 'By token.';

--
-- Name: INDEX migration_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.migration_pkey IS 'By version.';

--
-- Name: INDEX partitioning_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.partitioning_pkey IS 'By stream.';

--
-- Name: INDEX phantom_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.phantom_pkey IS 'By stream and ID.';

--
-- Name: INDEX scrub_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.scrub_pkey IS 'One row.';

--
-- Name: INDEX seal_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.seal_pkey IS 'By number; the last one says where the search goes on.';

--
-- Name: stream_paused; Type: INDEX; Schema: outbox; Owner: -
--

CREATE INDEX stream_paused ON outbox.stream USING btree (name) WHERE (paused_at IS NOT NULL);

--
-- Name: INDEX stream_paused; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.stream_paused IS 'Streams that somebody holds; the relay asks for them every second.';

--
-- Name: INDEX stream_pkey; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON INDEX outbox.stream_pkey IS 'By name.';

--
-- Name: batch_0_first_id_stream_idx; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.batch_narrow ATTACH PARTITION outbox.batch_0_first_id_stream_idx;

--
-- Name: batch_0_int8range_idx; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.batch_wide ATTACH PARTITION outbox.batch_0_int8range_idx;

--
-- Name: batch_0_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.batch_pkey ATTACH PARTITION outbox.batch_0_pkey;

--
-- Name: batch_10000000_first_id_stream_idx; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.batch_narrow ATTACH PARTITION outbox.batch_10000000_first_id_stream_idx;

--
-- Name: batch_10000000_int8range_idx; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.batch_wide ATTACH PARTITION outbox.batch_10000000_int8range_idx;

--
-- Name: batch_10000000_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.batch_pkey ATTACH PARTITION outbox.batch_10000000_pkey;

--
-- Name: batch_net_first_id_stream_idx; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.batch_narrow ATTACH PARTITION outbox.batch_net_first_id_stream_idx;

--
-- Name: batch_net_int8range_idx1; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.batch_wide ATTACH PARTITION outbox.batch_net_int8range_idx1;

--
-- Name: batch_net_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.batch_pkey ATTACH PARTITION outbox.batch_net_pkey;

--
-- Name: checkpoint_0_id_idx; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.checkpoint_id ATTACH PARTITION outbox.checkpoint_0_id_idx;

--
-- Name: checkpoint_0_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.checkpoint_pkey ATTACH PARTITION outbox.checkpoint_0_pkey;

--
-- Name: checkpoint_1_id_idx; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.checkpoint_id ATTACH PARTITION outbox.checkpoint_1_id_idx;

--
-- Name: checkpoint_1_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.checkpoint_pkey ATTACH PARTITION outbox.checkpoint_1_pkey;

--
-- Name: entry_0_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.entry_pkey ATTACH PARTITION outbox.entry_0_pkey;

--
-- Name: entry_0_xid_id_idx; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.entry_xid_id ATTACH PARTITION outbox.entry_0_xid_id_idx;

--
-- Name: entry_10000000_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.entry_pkey ATTACH PARTITION outbox.entry_10000000_pkey;

--
-- Name: entry_10000000_xid_id_idx; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.entry_xid_id ATTACH PARTITION outbox.entry_10000000_xid_id_idx;

--
-- Name: entry_net_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.entry_pkey ATTACH PARTITION outbox.entry_net_pkey;

--
-- Name: entry_net_xid_id_idx; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.entry_xid_id ATTACH PARTITION outbox.entry_net_xid_id_idx;

--
-- Name: seal_0_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.seal_pkey ATTACH PARTITION outbox.seal_0_pkey;

--
-- Name: seal_10000000_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.seal_pkey ATTACH PARTITION outbox.seal_10000000_pkey;

--
-- Name: seal_net_pkey; Type: INDEX ATTACH; Schema: outbox; Owner: -
--

ALTER INDEX outbox.seal_pkey ATTACH PARTITION outbox.seal_net_pkey;

--
-- Name: entry refuse_entry; Type: TRIGGER; Schema: outbox; Owner: -
--

CREATE TRIGGER refuse_entry BEFORE INSERT ON outbox.entry FOR EACH ROW WHEN (((new.stream !~ '^[A-Za-z0-9][A-Za-z0-9._:{}-]*$'::text) OR (octet_length(new.stream) > 128) OR (new.stream ~~ 'outbox:%'::text) OR (octet_length((new.payload)::text) > 65536) OR (octet_length((new.headers)::text) > 8192) OR (octet_length(new.key) > 1024) OR (octet_length(new.type) > 1024))) EXECUTE FUNCTION outbox.refuse_entry();

--
-- Name: TRIGGER refuse_entry ON entry; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TRIGGER refuse_entry ON outbox.entry IS 'Refuses a row that breaks a bound, with an error that says what to do. Its function runs for such rows only.';

--
-- Name: entry wake; Type: TRIGGER; Schema: outbox; Owner: -
--

CREATE TRIGGER wake AFTER INSERT ON outbox.entry FOR EACH STATEMENT WHEN ((((pg_sequence_last_value('outbox.wake_until'::regclass))::numeric > EXTRACT(epoch FROM clock_timestamp())) AND (COALESCE(current_setting('outbox.wake'::text, true), ''::text) <> 'off'::text))) EXECUTE FUNCTION outbox.wake();

--
-- Name: TRIGGER wake ON entry; Type: COMMENT; Schema: outbox; Owner: -
--

COMMENT ON TRIGGER wake ON outbox.entry IS 'Sends NOTIFY outbox, only while the relay asks for it and the session has not said `set outbox.wake = off`.';

--
-- Name: FUNCTION adopt(OUT sealed bigint, OUT restamped bigint); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.adopt(OUT sealed bigint, OUT restamped bigint) FROM PUBLIC;

--
-- Name: FUNCTION attach_leaves(size bigint, ahead integer); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.attach_leaves(size bigint, ahead integer) FROM PUBLIC;

--
-- Name: FUNCTION batches_over(lowest bigint, highest bigint); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.batches_over(lowest bigint, highest bigint) FROM PUBLIC;

--
-- Name: FUNCTION crc16(bytes bytea); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.crc16(bytes bytea) FROM PUBLIC;

--
-- Name: FUNCTION discard_dead_letter(consumer_group text, event_id uuid); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.discard_dead_letter(consumer_group text, event_id uuid) FROM PUBLIC;

--
-- Name: FUNCTION drop_leaves(); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.drop_leaves() FROM PUBLIC;

--
-- Name: FUNCTION emit(stream text, payload jsonb, key text, type text, headers jsonb, event_id uuid, ordered boolean); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.emit(stream text, payload jsonb, key text, type text, headers jsonb, event_id uuid, ordered boolean) FROM PUBLIC;

--
-- Name: FUNCTION empty_nets(); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.empty_nets() FROM PUBLIC;

--
-- Name: FUNCTION grant_application(role regrole); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.grant_application(role regrole) FROM PUBLIC;

--
-- Name: FUNCTION grant_relay(role regrole); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.grant_relay(role regrole) FROM PUBLIC;

--
-- Name: FUNCTION grant_worker(role regrole); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.grant_worker(role regrole) FROM PUBLIC;

--
-- Name: FUNCTION leap(age interval, OUT id bigint, OUT seal bigint); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.leap(age interval, OUT id bigint, OUT seal bigint) FROM PUBLIC;

--
-- Name: FUNCTION needs(streams text[], ns bigint[]); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.needs(streams text[], ns bigint[]) FROM PUBLIC;

--
-- Name: FUNCTION open_ends(closed jsonb, changed_at timestamp with time zone, OUT stream text, OUT n bigint); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.open_ends(closed jsonb, changed_at timestamp with time zone, OUT stream text, OUT n bigint) FROM PUBLIC;

--
-- Name: FUNCTION open_partitions(); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.open_partitions() FROM PUBLIC;

--
-- Name: FUNCTION partition_names(stream text, partitions integer); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.partition_names(stream text, partitions integer) FROM PUBLIC;

--
-- Name: FUNCTION partition_of(stream text, key text, id bigint); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.partition_of(stream text, key text, id bigint) FROM PUBLIC;

--
-- Name: FUNCTION pending_entries(); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.pending_entries() FROM PUBLIC;

--
-- Name: FUNCTION purge_done(retention interval, most integer); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.purge_done(retention interval, most integer) FROM PUBLIC;

--
-- Name: FUNCTION purge_entries(retention interval, OUT leaves integer, OUT entries bigint); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.purge_entries(retention interval, OUT leaves integer, OUT entries bigint) FROM PUBLIC;

--
-- Name: FUNCTION purge_log(retention interval, OUT leaves integer); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.purge_log(retention interval, OUT leaves integer) FROM PUBLIC;

--
-- Name: FUNCTION refuse_entry(); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.refuse_entry() FROM PUBLIC;

--
-- Name: FUNCTION retry_dead_letter(consumer_group text, event_id uuid); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.retry_dead_letter(consumer_group text, event_id uuid) FROM PUBLIC;

--
-- Name: FUNCTION rotate_checkpoints(bytes bigint); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.rotate_checkpoints(bytes bigint) FROM PUBLIC;

--
-- Name: FUNCTION set_partitions(stream text, partitions integer); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.set_partitions(stream text, partitions integer) FROM PUBLIC;

--
-- Name: FUNCTION wake(); Type: ACL; Schema: outbox; Owner: -
--

REVOKE ALL ON FUNCTION outbox.wake() FROM PUBLIC;

--
-- PostgreSQL database dump complete
--

