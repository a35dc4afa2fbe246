-- outbox.heads: each stream with its last sealed position and the last one marked dispatched.
--
-- Called by:  outbox::log_reader, once when a relay begins to lead.
-- Locks:      none beyond those of any select.
-- Returns:    name, sealed ms and n, dispatched n, floor ms and n, state, reason, whether somebody holds it.
--
-- Marks are set in order within a stream, so the walk back from the head is as long as the backlog.
select s.name,
       case when coalesce(h.last_n, 0) > s.head_n then h.ms else s.head_ms end as ms,
       greatest(coalesce(h.last_n, 0), s.head_n) as sealed,
       greatest(coalesce(d.last_n, 0), s.head_n) as dispatched,
       s.floor_ms, s.floor_n, s.state, s.reason, s.paused_at is not null as paused
from outbox.stream s
left join lateral (
    select b.last_n, b.ms from outbox.batch b
    where b.stream = s.name order by b.last_n desc limit 1
) h on true
left join lateral (
    select b.last_n from outbox.batch b
    where b.stream = s.name and b.dispatched_at is not null order by b.last_n desc limit 1
) d on true
