//! What Redis holds, looked at key by key and judged by a team's own rules: whose each key is, whether it has
//! a time to go, whether it is too big, and whether Redis is set to keep what must not be lost.
//!
//! It goes through all keys in small steps and rests between them; no value is read.
//!
//! | file | noun |
//! |---|---|
//! | `rules` | what a team says of its keys (pure) |
//! | `file` | the file that says it (pure) |
//! | `judge` | whether a key, a stream and a server are so (pure) |
//! | `finding`, `tally` | what is wrong, why, and what mends it; all of it so far (pure) |
//! | `search` | the way through all keys, and the removal of what is stale |

use std::collections::HashSet;

use serde::Serialize;

use self::search::Search;
use crate::error::Error;
use crate::stream::{Redis, Server};

mod file;
mod finding;
mod judge;
mod rules;
mod search;
mod tally;

pub use file::{EXAMPLE, LARGEST};
pub use finding::{Example, Fault, Finding};
#[cfg(test)]
pub(crate) use judge::Found;
pub use judge::bytes;
pub use rules::{Kind, Rule, Rules};
pub(crate) use tally::Tally;

/// Names of what was removed that a review keeps; more are only counted.
const NAMES: usize = 10_000;

/// How a review goes about it.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What the team says.
    pub rules: Rules,
    /// Keys looked at, at most; of a cluster, each primary has its share.
    pub keys: u64,
    /// What becomes of what is stale and may be removed.
    pub removal: Removal,
}

/// What becomes of what a rule says may be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removal {
    /// It stays.
    No,
    /// It stays, and is listed.
    Dry,
    /// It is removed.
    Yes,
}

/// What a review found.
#[derive(Debug, Default, Serialize)]
pub struct Review {
    /// Nothing is wrong, and all could be checked that matters.
    pub ok: bool,
    /// Host and port.
    pub redis: String,
    /// Keys looked at.
    pub keys: u64,
    /// Of these the relay's own, and the streams that it fills.
    pub relay_keys: u64,
    /// All keys were looked at.
    pub whole: bool,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// What was removed, or would be.
    pub removed: Removed,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
    /// It came to no end: what it says is of the keys that it had looked at.
    #[serde(skip)]
    pub failed: bool,
}

/// What was removed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// It was not: this is what would be.
    pub dry_run: bool,
    /// Keys.
    pub keys: u64,
    /// Consumers.
    pub consumers: u64,
    /// The first 10,000 of them by name.
    pub names: Vec<String>,
}

impl Review {
    /// How many there are of each fault, also of those that were not found.
    pub fn counts(&self) -> [(Fault, u64); Fault::ALL.len()] {
        Fault::ALL.map(|fault| {
            let found = self.findings.iter().filter(|finding| finding.finding == fault);
            (fault, found.map(|finding| finding.count).sum())
        })
    }
}

impl Removed {
    fn name(&mut self, name: String) {
        if self.names.len() < NAMES {
            self.names.push(name);
        }
    }
}

/// Looks at all of Redis. `relays` are names of streams that the relay fills, None if nobody knows: then
/// those that look like it are taken for the relay's. `progress` is told how many keys of how many are done.
pub async fn review(
    server: &Server,
    wish: &Wish,
    relays: Option<&[String]>,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Review {
    let mut review = Review { redis: server.name(), ..Review::default() };
    review.removed.dry_run = wish.removal == Removal::Dry;
    let mut tally = Tally::default();
    let looked = look(server, wish, relays, &mut review, &mut tally, progress).await;
    if let Err(error) = looked {
        (review.whole, review.failed) = (false, true);
        review.unchecked.push(error.to_string());
    }
    review.findings = tally.findings(&wish.rules);
    review.ok = review.findings.is_empty() && review.unchecked.is_empty();
    review
}

async fn look(
    server: &Server,
    wish: &Wish,
    relays: Option<&[String]>,
    review: &mut Review,
    tally: &mut Tally,
    progress: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<(), Error> {
    let redis = server.connect().await?;
    server.check_rights_of_review(&redis).await?;
    let all = look_at_servers(&redis, wish, relays, review, tally).await?;
    let key_of = |stream: &String| redis.key(stream).into_bytes();
    let relays: Option<HashSet<Vec<u8>>> = relays.map(|names| names.iter().map(key_of).collect());
    let mut search = Search { redis: &redis, wish, relays, review, tally };
    search.all(all, progress).await
}

/// Judges the settings of each primary. Returns how many keys they have together.
async fn look_at_servers(
    redis: &Redis,
    wish: &Wish,
    relays: Option<&[String]>,
    review: &mut Review,
    tally: &mut Tally,
) -> Result<u64, Error> {
    let has_relay = relays.is_some_and(|streams| !streams.is_empty());
    let mut all = 0;
    for instance in redis.instances().await? {
        for (fault, seen, fix) in judge::server(&wish.rules, has_relay, &instance) {
            tally.add_server(&instance.name, fault, seen, fix);
        }
        if instance.policy.ends_with("-lfu") && judge::needs_untouched(&wish.rules) {
            review.unchecked.push(format!(
                "since when keys are untouched: Redis at {} does not keep that with maxmemory-policy {}, so \
                 stale_after has no effect",
                instance.name, instance.policy
            ));
        }
        all += instance.keys;
    }
    Ok(all)
}
