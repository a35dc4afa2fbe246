//! What must hold, checked at every step against what writers and consumers noted down themselves.
//!
//! `tests/README.md` lists the invariants; I10 is about real processes and left to the swarm.

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
pub(super) struct Event {
    pub(super) stream: Name,
    /// Its key, and its place among those of the key, where the writer's lock defines one.
    pub(super) key: Option<(String, u64)>,
    pub(super) committed: bool,
}

/// What one consumer group was given, and what it has acknowledged, as its consumers know it.
#[derive(Debug, Default)]
struct Reader {
    given: BTreeSet<Uuid>,
    acknowledged: BTreeSet<Uuid>,
    /// Acknowledged before the checkpoint that a loss goes back to: not to be given again.
    settled: BTreeSet<Uuid>,
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
pub(super) struct Oracle {
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
    pub(super) emptied: bool,
    /// Until then something keeps relays from noticing anything, in milliseconds.
    troubled_ms: u64,
    pub(super) counts: Counts,
}

/// What a run consisted of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) committed: u64,
    pub(super) appended: u64,
    pub(super) losses: u64,
    pub(super) reports: u64,
}

impl Oracle {
    /// The first invariant that was broken, with a sentence.
    pub(super) fn broken(&self) -> Option<&str> {
        self.broken.as_deref()
    }

    pub(super) fn violated(&mut self, invariant: &str, sentence: &str) {
        self.broken.get_or_insert_with(|| format!("{invariant} broken: {sentence}"));
    }

    fn must(&mut self, holds: bool, invariant: &str, sentence: impl FnOnce() -> String) {
        if !holds {
            self.violated(invariant, &sentence());
        }
    }

    // ---- writers ----

    pub(super) fn wrote(&mut self, event: Uuid, stream: &Name, key: Option<(String, u64)>) {
        self.events.insert(event, Event { stream: stream.clone(), key, committed: false });
    }

    pub(super) fn committed(&mut self, event: Uuid) {
        self.counts.committed += 1;
        if let Some(event) = self.events.get_mut(&event) {
            event.committed = true;
        }
    }

    // ---- sealing: I1, I2, I3, I5 ----

    pub(super) fn sealing(&mut self, facts: &Facts, batches: &[Batch]) {
        for batch in batches {
            let name = &batch.stream;
            let sealed = facts.streams.get(name).map_or(Position::START, LogStream::sealed);
            self.must(batch.first_n == sealed.n + 1 && batch.ms >= sealed.ms, "I5", || {
                format!(
                    "stream {name} is sealed up to {sealed}, then {}-{}",
                    batch.ms, batch.first_n
                )
            });
            for (n, entry) in (batch.first_n..).zip(&batch.entries) {
                let at = Position { ms: batch.ms, n };
                self.sealed.insert((name.clone(), at), entry.event_id);
                let row = facts.rows.get(&entry.id);
                let row = row.filter(|row| row.entry.event_id == entry.event_id);
                self.must(row.is_some_and(|row| row.fate == Fate::Committed), "I2", || {
                    format!("row {} of stream {name} is sealed and was not committed", entry.id)
                });
                self.must(facts.unsealed.contains(&entry.id), "I1", || {
                    format!("row {} of stream {name} is sealed twice", entry.id)
                });
                self.in_order(entry.event_id);
            }
        }
    }

    fn in_order(&mut self, event: Uuid) {
        let Some(Event { stream, key: Some((key, number)), .. }) = self.events.get(&event) else {
            return;
        };
        let (place, number) = ((stream.clone(), key.clone()), *number);
        let before = self.last_of_key.insert(place.clone(), number).unwrap_or(0);
        self.must(before < number, "I3", || {
            format!("{place:?}: number {number} comes after {before}")
        });
    }

    // ---- Redis: I4, I5, I6 ----

