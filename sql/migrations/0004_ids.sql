-- Which batch has an id: found in an index that costs a seal little.
--
-- Run by:  `outbox-relay migrate`, in one transaction, under an advisory lock.
-- Locks:   SHARE on outbox.batch while its indexes are built, some seconds for a million batches, then ACCESS
--          EXCLUSIVE on it, for the index that goes, and on the view outbox.entry_status, until it commits: a
--          relay that runs meanwhile does not seal, and says so; never outbox.entry, so writers do not wait.
-- Form:    a GiST index over the ids of every batch took 40 microseconds a batch to keep, where all else
--          of a batch takes 15: with 10,000 streams a seal of 5,000 rows is 5,000 batches. Nearly every
--          batch spans few ids, and those are found by a btree whose new entries all go to its end; only
--          wide ones, with a row of a transaction that was open for long, need ranges.

create index batch_narrow on outbox.batch (first_id, stream) where last_id - first_id < 10000;
create index batch_wide on outbox.batch using gist (int8range(first_id, last_id, '[]'))
    where last_id - first_id >= 10000;
drop index outbox.batch_ids;
comment on index outbox.batch_narrow is
    'By lowest id and stream, batches whose ids lie close together: outbox.batches_over and the view entry_status.';
comment on index outbox.batch_wide is 'By range of ids, all other batches: outbox.batches_over and the view entry_status.';

-- Its text becomes part of the query that asks, so it must have no SET clause; its names mean what they
-- mean now, for it is parsed now.
create function outbox.batches_over(lowest bigint, highest bigint) returns setof outbox.batch
    language sql stable
begin atomic
    select * from outbox.batch b
    where b.last_id - b.first_id < 10000
      and b.first_id > lowest - 10000 and b.first_id <= highest and b.last_id >= lowest
    union all
    select * from outbox.batch b
    where b.last_id - b.first_id >= 10000
      and int8range(b.first_id, b.last_id, '[]') && int8range(lowest, highest, '[]');
end;
comment on function outbox.batches_over(bigint, bigint) is
    'Batches whose range of ids overlaps this one, both ends included. Locks nothing.';
revoke all on function outbox.batches_over(bigint, bigint) from public;

-- The text of batches_over again: a view reads tables with the rights of its owner, a function does not.
create or replace view outbox.entry_status as
select e.id, e.event_id, e.stream, e.key, e.type, e.created_at, b.n,
       b.ms || '-' || b.n as entry_id,
       case when b.n is null then 'pending' when b.dispatched_at is null then 'sealed' else 'dispatched' end as state,
       b.dispatched_at
from outbox.entry e
left join lateral (
    select a.ms, a.dispatched_at, a.first_n + array_position(a.ids, e.id) - 1 as n
    from (
        select * from outbox.batch b
        where b.last_id - b.first_id < 10000
          and b.first_id > e.id - 10000 and b.first_id <= e.id and b.last_id >= e.id and b.stream = e.stream
        union all
        select * from outbox.batch b
        where b.last_id - b.first_id >= 10000
          and int8range(b.first_id, b.last_id, '[]') @> e.id and b.stream = e.stream
    ) a
    where e.id = any (a.ids)
    limit 1
) b on true;

-- A leaf is looked through without a lock, then locked and looked at again for what may have changed,
-- which is cheap: no batch with its ids was sealed since, every row in it is sealed, and floors have not
-- gone back. Whoever has written to the leaf and not committed holds a lock on it, so once it is locked
-- there is no such row; whoever has drawn an id and not yet come to the leaf finds it empty, and there.
create or replace function outbox.purge_entries(retention interval, out leaves integer, out entries bigint)
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
                   'outbox.leap(interval), outbox.empty_nets(), outbox.batches_over(bigint, bigint) to %s', role);
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
