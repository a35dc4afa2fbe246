-- outbox.survey: what waits, stream by stream, and since when.
--
-- Called by:  outbox::survey, every few seconds for metrics, and by `outbox-relay status`.
-- Locks:      none beyond those of any select.
-- Returns:    the columns of the view stream_status, the floor, and the age of the oldest row that waits.
select s.stream, s.sealed, s.dispatched, s.acked, s.purged, coalesce(f.n, 0) as floor,
       s.undispatched, s.oldest_undispatched_at, s.state, s.reason,
       -- GREATEST alone would make a null 0.
       case when s.oldest_undispatched_at is not null then
           greatest(0, extract(epoch from clock_timestamp() - s.oldest_undispatched_at))
       end::float8 as oldest_age
from outbox.stream_status s
left join outbox.floor f on f.stream = s.stream
order by s.stream
