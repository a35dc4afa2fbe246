-- outbox.phantoms: how many entries in Redis have lost their rows, by stream.
--
-- Called by:  outbox::survey, for `outbox-relay status`.
-- Locks:      none beyond those of any select.
select p.stream, count(*) as entries, max(p.found_at) as found_at
from outbox.phantom p
group by p.stream
order by p.stream
