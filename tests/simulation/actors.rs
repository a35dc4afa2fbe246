//! Who lives beside the relay: writers, consumers, and whoever breaks things.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::dice::Dice;
use super::plan::{Choices, Fault, Plan, STREAMS, Side};
use super::redis::Held;
use super::relays::Relays;
use super::world::{Shared, World, event_of};
use crate::entry::Entry;
use crate::position::Position;

/// Consumer groups of every stream.
pub(super) const GROUPS: [&str; 2] = ["ship", "bill"];
const KEYS: u64 = 3;
/// A consumer may come, or come back, as late as that.
const LATE_MS: u64 = 25_000;
/// Rows of a transaction that keeps the relay busy.
const BURST: u64 = 60;
/// What takes the lease of a dead relay, or a new connection, may take so long.
const REPLACED_MS: u64 = 12_000;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

async fn pause(milliseconds: u64) {
    match milliseconds {
        0 => tokio::task::yield_now().await,
        _ => tokio::time::sleep(ms(milliseconds)).await,
    }
}

// ---- writers ----

/// Keys that a transaction holds the lock of, and the last number of each.
#[derive(Debug, Default)]
pub(super) struct Keys {
    held: BTreeSet<u64>,
    last: [u64; KEYS as usize],
}

pub(super) struct Writer {
    pub(super) world: Shared,
    pub(super) dice: Dice,
    pub(super) hasty: u64,
    pub(super) keys: Arc<std::sync::Mutex<Keys>>,
}

impl Writer {
    /// Writes for so long, then ends with its last transaction.
    pub(super) async fn run(mut self, length: Duration) {
        let until = tokio::time::Instant::now() + length;
        while tokio::time::Instant::now() < until {
            let rows = if self.dice.one_in(50) { BURST } else { 4 };
            let open_ms = if self.dice.one_in(40) { 4_000 } else { 2 };
            self.transaction(rows, open_ms).await;
            let idle = match self.dice.below(8) {
                0 => self.dice.below(2_000),
                1..4 => self.dice.below(20),
                _ => 0,
            };
            pause(idle).await;
        }
        // After a burst the relay asks for wake-ups anew, and this one has its row from before that: nobody
        // who writes later makes up for a wake-up that is lost.
        self.transaction(BURST, 2).await;
        self.transaction(1, 4_000).await;
    }

    fn keys<T>(&self, look: impl FnOnce(&mut Keys) -> T) -> T {
        look(&mut self.keys.lock().expect("nobody panics with it"))
    }

    /// Writes up to `rows` rows and commits them, most of the time, after so many milliseconds at most.
    async fn transaction(&mut self, rows: u64, open_ms: u64) {
        let boot = self.world.with(|world| world.postgres.boot);
        let key = match self.dice.one_in(2) {
            true => self.lock().await,
            false => None,
        };
        let stream: Arc<str> = match key {
            Some(_) => STREAMS[0].into(),
            None => (*self.dice.pick(&STREAMS)).into(),
        };
        let (mut xid, mut ids, mut events, mut wakes) = (None, Vec::new(), Vec::new(), false);
        // As the trigger reads the flag: as it is now, not as the transaction's snapshot has it.
        let asked = |world: &World| world.postgres.facts.wake_until_s > world.postgres_ms() / 1_000;
        // It reads before it writes, or thinks before it commits.
        let open = self.dice.below(open_ms);
        let (before, after) = if self.dice.one_in(2) { (open, 0) } else { (0, open) };
        pause(before).await;
        for _ in 0..self.dice.within(1..=rows) {
            // An id is drawn before the transaction has an xid.
            let id = self.world.with(|world| world.postgres.draw_id());
            pause(self.dice.one_in(6).into()).await;
            if self.world.with(|world| world.postgres.boot) != boot {
                break;
            }
            let event =
                Uuid::from_u128(u128::from(self.dice.next()) << 64 | u128::from(self.dice.next()));
            let number = key.map(|key| {
                self.keys(|keys| {
                    keys.last[key as usize] += 1;
                    (key.to_string(), keys.last[key as usize])
                })
            });
            self.world.with(|world| {
                let xid = *xid.get_or_insert_with(|| world.postgres.begin());
                world.oracle.wrote(event, &stream, number.clone());
                let entry = entry(world, id, event, &stream, number.map(|(key, _)| key));
                world.postgres.insert(xid, entry);
                wakes |= asked(world);
            });
            ids.push(id);
            events.push(event);
            pause(self.dice.below(2)).await;
        }
        pause(after).await;
        let (commits, durable) =
            (!self.dice.one_in(6), self.hasty == 0 || !self.dice.one_in(self.hasty));
        self.world.with(|world| {
            let Some(xid) = xid.filter(|_| world.postgres.boot == boot) else { return };
            if commits {
                events.iter().for_each(|event| world.oracle.committed(*event));
            }
            world.postgres.end(xid, &ids, commits, durable);
            if wakes && commits {
                world.postgres.notify();
            }
        });
        if let Some(key) = key {
            self.keys(|keys| keys.held.remove(&key));
        }
    }

