-- outbox.leadership: who may seal, and for how long.
--
-- Called by:  outbox::survey, for `outbox-relay status`.
-- Locks:      none: a sequence has no row lock.
-- Returns:    token, holder and begin of the current term, and the seconds until its lease ends,
--             negative once it has ended.
select l.token, l.holder, l.taken_at,
       (coalesce(pg_sequence_last_value('outbox.lease_until'), 0) / 1000.0
           - extract(epoch from clock_timestamp()))::float8 as remaining
from outbox.lease l
where l.ended_at is null
