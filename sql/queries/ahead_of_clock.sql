-- outbox.ahead_of_clock: streams whose last position is later than the clock by a minute or more.
--
-- Called by:  outbox::survey, for `outbox-relay status`.
-- Locks:      none beyond those of any select.
-- Returns:    name, and seconds by which the last position is ahead.
select s.name, (l.ms / 1000.0 - extract(epoch from clock_timestamp()))::float8 as ahead
from outbox.stream s
cross join lateral (
    select greatest(s.head_ms, coalesce((
        select b.ms from outbox.batch b where b.stream = s.name order by b.last_n desc limit 1), 0)) as ms
) l
where l.ms / 1000.0 - extract(epoch from clock_timestamp()) > 60
order by s.name
