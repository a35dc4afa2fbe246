//! One run: everybody lives until the plan is done and all has come to rest, then the oracle has its say.

use std::sync::Arc;
use std::time::Duration;

use super::actors::{Consumer, GROUPS, Writer, break_things, set_groups_back};
use super::dice::Dice;
use super::oracle::Counts;
use super::plan::{Plan, STREAMS};
use super::relays::Relays;
use super::report;
use super::world::{Shared, World};
use crate::telemetry::Metrics;

/// How often Redis as it is is remembered.
const REMEMBER: Duration = Duration::from_millis(800);
/// When everything is well again, what was committed is where it belongs after this time.
const REST: Duration = Duration::from_secs(120);

/// What came of a run.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) broken: Option<String>,
    /// Requests that a server has carried out.
    pub(super) steps: u64,
    pub(super) counts: Counts,
    /// The same for the same plan, and for hardly any other.
    pub(super) print: u64,
}

/// Runs a plan on this thread, in simulated time.
pub(super) fn run(plan: &Plan, metrics: &Metrics) -> Outcome {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().expect("a runtime");
    runtime.block_on(live(plan, metrics))
}

async fn live(plan: &Plan, metrics: &Metrics) -> Outcome {
    let mut dice = Dice::seeded(plan.seed ^ 0x5eed);
    let remembers = plan.faults.iter().any(|(_, fault)| fault.loses_commits());
    let world = Shared::new(dice.split(), remembers);
    let _listening = report::listen(&world);
    tokio::select! {
        biased;
        () = broken(&world) => {}
        () = play(plan, &world, &mut dice, metrics) => {}
    }
    world.with(|world| Outcome {
        broken: world.oracle.broken().map(str::to_owned),
        steps: world.steps,
        counts: world.oracle.counts,
        print: print(world),
    })
}

/// Ends soon after an invariant was broken.
async fn broken(world: &Shared) {
    while world.with(|world| world.oracle.broken().is_none()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn play(plan: &Plan, world: &Shared, dice: &mut Dice, metrics: &Metrics) {
    let choices = &plan.choices;
    let mut relays = Relays::start(world, choices, dice.split(), metrics);
    let keys = Arc::default();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..choices.writers {
        let (world, keys, hasty) = (world.clone(), Arc::clone(&keys), choices.hasty);
        let writer = Writer { world, dice: dice.split(), hasty, keys };
        writers.spawn(writer.run(Duration::from_millis(choices.busy_ms)));
    }
    let mut consumers = tokio::task::JoinSet::new();
    for (stream, group) in STREAMS.iter().flat_map(|s| GROUPS.map(|group| (*s, group))) {
        let consumer =
            Consumer { world: world.clone(), dice: dice.split(), stream: stream.into(), group };
        consumers.spawn(consumer.run());
    }
    let past = tokio::spawn(remember(world.clone()));
    let mut people = tokio::task::JoinSet::new();
    let mut whim = Dice::seeded(plan.seed ^ 0xbac);
    // Where nothing is lost, for what people want may be lost as well.
    if whim.one_in(2) && !plan.faults.iter().any(|(_, fault)| fault.loses()) {
        people.spawn(set_groups_back(world.clone(), whim));
    }
    break_things(world, &mut relays, plan).await;
    while let Some(written) = writers.join_next().await {
        written.expect("a writer ends well");
    }
    past.abort();
    people.shutdown().await;
    relays.heal();
    world.with(|world| world.calm = true);
    let quiet = tokio::time::timeout(REST, rest(world)).await;
    world.with(|world| match quiet {
        Ok(()) => {
            let now = world.now_ms();
            world.oracle.finish(&world.postgres.facts, &world.redis, now);
        }
        Err(_) => {
            let why = unrest(world).unwrap_or_default();
            world.oracle.violated("I9", &format!("not at rest after {REST:?}: {why}"));
        }
    });
}

async fn remember(world: Shared) {
    loop {
        tokio::time::sleep(REMEMBER).await;
        world.with(World::remember_redis);
    }
}

async fn rest(world: &Shared) {
    let mut calm = 0;
    // Longer than an audit, so that a loss in the last moment is noticed.
    while calm < 40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let at_rest = world.with(|world| unrest(world).is_none());
        calm = if at_rest { calm + 1 } else { 0 };
    }
}

/// What is not yet as it should be.
fn unrest(world: &World) -> Option<String> {
    let facts = &world.postgres.facts;
    if let Some(id) = facts.unsealed.first() {
        return Some(format!("row {id} is not sealed"));
    }
    for (name, stream) in &facts.streams {
        if world.oracle.needs_a_person(name, stream, &world.redis) {
            continue;
        }
        let (sealed, dispatched) = (stream.sealed(), stream.dispatched());
        let held = world.redis.held.streams.get(name);
        // What a person or a Postgres that lost it had put there, and Redis has lost, nobody can put back.
        let lacks = |held: &super::redis::Stream| stream.log().any(|(at, _)| at > held.last);
        if dispatched < sealed.n || held.is_none_or(lacks) {
            let (told, view) = (&stream.told, held.map(super::redis::Stream::view));
            return Some(format!(
                "{name} is sealed up to {sealed}, dispatched up to {dispatched}: {told:?}, {view:?}"
            ));
        }
        for group in GROUPS {
            let Some(members) = held.and_then(|held| held.groups.get(group)) else {
                return Some(format!("{name} has no group {group}"));
            };
            let left = held.and_then(|held| held.entries.keys().next_back());
            if !members.pending.is_empty() || left.is_some_and(|left| members.delivered < *left) {
                let entries = held
                    .map(|held| held.entries.keys().map(ToString::to_string).collect::<Vec<_>>());
                return Some(format!(
                    "group {group} of {name} is not done: {members:?}, {entries:?}, sealed {sealed}, {:?}",
                    stream.phantoms
                ));
            }
        }
    }
    None
}

/// A number that stands for all that has happened.
fn print(world: &World) -> u64 {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    (world.steps, world.now_ms()).hash(&mut hasher);
    for (name, stream) in &world.redis.held.streams {
        (name, stream.last).hash(&mut hasher);
        stream.entries.keys().for_each(|at| at.hash(&mut hasher));
    }
    for (name, stream) in &world.postgres.facts.streams {
        (name, stream.sealed(), stream.dispatched(), stream.floor()).hash(&mut hasher);
        stream.log().for_each(|(at, id)| (at, id).hash(&mut hasher));
    }
    world.oracle.counts.reports.hash(&mut hasher);
    hasher.finish()
}
