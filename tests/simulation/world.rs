//! Both models, the oracle and chance, behind one lock.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use tokio::time::Instant;
use uuid::Uuid;

use super::dice::Dice;
use super::oracle::Oracle;
use super::postgres::Postgres;
use super::redis::{Fields, Held, Redis};
use crate::group::Group;
use crate::position::Position;
use crate::stream::{Append, Appended, Limits, Restored};

/// The outbox of every run.
pub(super) const OUTBOX: Uuid = Uuid::from_u128(7);
/// When every run begins, in milliseconds since 1970.
const BEGINNING_MS: u64 = 1_800_000_000_000;
/// States of Redis that an older one can be taken from.
const PAST: usize = 12;

type Name = Arc<str>;

#[derive(Debug)]
pub(super) struct World {
    pub(super) postgres: Postgres,
    pub(super) redis: Redis,
    pub(super) oracle: Oracle,
    pub(super) dice: Dice,
    pub(super) steps: u64,
    /// Nobody writes or breaks anything any more; consumers take no rest.
    pub(super) calm: bool,
    begun: Instant,
    /// What Redis held at earlier times, the latest last.
    past: Vec<Held>,
}

/// The world, as all who live in it share it.
#[derive(Clone, Debug)]
pub(super) struct Shared(Arc<Mutex<World>>);

impl Shared {
    pub(super) fn new(dice: Dice, remembers: bool) -> Self {
        Self(Arc::new(Mutex::new(World {
            postgres: Postgres::new(remembers),
            redis: Redis::default(),
            oracle: Oracle::default(),
            dice,
            steps: 0,
            calm: false,
            begun: Instant::now(),
            past: Vec::new(),
        })))
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        look(&mut self.0.lock().expect("nobody panics with it"))
    }
}

pub(super) fn event_of(fields: &Fields) -> Uuid {
    fields[0].1.parse().expect("an event")
}

impl World {
    pub(super) fn now_ms(&self) -> u64 {
        BEGINNING_MS + self.elapsed_ms()
    }

