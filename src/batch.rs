//! A sealed run of one stream, and the mark that says it is in Redis.

use std::sync::Arc;

use crate::entry::Entry;
use crate::position::Position;

/// Entries of one stream with consecutive numbers, sealed together; all have the same `ms`.
/// Never empty.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Number of the seal that fixed it.
    pub seal: i64,
    /// Name of the stream.
    pub stream: Arc<str>,
    /// Number of its first entry.
    pub first_n: u64,
    /// Milliseconds of all its positions.
    pub ms: u64,
    /// Its entries, in order.
    pub entries: Vec<Entry>,
}

impl Batch {
    /// Number of its last entry.
    pub fn last_n(&self) -> u64 {
        self.first_n + self.entries.len() as u64 - 1
    }

    /// Position of its last entry.
    pub fn last(&self) -> Position {
        Position { ms: self.ms, n: self.last_n() }
    }

    /// The mark that says all of it is in Redis.
    pub fn mark(&self) -> Mark {
        Mark { seal: self.seal, stream: self.stream.clone(), last_n: self.last_n() }
    }
}

/// Names a batch that is known to be in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Number of the seal that fixed the batch.
    pub seal: i64,
    /// Name of the stream.
    pub stream: Arc<str>,
    /// Number of the batch's last entry.
    pub last_n: u64,
}
