-- outbox.heads: each stream with its last sealed position and the last one marked dispatched.
--
-- Called by:  outbox::log_reader, once when a relay begins to lead, and by commands.
-- Locks:      none beyond those of any select.
-- Returns:    name, sealed ms and n, dispatched n, floor ms and n, purged ms and n, the canary at the last
--             checkpoint and when that was, in epoch microseconds, whether its groups are lost, state,
--             reason.
--
-- Marks are set in order within a stream, so the walk back from the head is as long as the backlog.
select s.name,
       case when coalesce(h.last_n, 0) > s.head_n then h.ms else s.head_ms end as ms,
       greatest(coalesce(h.last_n, 0), s.head_n) as sealed,
       greatest(coalesce(d.last_n, 0), s.head_n) as dispatched,
       f.ms as floor_ms, f.n as floor_n, s.purged_ms, s.purged_n, f.nonce, f.count,
       coalesce(extract(epoch from f.taken_at) * 1e6, 0)::bigint as checkpointed_us,
       s.groups_lost, s.state, s.reason
from outbox.stream s
join outbox.floor f on f.stream = s.name
left join lateral (
    select b.last_n, b.ms from outbox.batch b
    where b.stream = s.name order by b.last_n desc limit 1
) h on true
left join lateral (
    select b.last_n from outbox.batch b
    where b.stream = s.name and b.dispatched_at is not null order by b.last_n desc limit 1
) d on true
