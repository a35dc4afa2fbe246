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
    /// Rows and log have been purged up to here.
    pub purged: Position,
    /// What the canary said at the latest checkpoint: which life of Redis, and how far it had got.
    pub canary: Option<(String, u64)>,
    /// When that was, in microseconds since 1970 by the clock of Postgres; 0 if there is no checkpoint.
    pub checkpointed_us: i64,
    /// Redis has lost something of it, and its consumer groups are not back yet.
    pub groups_lost: bool,
    /// What people were last told, and why.
    pub told: (State, Option<String>),
}

/// What the relay tells people of a stream. That somebody holds it is not for the relay to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It flows.
    Active,
    /// Redis lost entries; they are being put back.
    Rebuilding,
    /// Redis takes no writes now.
    Full,
    /// Somebody must act.
    Halted,
}

impl State {
    const ALL: [Self; 4] = [Self::Active, Self::Rebuilding, Self::Full, Self::Halted];

    /// As `outbox.stream_status` shows it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Rebuilding => "rebuilding",
            Self::Full => "full",
            Self::Halted => "halted",
        }
    }

    pub(super) fn read(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// A new state of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Name of the stream.
    pub stream: Arc<str>,
    /// The state.
    pub state: State,
    /// Why, in one sentence that names the remedy; None for [`State::Active`].
    pub reason: Option<String>,
}