    /// Entries were added to a stream.
    pub(super) fn appended(&mut self, now_ms: u64, facts: &Facts, append: &Append) {
        let (name, log) = (&append.stream, facts.streams.get(&append.stream));
        for n in append.expected.n + 1..append.first_n {
            let floor = self.floors.get(name).copied().unwrap_or(0);
            let gone = self.vanished.keys().any(|(stream, at)| stream == name && at.n == n);
            self.must(gone || n <= floor, "I6", || format!("stream {name} leaves out entry {n}"));
        }
        let highest = self.highest.entry(name.clone()).or_default();
        *highest = append.last().n.max(*highest);
        let losses = self.losses.get_mut(name).into_iter().flatten();
        for loss in losses.filter(|loss| append.last().n >= loss.had) {
            loss.healed_ms.get_or_insert(now_ms);
        }
        for ((n, ms), entry) in (append.first_n..).zip(&append.ms).zip(&append.entries) {
            self.counts.appended += 1;
            let at = Position { ms: *ms, n };
            let sealed = log.and_then(|log| sealed_event(facts, log, at));
            let vanished = self.vanished.get(&(name.clone(), at)).copied();
            let is_sealed = [sealed, vanished].contains(&Some(entry.event_id));
            self.must(is_sealed, "I6", || {
                format!("entry {at} of stream {name} is in Redis and not sealed as what it is")
            });
        }
    }

    /// A stream begins or goes on behind `floor`.
    pub(super) fn moved_on(&mut self, stream: &Name, floor: u64) {
        let known = self.floors.get(stream).copied().unwrap_or(0);
        self.must(floor <= known, "I6", || {
            format!("stream {stream} leaves out entries up to {floor}")
        });
    }

    // ---- consumers: I7 ----

    pub(super) fn joins(&mut self, stream: &Name, group: &str) {
        self.readers.entry((stream.clone(), group.to_owned())).or_default();
    }

    /// A group was given an event; `new` if it asked for what it had not been given.
    pub(super) fn given(&mut self, stream: &Name, group: &str, event: Uuid, new: bool) {
        let Some(reader) = self.readers.get_mut(&(stream.clone(), group.to_owned())) else {
            return;
        };
        let settled = reader.settled.contains(&event);
        let again = !reader.given.insert(event) && new;
        let lossy = self.lossy.contains(stream);
        self.must(!again || lossy, "I7", || {
            format!("group {group} of stream {stream} is given {event} again, and nothing was lost")
        });
        self.must(!settled, "I7", || {
            format!("group {group} of stream {stream} is given {event} again, which a checkpoint has as done")
        });
    }

    pub(super) fn acknowledged(&mut self, stream: &Name, group: &str, event: Uuid) {
        if let Some(reader) = self.readers.get_mut(&(stream.clone(), group.to_owned())) {
            reader.acknowledged.insert(event);
        }
    }

    /// A floor was stored.
    pub(super) fn stored(&mut self, now_ms: u64, facts: &Facts, stream: &Name, floor: u64) {
        let known = self.floors.entry(stream.clone()).or_default();
        let before = *known;
        *known = floor.max(before);
        if let Some(log) = facts.streams.get(stream) {
            let settled = log.log().filter(|(at, _)| at.n > before && at.n <= floor);
            let rows = settled.filter_map(|(_, id)| facts.rows.get(&id));
            let events: Vec<Uuid> = rows.map(|row| row.entry.event_id).collect();
            self.removed(stream, &events, "the floor has passed the number");
        }
        let losses = self.losses.get_mut(stream).into_iter().flatten();
        // A checkpoint that was on its way when Redis lost it.
        for loss in losses.filter(|loss| !loss.reported && now_ms < loss.at_ms + ON_ITS_WAY_MS) {
            loss.floor = loss.floor.max(floor);
        }
    }

    /// Entries were taken away for good: from Redis, or with their rows.
    pub(super) fn removed(&mut self, stream: &Name, events: &[Uuid], what: &str) {
        let needing = self.readers.iter().filter(|((name, _), _)| name == stream);
        let missed = needing.flat_map(|((_, group), reader)| {
            let missed = events.iter().find(|event| !reader.acknowledged.contains(event));
            missed.map(|event| (group.clone(), *event))
        });
        if let Some((group, event)) = missed.collect::<Vec<_>>().pop() {
            let sentence = format!("{what} of {event}, which group {group} of {stream} needs");
            self.violated("I7", &sentence);
        }
    }

    // ---- losses: I8 ----

