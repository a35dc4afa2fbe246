-- outbox.seal: fixes positions of rows for good, and marks earlier batches dispatched.
--
-- Called by:  outbox::log, on the sealing connection, once per batch; its commit is the seal.
-- Locks:      the lease row, FOR SHARE: whoever takes the lease over waits for this statement, and
--             this statement sees that the lease was taken over. It has no other reader's lock.
-- Parameters: $1 token, $2 seal, $3 base, $4 target, $5 through, $6 high;
--             arrays, one element per batch: $7 stream, $8 first_n, $9 last_n, $10 ms,
--             $11 and $12 where its ids begin and end in $13; $13 all ids;
--             $14 streams never seen before;
--             arrays, one element per mark: $15 seal, $16 stream, $17 last_n.
-- Returns:    one row if it was sealed; none if the lease is no longer ours, and then nothing was
--             changed.
--
-- One statement, so that read, check, insert and mark are one round trip and one commit. Its single
-- snapshot is enough: it reads nothing but the lease, and the row lock re-checks that.
with lease as materialized (
    select token from outbox.lease where token = $1 and ended_at is null for share
), marked as (
    update outbox.batch b
    set dispatched_at = clock_timestamp()
    from unnest($15::bigint[], $16::text[], $17::bigint[]) as m (seal, stream, last_n)
    where b.seal = m.seal and b.stream = m.stream and b.last_n = m.last_n
      and exists (select from lease)
), named as (
    insert into outbox.stream (name)
    select n.name from lease cross join unnest($14::text[]) as n (name)
    on conflict (name) do nothing
), batched as (
    insert into outbox.batch (seal, stream, first_n, last_n, ms, first_id, last_id, ids)
    select $2, b.stream, b.first_n, b.last_n, b.ms, ($13::bigint[])[b.lower], ($13::bigint[])[b.upper],
           ($13::bigint[])[b.lower:b.upper]
    from lease
    cross join unnest($7::text[], $8::bigint[], $9::bigint[], $10::bigint[], $11::int[], $12::int[])
        as b (stream, first_n, last_n, ms, lower, upper)
)
insert into outbox.seal (seal, token, base, target, through, high)
select $2, lease.token, $3::text::pg_snapshot, $4::text::pg_snapshot, $5::bigint, $6::bigint
from lease
returning token
