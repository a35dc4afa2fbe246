//! What is wrong, why it matters, and what mends it. Pure.

use serde::Serialize;

use super::rules::Rule;
use crate::text::age;

/// Keys named in one finding; more are only counted.
pub(super) const NAMED: usize = 5;

/// What can be wrong; the order is that of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// Redis may evict what must not vanish.
    Eviction,
    /// A crash of Redis loses what must survive it.
    Persistence,
    /// Redis may take all memory there is.
    MemoryLimit,
    /// A lock does not expire as its rule says.
    StaleLock,
    /// Entries were given to a consumer and not acknowledged for too long.
    StaleEntries,
    /// A consumer has been away for too long.
    IdleConsumer,
    /// A key does not expire in time, and nobody has touched it for long.
    StaleKey,
    /// A key never expires, and its rule says that it must.
    NoExpiry,
    /// A key expires later than its rule says.
    LongExpiry,
    /// A key takes more memory than its rule says.
    BigValue,
    /// A queue holds more than its rule says.
    LongQueue,
    /// Nothing says how long a stream may grow.
    UnlimitedStream,
    /// No rule is about a key.
    NoOwner,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Eviction,
        Self::Persistence,
        Self::MemoryLimit,
        Self::StaleLock,
        Self::StaleEntries,
        Self::IdleConsumer,
        Self::StaleKey,
        Self::NoExpiry,
        Self::LongExpiry,
        Self::BigValue,
        Self::LongQueue,
        Self::UnlimitedStream,
        Self::NoOwner,
    ];

    /// One word for tables, metrics and logs: the same as in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eviction => "eviction",
            Self::Persistence => "persistence",
            Self::MemoryLimit => "memory_limit",
            Self::StaleLock => "stale_lock",
            Self::StaleEntries => "stale_entries",
            Self::IdleConsumer => "idle_consumer",
            Self::StaleKey => "stale_key",
            Self::NoExpiry => "no_expiry",
            Self::LongExpiry => "long_expiry",
            Self::BigValue => "big_value",
            Self::LongQueue => "long_queue",
            Self::UnlimitedStream => "unlimited_stream",
            Self::NoOwner => "no_owner",
        }
    }
}

/// A key that has a fault, or a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Its name, quoted as redis-cli does where it has odd characters.
    pub key: String,
    /// What was seen of it.
    pub seen: String,
}

/// Everything that has one fault under one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What is wrong.
    pub finding: Fault,
    /// The keys of the rule; None if there is none.
    pub rule: Option<String>,
    /// Who answers for them.
    pub owner: Option<String>,
    /// How many there are: keys, of stale entries and consumers these, or servers.
    pub count: u64,
    /// Memory that the keys take together, about.
    pub bytes: u64,
    /// A few of them.
    pub examples: Vec<Example>,
    /// Why it matters.
    pub why: String,
    /// What mends it: for the first example where it is a command.
    pub fix: String,
}

/// Why a fault of keys matters.
pub(super) fn why(fault: Fault) -> &'static str {
    match fault {
        Fault::StaleLock => {
            "whoever holds it may be dead, and who waits for it then waits for ever, or longer than the rule \
             says; whoever takes it must set an expiry"
        }
        Fault::StaleEntries => {
            "they were given to a worker that has not acknowledged them, and nobody else gets them by itself"
        }
        Fault::IdleConsumer => {
            "a worker that has gone leaves its name behind; they pile up, and hide who is at work"
        }
        Fault::StaleKey => "nobody uses it, it never goes by itself in time, and it takes memory",
        Fault::NoExpiry => {
            "it never goes by itself, so keys like it fill Redis; its writer must set an expiry"
        }
        Fault::LongExpiry => {
            "it stays for longer than its owner says that it is needed; its writer must set less"
        }
        Fault::BigValue => {
            "reading or writing it holds up everybody else, for Redis does one thing at a time"
        }
        Fault::LongQueue => "more comes in than is worked off, or nobody removes what is done",
        Fault::UnlimitedStream => {
            "nothing says when it is too long, and entries stay until they are removed"
        }
        Fault::NoOwner => {
            "nobody can say whether it is needed, nor for how long; once it expires, whoever misses it is \
             known"
        }
        Fault::Eviction => "Redis drops keys when memory is short, whether they are needed or not",
        Fault::Persistence => {
            "a rule says durable, and a crash of Redis loses what was written last, or all"
        }
        Fault::MemoryLimit => {
            "where the machine has no more memory the kernel kills Redis; with a limit it refuses writes, or \
             evicts what may go"
        }
    }
}

/// What mends a fault of keys; `key` is the first of them.
pub(super) fn fix(fault: Fault, rule: Option<&Rule>, key: &str) -> String {
    let longest = rule.and_then(|rule| rule.longest_expiry).unwrap_or_default();
    let expire = format!("EXPIRE {key} {}", longest.as_secs());
    let after = rule.and_then(|rule| rule.stale_after).unwrap_or_default();
    let removes = rule.is_some_and(|rule| rule.remove);
    let review = "outbox-relay review --remove";
    match fault {
        Fault::StaleLock | Fault::StaleKey if removes => {
            format!("{review}: it removes what has been untouched for {}", age(after))
        }
        Fault::StaleLock | Fault::NoExpiry | Fault::LongExpiry => expire,
        Fault::StaleKey => format!("UNLINK {key}"),
        Fault::StaleEntries => {
            let idle = rule.and_then(|rule| rule.longest_idle).unwrap_or_default();
            format!(
                "let another worker take them over: XAUTOCLAIM {key} GROUP WORKER {} 0",
                idle.as_millis()
            )
        }
        Fault::IdleConsumer if removes => {
            format!("{review}: it removes those for which nothing is pending")
        }
        Fault::IdleConsumer => format!("stale = \"remove\" in the rule, and {review}"),
        Fault::BigValue => "split it over several keys, or raise biggest in the rule".to_owned(),
        Fault::LongQueue => "see who reads it, or raise limit in the rule".to_owned(),
        Fault::UnlimitedStream => {
            let rule = if rule.is_some() { "in the rule" } else { "in a rule for it" };
            format!("kind = \"queue\" and limit {rule}, and XADD … MAXLEN ~ LIMIT in its writer")
        }
        Fault::NoOwner => {
            format!("a rule for it, or, where nobody knows it: EXPIRE {key} 604800")
        }
        // Told with the server that they are about.
        Fault::Eviction | Fault::Persistence | Fault::MemoryLimit => String::new(),
    }
}