    /// Redis has lost all of a stream after number `left`.
    pub(super) fn lost(
        &mut self,
        now_ms: u64,
        facts: &Facts,
        stream: &Name,
        left: u64,
        vanishes: bool,
    ) {
        self.counts.losses += 1;
        self.lossy.insert(stream.clone());
        // A relay may know more of it than a Postgres that has lost its latest commits.
        let log = facts.streams.get(stream);
        let (marked, reported) = (log.map_or(0, LogStream::dispatched), false);
        let floor = self.floors.get(stream).copied().unwrap_or(0);
        let had = self.highest.get(stream).copied().unwrap_or(0);
        let due_ms = now_ms.max(self.troubled_ms) + NOTICED_MS;
        let (healed_ms, excused) = (None, false);
        let loss =
            Loss { at_ms: now_ms, left, floor, marked, had, due_ms, healed_ms, reported, excused };
        self.losses.entry(stream.clone()).or_default().push(loss);
        let readers = self.readers.iter_mut().filter(|((name, _), _)| name == stream);
        for ((_, group), reader) in readers {
            reader.settled.clear();
            if let Some(log) = log.filter(|_| vanishes) {
                let done = log.log().filter(|(at, _)| is_done(log, group, *at));
                let events = done.filter_map(|(_, id)| Some(facts.rows.get(&id)?.entry.event_id));
                reader.settled.extend(events);
            }
        }
    }

    /// The groups of a stream went back, so that what they had done since is given again.
    pub(super) fn unsettle(&mut self, stream: &Name) {
        self.lossy.insert(stream.clone());
        let readers = self.readers.iter_mut().filter(|((name, _), _)| name == stream);
        readers.for_each(|(_, reader)| reader.settled.clear());
    }

    /// Something keeps relays from their work until then, in milliseconds.
    pub(super) fn troubled(&mut self, until_ms: u64) {
        self.troubled_ms = self.troubled_ms.max(until_ms);
        let due = self.troubled_ms + NOTICED_MS;
        let losses = self.losses.values_mut().flatten().filter(|loss| !loss.reported);
        losses.for_each(|loss| loss.due_ms = loss.due_ms.max(due));
    }

    /// The relay said that Redis lost its identity, went back, or lost groups.
    pub(super) fn alarmed(&mut self, said: &str) {
        let lossy = !self.lossy.is_empty() || self.emptied;
        self.must(lossy, "I8", || format!("nothing was lost, and a relay said: {said}"));
    }

    /// The relay said that Redis lost these entries.
    pub(super) fn reported(&mut self, now_ms: u64, stream: &str, first: u64, last: u64) {
        self.counts.reports += 1;
        let floor = self.floors.get(stream).copied().unwrap_or(0);
        let mut right = false;
        for loss in self.losses.get_mut(stream).into_iter().flatten() {
            let begins = first == loss.left + 1 || first > loss.left && first <= floor + 1;
            let again = loss.healed_ms.is_some_and(|healed| now_ms > healed + ON_ITS_WAY_MS);
            if loss.at_ms <= now_ms && begins && last <= loss.had && !again {
                right = true;
                loss.reported |= last >= loss.marked;
            }
        }
        self.must(right, "I8", || {
            format!("entries {first} to {last} of stream {stream} are reported lost and were not")
        });
    }

    // ---- Postgres loses what it had committed ----