    /// Since the run began.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.begun.elapsed().as_millis() as u64
    }

    /// The clock of Postgres.
    pub(super) fn postgres_ms(&self) -> u64 {
        self.now_ms().saturating_add_signed(self.postgres.skew_ms)
    }

    pub(super) fn redis_is_full(&self) -> bool {
        self.redis.full_until_ms > self.now_ms()
    }

    // ---- what a relay does, seen by the oracle ----

    pub(super) fn append(&mut self, append: &Append, limits: Limits) -> Appended {
        let answer = self.redis.append(append, limits);
        if answer == Appended::Done {
            let now = self.now_ms();
            self.oracle.appended(now, &self.postgres.facts, append);
            let held =
                self.redis.held.streams.get(&append.stream).map_or(0, |held| held.entries.len());
            if limits.entries > 0 && held as u64 > limits.entries {
                let sentence = format!("stream {} holds {held} entries", append.stream);
                self.oracle.violated("I11", &sentence);
            }
        }
        answer
    }

    pub(super) fn restore(
        &mut self,
        stream: &str,
        expected: Position,
        floor: Position,
        groups: &[Group],
    ) -> Restored {
        let answer = self.redis.restore(stream, expected, floor, groups);
        if matches!(answer, Restored::Done { .. }) && floor > expected {
            self.oracle.moved_on(&stream.into(), floor.n);
        }
        answer
    }

    pub(super) fn pend(
        &mut self,
        stream: &str,
        expected: Position,
        group: &Group,
        is_gone: bool,
    ) -> Appended {
        let answer = self.redis.pend(stream, expected, group, is_gone);
        if answer == Appended::Done {
            self.oracle.settled(&self.postgres.facts, &stream.into(), &group.name);
        }
        answer
    }

    pub(super) fn trim(&mut self, stream: &Name, floor: Position, grouped: bool) -> u64 {
        let events = |redis: &Redis| -> Vec<Uuid> {
            let held = redis.held.streams.get(stream);
            held.map(|held| held.entries.values().map(event_of).collect()).unwrap_or_default()
        };
        let before = events(&self.redis);
        let trimmed = self.redis.trim(stream, floor, grouped);
        self.oracle.trimmed(stream, &before[..trimmed as usize]);
        trimmed
    }

    /// Takes away rows that are below the floor, of some streams.
    pub(super) fn purge(&mut self) {
        let streams: Vec<Name> = self.postgres.facts.streams.keys().cloned().collect();
        for name in streams {
            let stream = &self.postgres.facts.streams[&name];
            let n = stream.floor().n;
            if n <= stream.purged.n || !self.dice.one_in(3) {
                continue;
            }
            let rows = &self.postgres.facts.rows;
            let gone = stream
                .batches
                .iter()
                .take_while(|(last_n, batch)| **last_n <= n && batch.dispatched);
            let ids = gone.flat_map(|(_, batch)| &batch.ids);
            let events: Vec<Uuid> =
                ids.filter_map(|id| Some(rows.get(id)?.entry.event_id)).collect();
            self.oracle.removed(&name, &events, "the row was purged");
            self.postgres.purge(&name, n);
        }
    }

    // ---- consumers ----

    /// It is in Redis, or a checkpoint will bring it back.
    pub(super) fn has_group(&self, stream: &str, group: &str) -> bool {
        let held = self.redis.held.streams.get(stream);
        let is_there = held.is_some_and(|held| held.groups.contains_key(group));
        let log = self.postgres.facts.streams.get(stream);
        let kept = log.and_then(|log| log.checkpoint.as_ref());
        is_there || kept.is_some_and(|kept| kept.groups.iter().any(|kept| kept.name == group))
    }

    /// A group that Redis lost is in the latest checkpoint until it is back.
    pub(super) fn no_group_is_forgotten(&mut self) {
        for (stream, group) in self.oracle.groups() {
            if !self.has_group(&stream, &group) {
                let sentence = format!("a checkpoint forgets group {group} of stream {stream}");
                self.oracle.violated("I7", &sentence);
            }
        }
    }

    /// A consumer makes its group, which begins with what is there.
    pub(super) fn joins(&mut self, stream: &Name, group: &str) {
        let held = self.redis.held.streams.get(stream);
        let first = held.and_then(|held| held.entries.keys().next());
        let gone = match (first, held) {
            (Some(first), _) => first.n.saturating_sub(1),
            (None, held) => held.map_or(0, |held| held.last.n),
        };
        let now = self.now_ms();
        self.oracle.joins(now, stream, group, gone);
        self.redis.make_group(stream, group, false);
    }

    /// Somebody has a group do again what is still there, from some entry on.
    pub(super) fn set_back(&mut self, stream: &Name, group: &str, dice: &mut Dice) {
        let Some(held) = self.redis.held.streams.get_mut(stream) else { return };
        let Some(members) = held.groups.get_mut(group) else { return };
        let done: Vec<Position> =
            held.entries.keys().copied().filter(|at| *at <= members.delivered).collect();
        if done.is_empty() {
            return;
        }
        let from = *dice.pick(&done);
        // Behind the entry before it, which may be gone.
        members.delivered = Position { n: from.n - 1, ..from };
        let again = held.entries.range(from..).map(|(_, fields)| event_of(fields)).collect();
        self.oracle.rewound(stream, group, again);
    }

    // ---- what happens to Redis ----

    pub(super) fn remember_redis(&mut self) {
        self.past.push(self.redis.held.clone());
        if self.past.len() > PAST {
            self.past.remove(0);
        }
    }

    /// Redis holds something else from now on.
    pub(super) fn redis_becomes(&mut self, held: Held) {
        let now = self.now_ms();
        let before = std::mem::replace(&mut self.redis.held, held);
        let facts = &self.postgres.facts;
        let names: BTreeSet<&Name> = before.streams.keys().chain(facts.streams.keys()).collect();
        for name in names {
            let was = before.streams.get(name).map_or(0, |was| was.last.n);
            let marked = facts.streams.get(name).map_or(0, |log| log.dispatched());
            let is = self.redis.held.streams.get(name);
            let left = is.map_or(0, |is| is.last.n);
            // What comes may be newer than what was there, if that had lost something before.
            if left < was.max(marked) {
                self.oracle.lost(now, facts, name, left);
            }
            self.oracle.came_back(name, left);
            self.oracle.groups_lost(now, facts, name, is.is_none());
        }
        self.oracle.emptied = true;
        self.forget_groups();
    }

    /// Of groups that Redis has lost and that no checkpoint knows, nobody knows.
    pub(super) fn forget_groups(&mut self) {
        for (stream, group) in self.oracle.groups() {
            if !self.has_group(&stream, &group) {
                self.oracle.leaves(stream, group);
            }
        }
    }

    /// An earlier state of it, if there is one.
    pub(super) fn earlier(&mut self) -> Option<Held> {
        let at = self.dice.below(self.past.len() as u64) as usize;
        self.past.get(at).cloned()
    }

    /// Loses one stream, or what it got lately.
    pub(super) fn lose_stream(&mut self, name: &Name, earlier: bool) {
        let older = match earlier {
            true => self.earlier().and_then(|held| held.streams.get(name).cloned()),
            false => None,
        };
        let mut held = self.redis.held.clone();
        let rolled_back = older.is_some();
        match older {
            Some(stream) => drop(held.streams.insert(name.clone(), stream)),
            None => drop(held.streams.remove(name)),
        }
        let now = self.now_ms();
        let was = self.redis.held.streams.get(name).map_or(0, |stream| stream.last.n);
        let left = held.streams.get(name).map_or(0, |stream| stream.last.n);
        self.redis.held = held;
        let marked = self.postgres.facts.streams.get(name).map_or(0, |log| log.dispatched());
        if left < was.max(marked) {
            self.oracle.lost(now, &self.postgres.facts, name, left);
        }
        self.oracle.came_back(name, left);
        self.oracle.groups_lost(now, &self.postgres.facts, name, !rolled_back);
        if left >= was.max(marked) {
            // No entry is missing in one stream alone: as if somebody had destroyed the group.
            for (stream, group) in self.oracle.groups() {
                let held = self.redis.held.streams.get(&stream);
                if stream == *name && !held.is_some_and(|held| held.groups.contains_key(&group)) {
                    self.oracle.leaves(stream, group);
                }
            }
        }
        self.forget_groups();
    }
}
