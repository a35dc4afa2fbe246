-- outbox.read_entries: rows by their ids, in id order.
--
-- Called by:  outbox::find, for rows that the scrub found missing in the log.
-- Locks:      none beyond those of any select.
-- Parameters: $1 ids.
select e.id, e.event_id, e.stream, e.key, e.type, e.payload::text as payload, e.headers::text as headers,
       e.created_at
from outbox.entry e
where e.id = any ($1::bigint[])
order by e.id
