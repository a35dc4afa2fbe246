//! What must hold, checked at every step against what writers and consumers noted down themselves.
//!
//! `tests/README.md` lists the invariants; I10 is about real processes and left to the swarm.

mod groups;
mod log;
mod losses;
mod streams;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::postgres::{Facts, Fate, Stream as LogStream};
use super::redis::{Redis, Stream};
use crate::batch::Batch;
use crate::outbox::State;
use crate::position::Position;
use crate::stream::Append;

/// A loss that goes unnoticed for longer is one that goes unnoticed, in milliseconds.
const NOTICED_MS: u64 = 6_000;
/// A request that takes longer is given up by whoever sent it, in milliseconds.
const ON_ITS_WAY_MS: u64 = 10_000;

type Name = Arc<str>;

/// What a writer wrote.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) stream: Name,
    /// Its key, and its place among those of the key, where the writer's lock defines one.
    pub(crate) key: Option<(String, u64)>,
    pub(crate) committed: bool,
}

/// What one consumer group was given, and what it has acknowledged, as its consumers know it.
#[derive(Debug, Default)]
struct Reader {
    given: BTreeSet<Uuid>,
    acknowledged: BTreeSet<Uuid>,
    /// Acknowledged as of the checkpoint that a loss goes back to: not to be given again,
    settled: BTreeSet<Uuid>,
    /// once the relay has had the time to put the group back, in milliseconds.
    settled_ms: u64,
    /// What it had done before somebody set it back, and has not yet done again.
    again: BTreeSet<Uuid>,
    /// It is lost, and no checkpoint knows it.
    is_away: bool,
    /// When it began, if there was something before it, in milliseconds.
    late_ms: Option<u64>,
}

/// Redis lost something of a stream.
#[derive(Clone, Debug)]
struct Loss {
    at_ms: u64,
    /// It has the stream up to here still.
    left: u64,
    /// What nobody needs is nobody's loss.
    floor: u64,
    /// The log says that it had it up to here.
    marked: u64,
    /// It can have had it up to here at most.
    had: u64,
    /// Somebody must have said so by then, if nothing more was lost meanwhile, in milliseconds.
    due_ms: u64,
    /// It has all of it again since then.
    healed_ms: Option<u64>,
    /// The relay said so.
    reported: bool,
    /// Postgres lost something as well, so that nobody may know.
    excused: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Oracle {
    broken: Option<String>,
    events: BTreeMap<Uuid, Event>,
    readers: BTreeMap<(Name, String), Reader>,
    /// What every position was given to.
    sealed: BTreeMap<(Name, Position), Uuid>,
    /// Seals that Postgres lost, with the events that they were given to.
    vanished: BTreeMap<(Name, Position), Uuid>,
    /// The highest number of a stream that was stored as one that nobody needs.
    floors: BTreeMap<Name, u64>,
    last_of_key: BTreeMap<(Name, String), u64>,
    losses: BTreeMap<Name, Vec<Loss>>,
    /// The highest number of a stream that Redis ever had.
    highest: BTreeMap<Name, u64>,
    /// Streams of which Redis has lost something in this run.
    lossy: BTreeSet<Name>,
    /// Redis held something else at least once.
    pub(crate) emptied: bool,
    /// Until then something keeps relays from noticing anything, in milliseconds.
    troubled_ms: u64,
    pub(crate) counts: Counts,
}

/// What a run consisted of.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) committed: u64,
    pub(crate) appended: u64,
    pub(crate) losses: u64,
    pub(crate) reports: u64,
}

impl Oracle {
    /// The first invariant that was broken, with a sentence.
    pub(crate) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub(crate) fn violated(&mut self, invariant: &str, sentence: &str) {
        self.broken.get_or_insert_with(|| format!("{invariant} broken: {sentence}"));
    }

    fn must(&mut self, holds: bool, invariant: &str, sentence: impl FnOnce() -> String) {
        if !holds {
            self.violated(invariant, &sentence());
        }
    }