    pub(super) fn postgres_lost(&mut self, before: &Facts, after: &Facts) {
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
    pub(super) fn needs_a_person(&self, stream: &Name, log: &LogStream, redis: &Redis) -> bool {
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
    pub(super) fn finish(&mut self, facts: &Facts, redis: &Redis, now_ms: u64) {
        self.log_is_complete(facts);
        self.journal_is_kept(facts);
        for (name, log) in &facts.streams {
            if self.needs_a_person(name, log, redis) {
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
        self.losses_are_reported(now_ms);
    }

    fn log_is_complete(&mut self, facts: &Facts) {
        let mut places: BTreeMap<Uuid, Vec<(Name, Position)>> = BTreeMap::new();
        for (name, log) in &facts.streams {
            for (at, id) in log.log() {
                if let Some(row) = facts.rows.get(&id) {
                    places.entry(row.entry.event_id).or_default().push((name.clone(), at));
                }
            }
        }
        for row in facts.rows.values().filter(|row| row.fate == Fate::Committed) {
            let (event, stream) = (row.entry.event_id, &row.entry.stream);
            let at = places.remove(&event).unwrap_or_default();
            let once = at.len() == 1 && at[0].0 == *stream;
            self.must(once, "I1", || format!("event {event} of {stream} is sealed as {at:?}"));
            let known = self.events.get(&event).is_some_and(|event| event.committed);
            self.must(known, "I2", || format!("event {event} of {stream} was never committed"));
        }
    }

    /// Events that have their rows, or had them until nobody needed them any more.
    fn kept(&self, facts: &Facts) -> BTreeSet<Uuid> {
        let rows = facts.rows.values().filter(|row| row.fate == Fate::Committed);
        let purged = self
            .sealed
            .iter()
            .filter(|((name, at), _)| facts.streams.get(name).is_some_and(|log| *at <= log.purged));
        rows.map(|row| row.entry.event_id).chain(purged.map(|(_, event)| *event)).collect()
    }

    /// What writers committed has its row, or had it until nobody needed it any more.
    fn journal_is_kept(&mut self, facts: &Facts) {
        let kept = self.kept(facts);
        let mut committed = self.events.iter().filter(|(_, event)| event.committed);
        let lost = committed.find(|(event, _)| !kept.contains(*event));
        if let Some((event, Event { stream, .. })) = lost {
            let sentence = format!("event {event} of {stream} was committed and is nowhere");
            self.violated("I1", &sentence);
        }
    }

    fn stream_is_the_log(&mut self, facts: &Facts, name: &Name, log: &LogStream, stream: &Stream) {
        let first = stream.entries.keys().next().map_or(stream.last.n + 1, |first| first.n);
        // Postgres may have lost the floor again.
        let floor = self.floors.get(name).copied().unwrap_or(0).max(log.floor().n);
        self.must(first <= floor + 1, "I1", || {
            format!("stream {name} begins with entry {first}, its floor is {floor}")
        });
        let purged = log.purged.n;
        for (at, id) in log.log().filter(|(at, _)| at.n >= first) {
            let there = stream.entries.get(&at);
            let row = facts.rows.get(&id);
            let same = there.zip(row).is_some_and(|(there, row)| **there == row.entry.fields());
            self.must(same, "I4", || format!("entry {at} of stream {name} is not its row"));
        }
        for at in stream.entries.keys().filter(|at| at.n > purged) {
            let is_known = log.locate(at.n) == Some(*at) || log.phantoms.contains(at);
            self.must(is_known, "I4", || format!("entry {at} of stream {name} is not in the log"));
        }
    }

    fn everything_is_acknowledged(
        &mut self,
        facts: &Facts,
        name: &Name,
        log: &LogStream,
        redis: &Redis,
    ) {
        let readers = self.readers.iter().filter(|((stream, _), _)| stream == name);
        let mut complaint = None;
        for ((_, group), reader) in readers {
            let rows = log.log().filter_map(|(at, id)| Some((at, facts.rows.get(&id)?)));
            let missed = rows.map(|(at, row)| (at, row.entry.event_id));
            let mut missed = missed.filter(|(_, event)| !reader.acknowledged.contains(event));
            if let Some((at, _)) = missed.next() {
                let is_there =
                    redis.held.streams.get(name).is_some_and(|s| s.groups.contains_key(group));
                let gone = if is_there { "" } else { ", and is gone" };
                complaint = Some(format!("group {group} of {name} has not done entry {at}{gone}"));
            }
        }
        if let Some(complaint) = complaint {
            self.violated("I7", &complaint);
        }
    }

    fn losses_are_reported(&mut self, now_ms: u64) {
        let mut complaint = None;
        for (stream, losses) in &self.losses {
            for (at, loss) in losses.iter().enumerate() {
                let until = losses.get(at + 1).map_or(now_ms, |next| next.at_ms);
                let had_time = until > loss.due_ms || at + 1 == losses.len();
                let matters = loss.marked > loss.left.max(loss.floor) && !loss.excused;
                if matters && had_time && !loss.reported {
                    complaint = Some(format!("nobody said that stream {stream} suffered {loss:?}"));
                }
            }
        }
        if let Some(complaint) = complaint {
            self.violated("I8", &complaint);
        }
    }
}

/// The event that the log has at a position.
fn sealed_event(facts: &Facts, log: &LogStream, at: Position) -> Option<Uuid> {
    let (_, batch) = log.batches.range(at.n..).next()?;
    let index = at.n.checked_sub(batch.first_n)?;
    let id = batch.ids.get(index as usize).filter(|_| batch.ms == at.ms)?;
    facts.rows.get(id).map(|row| row.entry.event_id)
}

/// A group had acknowledged an entry when its latest checkpoint was taken.
fn is_done(log: &LogStream, group: &str, at: Position) -> bool {
    let kept = log.checkpoint.as_ref();
    let group = kept.and_then(|kept| kept.groups.iter().find(|kept| kept.name == group));
    group.is_some_and(|group| group.acknowledged(at) == Some(true))
}
