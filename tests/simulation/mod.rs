//! The relay as it ships, run against models of Postgres and Redis by one seeded scheduler in simulated time.
//!
//! Part of the library's own tests, for it stands in the place of the connections of a session. A seed
//! gives the same run on every machine. A seed that fails is printed, cut down to the faults that it
//! needs, and pinned in `regressions.txt`, which runs first.
//!
//! | file | noun |
//! |---|---|
//! | `plan` | what happens in a run, drawn from a seed |
//! | `postgres`, `redis` | the models |
//! | `wire`, `postgres_door`, `redis_door` | the network, and what a relay holds of the models |
//! | `world` | both models, the oracle and chance |
//! | `actors`, `relays` | writers, consumers, whoever breaks things; relay processes |
//! | `oracle`, `report` | what must hold; what the relay says |
//! | `run` | one run |

#![allow(clippy::print_stdout, reason = "a seed is printed so that a run can be repeated")]
#![allow(
    clippy::unit_arg,
    reason = "a request of a model says in one line what it does and what it answers"
)]

mod actors;
#[path = "../support/dice.rs"]
mod dice;
mod oracle;
mod plan;
mod postgres;
mod postgres_door;
mod redis;
mod redis_door;
mod relays;
mod report;
mod run;
mod wire;
mod world;

use std::time::{Duration, Instant};

use self::dice::Dice;
use self::plan::Plan;
use self::run::{Outcome, run};
use crate::telemetry::Metrics;

/// Metrics are shared by all runs of a thread: nobody reads them.
fn metrics() -> Metrics {
    Metrics::new(10)
}

/// Cuts a failing plan down to the faults that it needs.
fn shrink(plan: Plan, metrics: &Metrics) -> (Plan, Outcome) {
    let mut failing = (plan.clone(), run(&plan, metrics));
    let mut at = 0;
    while at < failing.0.faults.len() {
        let smaller = failing.0.without(at);
        let outcome = run(&smaller, metrics);
        match outcome.broken {
            Some(_) => failing = (smaller, outcome),
            None => at += 1,
        }
    }
    failing
}

/// Fails with the seed, the smallest plan, and how to repeat it.
fn fail(plan: Plan, metrics: &Metrics) -> ! {
    let (plan, outcome) = shrink(plan, metrics);
    let kept: Vec<String> = plan.kept().iter().map(usize::to_string).collect();
    panic!(
        "{}\n{plan}\nto repeat it, and to keep it, add this line to tests/simulation/regressions.txt:\n\
         {} {} {}\n",
        outcome.broken.unwrap_or_default(),
        plan.seed,
        kept.join(","),
        plan.print(),
    );
}

/// A line of `regressions.txt`: the seed, which of its faults, and the print of the plan. Fails where the
/// seed gives another plan than it did, for then the line stands for nothing.
fn repeated(line: &str) -> Option<Plan> {
    let mut words = line.split('#').next()?.split_whitespace();
    let seed = words.next()?.parse().expect("a seed");
    let kept: Vec<usize> =
        words.next()?.split(',').filter_map(|place| place.parse().ok()).collect();
    let plan = Plan::draw(seed).only(&kept);
    if let Some(print) = words.next() {
        assert_eq!(
            print,
            plan.print(),
            "seed {seed} draws another plan than when it was pinned:\n{plan}"
        );
    }
    Some(plan)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Runs seeds from `first` on until one fails or the time is over; tells how it went.
fn seeds(first: u64, count: u64, length: Duration) {
    let (begun, metrics) = (Instant::now(), metrics());
    let (mut steps, mut runs, mut told) = (0, 0, Instant::now());
    let (mut committed, mut losses) = (0, 0);
    for seed in first..first.saturating_add(count) {
        if begun.elapsed() > length {
            break;
        }
        let plan = Plan::draw(seed);
        let outcome = run(&plan, &metrics);
        if outcome.broken.is_some() {
            fail(plan, &metrics);
        }
        (steps, runs) = (steps + outcome.steps, runs + 1);
        (committed, losses) =
            (committed + outcome.counts.committed, losses + outcome.counts.losses);
        if told.elapsed() > Duration::from_secs(30) {
            told = Instant::now();
            println!("{runs} runs, {steps} steps, the last seed was {seed}");
        }
    }
    let per_minute = (steps as f64 / begun.elapsed().as_secs_f64() * 60.0) as u64;
    println!(
        "{runs} runs from seed {first} on, {steps} steps, {per_minute} a minute; {committed} rows \
         committed, {losses} losses of a stream, no invariant broken"
    );
}

#[test]
fn what_failed_once_holds() {
    let metrics = metrics();
    for line in include_str!("regressions.txt").lines() {
        let Some(plan) = repeated(line) else { continue };
        let outcome = run(&plan, &metrics);
        assert!(outcome.broken.is_none(), "{outcome:?}\n{plan}");
    }
}

#[test]
fn a_seed_gives_the_same_run_again() {
    let metrics = metrics();
    for seed in 1..20 {
        let plan = Plan::draw(seed);
        let prints = [run(&plan, &metrics).print, run(&plan, &metrics).print];
        assert_eq!(prints[0], prints[1], "{plan}");
    }
}

#[test]
fn no_schedule_breaks_an_invariant() {
    let random = || Dice::seeded(uuid::Uuid::new_v4().as_u64_pair().0).next() >> 16;
    if let Some(plan) = std::env::var("OUTBOX_SIMULATION_RUN").ok().as_deref().and_then(repeated) {
        let outcome = run(&plan, &metrics());
        println!("{plan}{outcome:?}");
        assert!(outcome.broken.is_none(), "{}", outcome.broken.unwrap_or_default());
        return;
    }
    let seconds = number("OUTBOX_SIMULATION_SECONDS");
    // The same each time, so that a test is red only where something has changed.
    let (first, count) = match seconds {
        Some(_) => (random(), u64::MAX),
        None => (1, 1_000),
    };
    let first = number("OUTBOX_SIMULATION_SEED").unwrap_or(first);
    let count = number("OUTBOX_SIMULATION_SEEDS").unwrap_or(count);
    seeds(first, count, Duration::from_secs(seconds.unwrap_or(60)));
}
