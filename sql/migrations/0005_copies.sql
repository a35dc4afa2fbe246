-- A copy that brings no sequences: adopt sets those of checkpoints as well.
--
-- Run by:  `outbox-relay migrate`, in one transaction, under an advisory lock.
-- Locks:   nothing that is in use.
-- Form:    the function as it was, and one statement more. Without it a copy by logical replication numbers
--          new checkpoints from 1, below those that came with it, and floors and groups stay as they were
--          on the day of the copy.

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
