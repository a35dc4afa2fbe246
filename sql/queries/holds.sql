-- outbox.holds: streams that somebody holds or that wait for others, and how streams are split.
--
-- Called by:  outbox::hold, every second while a relay leads, and once before its first seal.
-- Locks:      none beyond those of any select.
-- Returns:    kind `paused` or `gated` with the name of a Redis stream; `split` with that of a stream as rows
--             name it and its partitions; `wanted` with the partitions it is to have; `closing` with the name
--             of a Redis stream that others wait for.
select 'paused' as kind, name, 0 as partitions from outbox.stream where paused_at is not null
union all
select 'gated', stream, 0 from outbox.gated
union all
select 'split', stream, partitions from outbox.partitioning where partitions > 1
union all
select 'wanted', stream, wanted from outbox.partitioning where wanted is not null
union all
select 'closing', o.stream, 0 from outbox.partitioning p, outbox.open_ends(p.closed, p.changed_at) o
