//! The swarm: real servers, real relays and real consumers under a seeded schedule of faults, and an
//! oracle that knows what must hold whatever happens.
//!
//! A run is a seed. It picks a few kinds of faults, the settings, and what happens when; it is printed, and
//! repeated by `make swarm SEED=…`, or from an edited schedule by `make swarm SCHEDULE=path`.
//!
//! | file | noun |
//! |---|---|
//! | `schedule`, `kind` | what happens when, from a seed (pure); what can go wrong, by name |
//! | `stage`, `fault` | servers, proxies, relays; how each fault is injected and healed |
//! | `writers`, `ledger`, `consumers` | applications, with their journals outside of both servers |
//! | `watcher` | looks at all streams all the time |
//! | `losses` | what Redis was made to lose, and what relays say that it lost |
//! | `oracle` | the invariants I1 to I11 |
//! | `run`, `tally` | one run; what many runs came to |

mod consumers;
mod fault;
mod kind;
mod ledger;
mod losses;
mod moment;
mod oracle;
mod run;
mod schedule;
mod stage;
mod tally;
mod watcher;
mod writers;

use std::time::{Duration, Instant};

use self::run::Outcome;
use self::schedule::Schedule;
use self::tally::Tally;

/// Seeds that found something once, or that stand for a kind of night.
const REGRESSIONS: &str = include_str!("regressions.txt");

/// After those, every `make test` runs the first seeds, for so long: the same each time, so that it is
/// red only where something has changed. `make swarm` draws others.
const HANDFUL: Duration = Duration::from_secs(25);

#[tokio::test(flavor = "multi_thread")]
async fn a_handful_of_seeds() {
    let mut tally = Tally::default();
    for seed in regressions() {
        hold(seed, &Schedule::of(seed), &mut tally).await;
    }
    let begun = Instant::now();
    for seed in (1..=8).take_while(|_| begun.elapsed() < HANDFUL) {
        hold(seed, &Schedule::of(seed), &mut tally).await;
    }
    println!("{tally}");
}

/// Seeds 1 to `OUTBOX_SWARM_SEEDS`, or those that it lists, until one breaks something.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "for mutants: does the oracle bite?"]
async fn seeds() {
    let mut tally = Tally::default();
    for seed in given_seeds() {
        hold(seed, &Schedule::of(seed), &mut tally).await;
    }
    println!("{tally}");
}

/// One seed, `OUTBOX_SWARM_SEED`, or the schedule in the file `OUTBOX_SWARM_SCHEDULE`; with
/// `OUTBOX_SWARM_SHRINK=1` with ever fewer faults, as long as it breaks.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "repeats one run: make swarm SEED=…"]
async fn one() {
    let schedule = match (variable("OUTBOX_SWARM_SCHEDULE"), variable("OUTBOX_SWARM_SEED")) {
        (Some(path), _) => std::fs::read_to_string(path).unwrap().parse().unwrap(),
        (None, Some(seed)) => Schedule::of(seed.parse().unwrap()),
        (None, None) => panic!("OUTBOX_SWARM_SEED or OUTBOX_SWARM_SCHEDULE says what to repeat"),
    };
    print!("{schedule}");
    match variable("OUTBOX_SWARM_SHRINK").is_some_and(|shrink| shrink == "1") {
        true => shrink(schedule).await,
        false => hold(schedule.seed, &schedule, &mut Tally::default()).await,
    }
}

/// Seed after seed for `OUTBOX_SWARM_MINUTES`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes as long as it is told: make swarm MINUTES=60"]
async fn for_long() {
    let minutes: f64 =
        variable("OUTBOX_SWARM_MINUTES").map_or(60.0, |given| given.parse().unwrap());
    let (begun, mut tally) = (Instant::now(), Tally::default());
    while begun.elapsed().as_secs_f64() < minutes * 60.0 {
        let seed = random();
        hold(seed, &Schedule::of(seed), &mut tally).await;
        tally.save();
    }
    println!("{tally}");
}

/// One run, which must break nothing.
async fn hold(seed: u64, schedule: &Schedule, tally: &mut Tally) {
    // Before it begins, for it may end without a word.
    println!("seed {seed}");
    let outcome = Box::pin(run::run(schedule)).await;
    println!("{}", line(seed, &outcome));
    tally.add(&outcome);
    if !outcome.verdict.broken.is_empty() {
        tally.save();
        let logs = keep(seed, &outcome);
        panic!(
            "{}\n\n{schedule}\n{}\n\nlogs of the relays are in {logs}; to repeat it: \
             make swarm SEED={seed}",
            outcome.verdict.broken.join("\n"),
            outcome.verdict.broken.join("\n"),
        );
    }
}

fn line(seed: u64, outcome: &Outcome) -> String {
    let faults: u64 = outcome.injected.values().sum();
    let verdict = &outcome.verdict;
    let result = verdict.broken.first().map_or("held", String::as_str);
    format!(
        "seed {seed}: {:.1} s, {faults} faults, {} rows, {} entries lost by Redis, {} looks, at rest after \
         {:.1} s: {result}",
        outcome.took.as_secs_f64(),
        verdict.written,
        verdict.lost,
        outcome.looks,
        outcome.rested.as_secs_f64(),
    )
}

/// Keeps the logs of a run that broke something; returns where.
fn keep(seed: u64, outcome: &Outcome) -> String {
    let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("swarm-{seed}"));
    std::fs::create_dir_all(&folder).unwrap();
    for (slot, log) in outcome.logs.iter().enumerate() {
        std::fs::write(folder.join(format!("relay-{slot}.log")), log).unwrap();
    }
    folder.display().to_string()
}

/// Leaves out fault after fault that is not needed to break something.
async fn shrink(mut schedule: Schedule) {
    let mut place = 0;
    while place < schedule.faults.len() {
        let mut less = schedule.clone();
        less.faults.remove(place);
        let outcome = Box::pin(run::run(&less)).await;
        println!("{}", line(less.seed, &outcome));
        match outcome.verdict.broken.is_empty() {
            true => place += 1,
            false => schedule = less,
        }
    }
    println!("what is needed:\n{schedule}");
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn random() -> u64 {
    uuid::Uuid::new_v4().as_u64_pair().0 % 1_000_000_000
}

fn regressions() -> Vec<u64> {
    let lines = REGRESSIONS.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

fn given_seeds() -> Vec<u64> {
    let given = variable("OUTBOX_SWARM_SEEDS").unwrap_or_else(|| "10".to_owned());
    match given.parse() {
        Ok(count) if !given.contains(',') => (1..=count).collect(),
        _ => given.split(',').map(|seed| seed.trim().parse().unwrap()).collect(),
    }
}
