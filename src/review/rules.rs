//! What a team says of the keys in its Redis: whose they are, what for, how long and how big. Pure.

use std::time::Duration;

/// All rules, those first that name a key most exactly.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Vec<Rule>);

/// What a team says of some of its keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Which keys: one, or, with a `*` at the end, all that begin so.
    pub keys: String,
    /// Who answers for them.
    pub owner: String,
    /// What they are there for.
    pub purpose: String,
    /// What they are.
    pub kind: Kind,
    /// They expire within this time; None for those that may stay.
    pub longest_expiry: Option<Duration>,
    /// Bytes of memory that one takes, at most.
    pub biggest: u64,
    /// They must survive a crash of Redis.
    pub durable: bool,
    /// Of a queue: entries that it holds at most.
    pub limit: Option<u64>,
    /// Of a queue: nothing is pending for longer, and no consumer is away for longer.
    pub longest_idle: Option<Duration>,
    /// When one that does not expire in time is stale: once nobody has touched it for this long.
    pub stale_after: Option<Duration>,
    /// What is stale may be removed: keys, or, of a queue, consumers that are away.
    pub remove: bool,
}

/// What keys are: it decides what is asked of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Somebody works on something as long as it is there: it must expire, and not vanish before.
    Lock,
    /// Can be computed again: it must expire, and may vanish at any time.
    Cache,
    /// Counts: it must expire, and not vanish before.
    Counter,
    /// Holds work: a stream or a list, which need not expire.
    Queue,
    /// Anything else.
    Data,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Lock, Self::Cache, Self::Counter, Self::Queue, Self::Data];

    /// As rules name it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Cache => "cache",
            Self::Counter => "counter",
            Self::Queue => "queue",
            Self::Data => "data",
        }
    }
}

impl Rule {
    /// Keys begin so, or are exactly this if nothing may follow.
    fn name(&self) -> (&str, bool) {
        self.keys.strip_suffix('*').map_or((&self.keys, true), |start| (start, false))
    }

    /// Whether it is about this key.
    pub fn covers(&self, key: &[u8]) -> bool {
        match self.name() {
            (name, true) => key == name.as_bytes(),
            (start, false) => key.starts_with(start.as_bytes()),
        }
    }
}

impl Rules {
    /// In the order in which they are asked.
    pub(super) fn new(mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| {
            let (name, exact) = rule.name();
            std::cmp::Reverse((exact, name.len()))
        });
        Self(rules)
    }

    /// The rule of a key: the one that names it whole, or else that with the longest beginning. Returned with
    /// its place among all.
    pub fn of(&self, key: &[u8]) -> Option<(usize, &Rule)> {
        self.0.iter().enumerate().find(|(_, rule)| rule.covers(key))
    }

    /// All rules.
    pub fn all(&self) -> &[Rule] {
        &self.0
    }
}
