-- outbox.nets: rows for which no leaf was attached in time.
--
-- Called by:  outbox::schema, for `outbox-relay doctor`.
-- Locks:      none beyond those of any select. The statements it returns wait for those who use the net,
--             and are run by the owner of the schema.
-- Returns:    per net that is not empty: its name, and statements that move its rows into a leaf of their
--             own. Its range ends where the next leaf begins, so that it takes also what is still to come
--             before that.
with net as (
    select 'entry' as tree, 'id' as part, '' as options,
           (select min(e.id) from outbox.entry_net e) as low,
           (select max(e.id) from outbox.entry_net e) as high
    union all
    select 'seal', 'seal', '',
           (select min(s.seal) from outbox.seal_net s), (select max(s.seal) from outbox.seal_net s)
    union all
    select 'batch', 'seal', ' with (fillfactor = 80, toast_tuple_target = 256)',
           (select min(b.seal) from outbox.batch_net b), (select max(b.seal) from outbox.batch_net b)
), ranged as (
    select n.*, coalesce((select min(l.lower) from outbox.leaf l where l.tree = n.tree and l.lower > n.low),
                         n.high + 1) as upper
    from net n
    where n.low is not null
)
select format('outbox.%s_net', r.tree) as name,
       format('begin; '
              'lock table outbox.leaf in share row exclusive mode; '
              'lock table outbox.%1$s_net in access exclusive mode; '
              'create table outbox.%1$s_%2$s (like outbox.%1$s including defaults including storage)%5$s; '
              'insert into outbox.%1$s_%2$s select * from outbox.%1$s_net where %4$s < %3$s; '
              'delete from outbox.%1$s_net where %4$s < %3$s; '
              'alter table outbox.%1$s attach partition outbox.%1$s_%2$s for values from (%2$s) to (%3$s); '
              'insert into outbox.leaf (tree, lower, upper, name) '
              'values (''%1$s'', %2$s, %3$s, ''%1$s_%2$s''); '
              'commit',
              r.tree, r.low, r.upper, r.part, r.options) as remedy
from ranged r
