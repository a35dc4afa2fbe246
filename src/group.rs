//! A consumer group as a value: where it is, and what it has not acknowledged.

use serde::{Deserialize, Serialize};

use crate::position::Position;

/// A consumer group of a stream, as it was at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name; bytes that are no text, as `\x` and hexadecimal digits.
    pub name: String,
    /// The last entry that it was given, or where somebody has set it to.
    pub delivered: Position,
    /// Entries read so far, where the server counts them (7.0 and later).
    pub read: Option<u64>,
    /// Number of the last entry that it was given.
    pub given: u64,
    /// Number up to which it has acknowledged every entry that is there.
    pub floor: u64,
    /// Entries that it was given and has not acknowledged.
    pub waiting: u64,
    /// These entries, in order; None if they are more than a checkpoint holds.
    pub pending: Option<Vec<Pending>>,
    /// Of the first of these entries, how many are no longer in the stream.
    #[serde(default)]
    pub dangling: u64,
    /// Milliseconds since one of its consumers last asked for entries; None if it has none, or nothing
    /// to do.
    #[serde(skip)]
    pub idle_ms: Option<u64>,
}

/// An entry that a group was given and has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The entry.
    pub position: Position,
    /// Which consumer has it.
    pub consumer: String,
    /// When it was last given, in milliseconds since 1970 by the clock of Redis.
    pub given_ms: u64,
    /// How often it was given.
    pub deliveries: u64,
}

impl Group {
    /// As it would be in a stream that ends with `last`: what lies behind is not ours, or came while it
    /// was being looked at.
    pub fn within(mut self, last: Position) -> Self {
        if self.delivered > last {
            self.delivered = last;
            self.given = self.given.min(last.n);
            self.read = self.read.map(|_| self.given);
        }
        self.floor = self.floor.min(last.n);
        if let Some(pending) = &mut self.pending {
            pending.retain(|pending| pending.position <= last);
            self.waiting = pending.len() as u64;
        }
        self.idle_ms = None;
        self
    }

    /// The last entry that it has to be given back: one that was set back may have some behind its position.
    pub fn reach(&self) -> Position {
        let pending = self.pending.as_ref().and_then(|pending| pending.last());
        pending.map_or(self.delivered, |last| last.position.max(self.delivered))
    }

    /// The same, but for times, which are derived from ages and not the same twice.
    pub fn hash_into(&self, state: &mut impl std::hash::Hasher) {
        use std::hash::Hash as _;
        (&self.name, self.delivered, self.read, self.floor, self.waiting).hash(state);
        for pending in self.pending.iter().flatten() {
            (pending.position, &pending.consumer, pending.deliveries).hash(state);
        }
    }

    /// Entries that it has not acknowledged in a stream that ends with number `last`.
    pub fn lag(&self, last: u64) -> u64 {
        last.saturating_sub(self.given) + self.waiting
    }

    /// Whether it has acknowledged the entry at `position`; None if too many wait to know.
    pub fn acknowledged(&self, position: Position) -> Option<bool> {
        if position > self.delivered {
            return Some(false);
        }
        if position.n <= self.floor {
            return Some(true);
        }
        let pending = self.pending.as_ref()?;
        let found = pending.binary_search_by_key(&position, |pending| pending.position);
        Some(found.is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(n: u64) -> Position {
        Position { ms: 10 * n, n }
    }

    fn pending(n: u64) -> Pending {
        Pending { position: at(n), consumer: "c".into(), given_ms: n, deliveries: 1 }
    }

    fn group() -> Group {
        Group {
            name: "mail".into(),
            delivered: at(9),
            read: Some(9),
            given: 9,
            floor: 3,
            waiting: 2,
            pending: Some(vec![pending(4), pending(7)]),
            ..Group::default()
        }
    }

    #[test]
    fn tells_what_it_has_acknowledged() {
        let group = group();
        let told = |n| group.acknowledged(at(n));
        assert_eq!(
            [3, 4, 5, 7, 9, 10].map(told),
            [true, false, true, false, true, false].map(Some)
        );
        assert_eq!(group.lag(12), 5);
        let many = Group { pending: None, ..group };
        assert_eq!([3, 4, 10].map(|n| many.acknowledged(at(n))), [Some(true), None, Some(false)]);
    }

    #[test]
    fn one_that_was_set_back_reaches_as_far_as_what_it_was_given() {
        assert_eq!(group().reach(), at(9));
        assert_eq!(Group { delivered: at(2), ..group() }.reach(), at(7));
    }

    #[test]
    fn what_lies_behind_the_end_is_cut_off() {
        let within = group().within(at(5));
        assert_eq!((within.delivered, within.given, within.floor), (at(5), 5, 3));
        assert_eq!((within.pending, within.waiting), (Some(vec![pending(4)]), 1));
        assert_eq!(group().within(at(9)), group());
    }
}
