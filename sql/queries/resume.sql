-- outbox.resume: lets a held stream flow again.
--
-- Called by:  outbox::hold, for `outbox-relay resume`.
-- Locks:      the row of the stream.
-- Parameters: $1 stream.
-- Returns:    whether somebody held it; no row if there is no such stream.
with before as materialized (
    select s.paused_at is not null as was from outbox.stream s where s.name = $1
), freed as (
    update outbox.stream s set paused_at = null, paused_by = null
    where s.name = $1 and s.paused_at is not null
)
select was from before
