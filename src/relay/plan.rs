//! Which position each row gets. Pure.

use std::collections::HashMap;
use std::sync::Arc;

use super::partition::Partitions;
use crate::batch::Batch;
use crate::entry::Entry;
use crate::position::Position;

/// The last position given out, per Redis stream, and which of these a row goes to.
#[derive(Debug, Default)]
pub struct Heads {
    last: HashMap<Arc<str>, Position>,
    partitions: Partitions,
}

/// Rows with their positions.
#[derive(Debug)]
pub struct Plan {
    /// One batch per stream, in the order in which streams first occur.
    pub batches: Vec<Batch>,
    /// Streams that had no head.
    pub new_streams: Vec<Arc<str>>,
}

impl Heads {
    /// Those of a term that begins: its positions are later than all that the log knows, also where the
    /// clock stands still. Otherwise a seal that Postgres lost in a failover, and whose entries are on
    /// their way to Redis, could have given the same position to another row.
    pub fn of_new_term(heads: impl IntoIterator<Item = (Arc<str>, Position)>) -> Self {
        let later = |at: Position| Position { ms: at.ms + u64::from(at != Position::START), ..at };
        let last = heads.into_iter().map(|(stream, at)| (stream, later(at))).collect();
        Self { last, partitions: Partitions::default() }
    }

    /// From now on the rows of `stream` go to `count` partitions.
    pub fn split(&mut self, stream: &Arc<str>, count: u32) {
        self.partitions.set(stream, count);
    }

    /// The Redis streams that rows of `stream` go to now, with the last position of each.
    pub fn ends(&self, stream: &Arc<str>) -> Vec<(Arc<str>, Position)> {
        let last = |name: &Arc<str>| self.last.get(name).copied().unwrap_or(Position::START);
        let names = self.partitions.names(stream).into_iter();
        names.map(|name| (name.clone(), last(&name))).collect()
    }

    /// Gives each row the next number of its stream, in the order of the rows, and `clock_ms` or
    /// what the stream had last, whichever is later: numbers are dense and positions only grow,
    /// whatever the clock does.
    pub fn plan(&mut self, seal: i64, entries: Vec<Entry>, clock_ms: u64) -> Plan {
        let mut plan = Plan { batches: Vec::new(), new_streams: Vec::new() };
        let mut at: HashMap<Arc<str>, usize> = HashMap::new();
        for entry in entries {
            let stream = self.partitions.of(&entry);
            let index = *at.entry(stream.clone()).or_insert_with(|| {
                let head = self.last.get(stream).copied();
                if head.is_none() {
                    plan.new_streams.push(stream.clone());
                }
                let head = head.unwrap_or(Position::START);
                plan.batches.push(Batch {
                    seal,
                    stream: stream.clone(),
                    first_n: head.n + 1,
                    ms: clock_ms.max(head.ms),
                    entries: Vec::new(),
                });
                plan.batches.len() - 1
            });
            plan.batches[index].entries.push(entry);
        }
        for batch in &plan.batches {
            self.last.insert(batch.stream.clone(), batch.last());
        }
        plan
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, stream: &str) -> Entry {
        Entry {
            id,
            event_id: uuid::Uuid::nil(),
            stream: stream.into(),
            key: None,
            kind: None,
            payload: "{}".into(),
            headers: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn numbers_are_dense_per_stream_and_keep_the_order_of_rows() {
        let mut heads = Heads::of_new_term([("a".into(), Position { ms: 5, n: 7 })]);
        let plan = heads.plan(3, vec![row(1, "a"), row(4, "b"), row(9, "a")], 10);
        let (a, b) = (&plan.batches[0], &plan.batches[1]);
        assert_eq!((a.first_n, a.last()), (8, Position { ms: 10, n: 9 }));
        assert_eq!(a.entries.iter().map(|e| e.id).collect::<Vec<_>>(), [1, 9]);
        assert_eq!((b.first_n, b.last_n()), (1, 1));
        assert_eq!(plan.new_streams, [Arc::<str>::from("b")]);
        let next = heads.plan(4, vec![row(10, "b")], 11);
        assert_eq!((next.batches[0].first_n, next.new_streams.len()), (2, 0));
    }

    #[test]
    fn a_clock_that_goes_back_does_not_take_positions_back() {
        let mut heads = Heads::default();
        heads.plan(1, vec![row(1, "a")], 1_000);
        let plan = heads.plan(2, vec![row(2, "a")], 10);
        assert_eq!(plan.batches[0].last(), Position { ms: 1_000, n: 2 });
    }

    #[test]
    fn a_new_term_gives_no_position_that_a_lost_seal_may_have_given() {
        let mut heads = Heads::of_new_term([("a".into(), Position { ms: 1_000, n: 7 })]);
        let plan = heads.plan(2, vec![row(2, "a")], 10);
        assert_eq!(plan.batches[0].last(), Position { ms: 1_001, n: 8 });
    }
}