    // ---- writers ----

    pub(crate) fn wrote(&mut self, event: Uuid, stream: &Name, key: Option<(String, u64)>) {
        self.events.insert(event, Event { stream: stream.clone(), key, committed: false });
    }

    pub(crate) fn committed(&mut self, event: Uuid) {
        self.counts.committed += 1;
        if let Some(event) = self.events.get_mut(&event) {
            event.committed = true;
        }
    }

    // ---- Postgres loses what it had committed ----

    pub(crate) fn postgres_lost(&mut self, before: &Facts, after: &Facts) {
        for ((name, at), event) in std::mem::take(&mut self.sealed) {
            let log = after.streams.get(&name);
            let is_kept = log
                .is_some_and(|log| at <= log.purged || sealed_event(after, log, at) == Some(event));
            match is_kept {
                true => self.sealed.insert((name, at), event),
                false => self.vanished.insert((name, at), event),
            };
        }
        let kept = self.kept(after);
        for (event, known) in &mut self.events {
            known.committed &= kept.contains(event);
        }
        self.last_of_key.clear();
        for log in after.streams.values() {
            for (_, id) in log.log() {
                let sealed = after.rows.get(&id).map(|row| row.entry.event_id);
                let key = sealed.and_then(|event| self.events.get(&event));
                if let Some(Event { stream, key: Some((key, number)), .. }) = key {
                    self.last_of_key.insert((stream.clone(), key.clone()), *number);
                }
            }
        }
        let names: BTreeSet<Name> = before.streams.keys().cloned().collect();
        let changed = |name: &&Name| before.streams.get(*name) != after.streams.get(*name);
        for name in names.iter().filter(changed) {
            let losses = self.losses.get_mut(name).into_iter().flatten();
            losses.for_each(|loss| loss.excused = true);
            self.unsettle(name);
        }
    }

    /// Postgres lost history, and what had been on its way to Redis arrived after the relay had gone on: the
    /// stream halts, and `rebuild` is the exit.
    pub(crate) fn needs_a_person(&self, stream: &Name, log: &LogStream, redis: &Redis) -> bool {
        let halted = log.told.as_ref().is_some_and(|(state, _)| *state == State::Halted);
        let held = redis.held.streams.get(stream).filter(|_| halted);
        held.is_some_and(|held| {
            let places = held.entries.keys().chain([&held.last]);
            let mut unlisted = places.filter(|at| !log.phantoms.contains(at));
            unlisted.any(|at| self.vanished.contains_key(&(stream.clone(), *at)))
        })
    }

    // ---- the end ----

    /// All is quiet: streams, log and journals must say the same.
    pub(crate) fn finish(&mut self, facts: &Facts, redis: &Redis, now_ms: u64) {
        self.log_is_complete(facts);
        self.journal_is_kept(facts);
        let mut halted = BTreeSet::new();
        for (name, log) in &facts.streams {
            if self.needs_a_person(name, log, redis) {
                halted.insert(name.clone());
                continue;
            }
            match redis.held.streams.get(name) {
                Some(stream) => self.stream_is_the_log(facts, name, log, stream),
                None => {
                    self.must(log.sealed().n <= log.floor().n, "I1", || {
                        format!("no stream {name}")
                    });
                }
            }
            self.everything_is_acknowledged(facts, name, log, redis);
        }
        self.losses_are_reported(now_ms, &halted);
    }
}

/// The event that the log has at a position.
fn sealed_event(facts: &Facts, log: &LogStream, at: Position) -> Option<Uuid> {
    let (_, batch) = log.batches.range(at.n..).next()?;
    let index = at.n.checked_sub(batch.first_n)?;
    let id = batch.ids.get(index as usize).filter(|_| batch.ms == at.ms)?;
    facts.rows.get(id).map(|row| row.entry.event_id)
}
