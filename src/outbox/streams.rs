//! The table of streams: where each stands, and its state for people.

use std::sync::Arc;

use crate::position::Position;

/// Where a stream stands in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Name of the stream.
    pub stream: Arc<str>,
    /// Position of the last sealed entry.
    pub sealed: Position,
    /// Last number marked dispatched.
    pub dispatched: u64,
    /// Every consumer group has acknowledged up to here.
    pub floor: Position,
}

/// A new state of a stream: `active`, `rebuilding`, `full`, `paused` or `halted`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Name of the stream.
    pub stream: Arc<str>,
    /// The state.
    pub state: &'static str,
    /// Why, in one sentence that names the remedy; None for `active`.
    pub reason: Option<String>,
}