    async fn lock(&mut self) -> Option<u64> {
        let key = self.dice.below(KEYS);
        for _ in 0..200 {
            if self.keys(|keys| keys.held.insert(key)) {
                return Some(key);
            }
            pause(5).await;
        }
        None
    }
}

fn entry(world: &World, id: i64, event: Uuid, stream: &Arc<str>, key: Option<String>) -> Entry {
    let created_at = jiff::Timestamp::from_millisecond(world.postgres_ms().cast_signed());
    Entry {
        id,
        event_id: event,
        stream: stream.clone(),
        key: key.map(Into::into),
        kind: None,
        payload: format!("{{\"id\": {id}}}").into(),
        headers: None,
        created_at: created_at.expect("a time"),
    }
}

// ---- consumers ----

pub(super) struct Consumer {
    pub(super) world: Shared,
    pub(super) dice: Dice,
    pub(super) stream: Arc<str>,
    pub(super) group: &'static str,
}

impl Consumer {
    /// Reads for ever. What it is given it acknowledges soon, most of it.
    pub(super) async fn run(mut self) {
        if self.dice.one_in(3) {
            pause(self.dice.below(LATE_MS)).await;
        }
        loop {
            if self.dice.one_in(400) && !self.world.with(|world| world.calm) {
                pause(self.dice.below(LATE_MS)).await;
            }
            let found = {
                let world = self.world.clone();
                world.with(|world| self.read(world))
            };
            pause(self.dice.within(1..=60)).await;
            // Of what it was given some must wait for another time.
            let done: Vec<(Position, Uuid)> =
                found.into_iter().filter(|_| !self.dice.one_in(5)).collect();
            self.world.with(|world| {
                let positions: Vec<Position> = done.iter().map(|(at, _)| *at).collect();
                for (_, event) in &done {
                    world.oracle.acknowledged(&self.stream, self.group, *event);
                }
                world.redis.acknowledge(&self.stream, self.group, &positions);
            });
        }
    }

    fn read(&mut self, world: &mut World) -> Vec<(Position, Uuid)> {
        let now = world.now_ms();
        self.join(world);
        let pending = self.dice.one_in(3);
        let found = match pending {
            true => world.redis.read_pending(&self.stream, self.group),
            false => {
                let count = self.dice.within(1..=8) as usize;
                world.redis.read_new(&self.stream, self.group, count, now).unwrap_or_default()
            }
        };
        let found: Vec<(Position, Uuid)> =
            found.into_iter().map(|(at, fields)| (at, event_of(&fields))).collect();
        for (_, event) in &found {
            world.oracle.given(now, &self.stream, self.group, *event, !pending);
        }
        found
    }

    /// Makes its group, where no checkpoint knows it: that is what brings it back otherwise.
    fn join(&self, world: &mut World) {
        if !world.has_group(&self.stream, self.group) {
            world.joins(&self.stream, self.group);
        }
    }
}

