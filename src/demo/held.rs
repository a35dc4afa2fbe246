//! What Redis held at one moment, and how much of it was still needed.

use std::collections::HashSet;

use super::journal::STREAMS;
use super::streams::Entry;
use crate::position::Position;
use crate::text::grouped;

/// Both streams, in the order of [`STREAMS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) streams: [HeldStream; STREAMS.len()],
}

/// One stream, and where the group of the workers was in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HeldStream {
    pub(super) entries: Vec<Entry>,
    /// The last entry that the group was given.
    pub(super) delivered: Position,
    /// What it was given and had not acknowledged.
    pub(super) pending: HashSet<Position>,
}

impl HeldStream {
    fn is_acknowledged(&self, entry: &Entry) -> bool {
        entry.position <= self.delivered && !self.pending.contains(&entry.position)
    }

    /// Entries that the group had not acknowledged: what must not be lost.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| !self.is_acknowledged(entry))
    }
}

impl Held {
    /// Only what came after these positions.
    pub(super) fn after(mut self, last: &[Position; STREAMS.len()]) -> Self {
        for (stream, last) in self.streams.iter_mut().zip(last) {
            stream.entries.retain(|entry| entry.position > *last);
        }
        self
    }

    /// How many entries of each stream.
    pub(super) fn lengths(&self) -> [u64; STREAMS.len()] {
        self.streams.each_ref().map(|stream| stream.entries.len() as u64)
    }

    pub(super) fn total(&self) -> u64 {
        self.lengths().iter().sum()
    }

    /// How many entries of each stream the group had not acknowledged.
    pub(super) fn needed(&self) -> [u64; STREAMS.len()] {
        self.streams.each_ref().map(|stream| stream.unacknowledged().count() as u64)
    }

    pub(super) fn total_needed(&self) -> u64 {
        self.needed().iter().sum()
    }

    /// How many entries of each stream, and how far the workers are with them.
    pub(super) fn describe(&self) -> String {
        let unread = |stream: &HeldStream| {
            stream.entries.iter().filter(|entry| entry.position > stream.delivered).count() as u64
        };
        let unread: u64 = self.streams.iter().map(unread).sum();
        let (all, needed) = (self.total(), self.total_needed());
        let [unread, given, done] = [unread, needed - unread, all - needed].map(grouped);
        let each = of_each(self.lengths());
        format!("{each}; {unread} not read yet, {given} with a worker, {done} acknowledged")
    }

    /// The event of an entry that was still needed.
    pub(super) fn example(&self) -> Option<&str> {
        let needed = self.streams.iter().flat_map(HeldStream::unacknowledged);
        needed.map(|entry| entry.event_id.as_str()).next()
    }
}

/// Counts of each stream, as `12 of orders, 7 of payments`.
pub(super) fn of_each(counts: [u64; STREAMS.len()]) -> String {
    let of = |(stream, count): (&str, u64)| format!("{} of {stream}", grouped(count));
    STREAMS.into_iter().zip(counts).map(of).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(n: u64) -> Position {
        Position { ms: 1, n }
    }

    /// Entries 3 to 8 of orders, of which 4 and 5 are pending and 7 and 8 not given.
    fn held() -> Held {
        let entry = |n| Entry { position: at(n), event_id: format!("event-{n}") };
        let orders = HeldStream {
            entries: (3..=8).map(entry).collect(),
            delivered: at(6),
            pending: HashSet::from([at(4), at(5)]),
        };
        Held { streams: [orders, HeldStream::default()] }
    }

    #[test]
    fn what_was_not_given_or_is_pending_is_needed() {
        let held = held();
        assert_eq!((held.lengths(), held.needed()), ([6, 0], [4, 0]));
        assert_eq!(held.example(), Some("event-4"));
        let text = "6 of orders, 0 of payments; 2 not read yet, 2 with a worker, 2 acknowledged";
        assert_eq!(held.describe(), text);
    }

    #[test]
    fn what_a_snapshot_has_does_not_come_after_it() {
        let held = held().after(&[at(4), at(9)]);
        assert_eq!((held.lengths(), held.needed()), ([4, 0], [3, 0]));
    }
}