// ---- people ----

/// Now and then somebody has a group do again what is still there.
pub(super) async fn set_groups_back(world: Shared, mut dice: Dice) {
    loop {
        pause(dice.below(4_000)).await;
        let (stream, group) = (*dice.pick(&STREAMS), *dice.pick(&GROUPS));
        world.with(|world| world.set_back(&stream.into(), group, &mut dice));
    }
}

// ---- whoever breaks things ----

/// Does what the plan says, when it says it.
pub(super) async fn break_things(world: &Shared, relays: &mut Relays, plan: &Plan) {
    let begun = tokio::time::Instant::now();
    for (at, fault) in &plan.faults {
        tokio::time::sleep_until(begun + ms(*at)).await;
        inject(world, relays, &plan.choices, *fault);
    }
}

fn inject(world: &Shared, relays: &mut Relays, choices: &Choices, fault: Fault) {
    let net = |relays: &Relays, relay: usize, side: Side| match side {
        Side::Postgres => relays.nets(relay).0.clone(),
        Side::Redis => relays.nets(relay).1.clone(),
    };
    world.with(|world| {
        let until = world.now_ms() + fault.lasts() + REPLACED_MS;
        world.oracle.troubled(until);
    });
    match fault {
        Fault::Kill(relay) => relays.restart(relay, true),
        Fault::Stop(relay) => relays.restart(relay, false),
        Fault::Freeze(relay, length) => {
            net(relays, relay, Side::Postgres).hold(ms(length));
            net(relays, relay, Side::Redis).hold(ms(length));
        }
        Fault::Hold(relay, side, length) => net(relays, relay, side).hold(ms(length)),
        Fault::Deafen(relay, side, length) => net(relays, relay, side).deafen(ms(length)),
        Fault::Cut(relay, side) => net(relays, relay, side).cut(),
        Fault::Down(relay, side, length) => net(relays, relay, side).down(ms(length)),
        Fault::Slow(relay, side, at_most) => net(relays, relay, side).slow(at_most),
        Fault::Flush => world.with(|world| world.redis_becomes(Held::default())),
        Fault::RestartEmpty => {
            world.with(|world| {
                world.redis.boot += 1;
                world.redis_becomes(Held::default());
            });
            (0..choices.relays).for_each(|relay| net(relays, relay, Side::Redis).cut());
        }
        Fault::RestartOlder => {
            world.with(|world| {
                world.redis.boot += 1;
                let earlier = world.earlier().unwrap_or_default();
                world.redis_becomes(earlier);
            });
            (0..choices.relays).for_each(|relay| net(relays, relay, Side::Redis).cut());
        }
        Fault::GoBack => world.with(|world| {
            let earlier = world.earlier().unwrap_or_default();
            world.redis_becomes(earlier);
        }),
        Fault::Delete(stream) => {
            world.with(|world| world.lose_stream(&STREAMS[stream].into(), false));
        }
        Fault::DeleteAndJoin(stream) => world.with(|world| {
            let stream: Arc<str> = STREAMS[stream].into();
            world.lose_stream(&stream, false);
            world.redis.make_group(&stream, GROUPS[0], true);
        }),
        Fault::GoBackOne(stream) => {
            world.with(|world| world.lose_stream(&STREAMS[stream].into(), true));
        }
        Fault::Full(length) => {
            world.with(|world| world.redis.full_until_ms = world.now_ms() + length);
        }
        Fault::Crash | Fault::FailOver(_) => {
            world.with(|world| {
                let before = match fault {
                    Fault::FailOver(lag) => world.postgres.fail_over(lag),
                    _ => world.postgres.crash(),
                };
                world.oracle.postgres_lost(&before, &world.postgres.facts);
                world.forget_groups();
            });
            (0..choices.relays).for_each(|relay| net(relays, relay, Side::Postgres).cut());
        }
        Fault::Jump(by) => world.with(|world| world.postgres.skew_ms += by),
    }
}
