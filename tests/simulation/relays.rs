//! Relay processes: the sessions of the relay that ships, started, stopped and killed.

use std::time::Duration;

use tokio::task::JoinHandle;

use super::dice::Dice;
use super::plan::Choices;
use super::postgres_door::PostgresDoor;
use super::redis_door::RedisDoor;
use super::wire::Net;
use super::world::Shared;
use crate::error::Target;
use crate::outbox::Database;
use crate::relay::health::Health;
use crate::relay::servers::Servers;
use crate::relay::{Bounds, Settings, Stop, Stopper, sessions};
use crate::stream::{Limits, Server};
use crate::telemetry::Metrics;

/// How long a new process takes to begin.
const BIRTH: Duration = Duration::from_millis(300);

struct Process {
    task: JoinHandle<()>,
    stopper: Stopper,
    nets: (Net, Net),
}

/// All relays of a run.
pub(super) struct Relays {
    world: Shared,
    choices: Choices,
    dice: Dice,
    metrics: Metrics,
    processes: Vec<Process>,
    /// Those that were asked to stop and may still be at it.
    leaving: Vec<(JoinHandle<()>, Stopper)>,
}

fn settings(choices: &Choices) -> Settings {
    Settings {
        database: Database::from_url("postgres://relay@model/model").expect("a URL"),
        server: Server::from_url("redis://model/", "").expect("a URL"),
        lease: Duration::from_secs(3),
        audit: Duration::from_millis(700),
        checkpoint: choices.checkpoint,
        retention: Duration::from_secs(60),
        limits: Limits { entries: choices.limit, bytes: u64::MAX, trim_ungrouped: false },
        poll: choices.poll,
        wake: choices.wake,
        drain: Duration::from_secs(2),
        start: Duration::from_secs(1_000_000),
        bounds: Bounds { rows: choices.rows, bytes: 1 << 20 },
        http: ([127, 0, 0, 1], 0).into(),
        reviews: None,
        metric_streams: 10,
    }
}

impl Relays {
    pub(super) fn start(
        world: &Shared,
        choices: &Choices,
        mut dice: Dice,
        metrics: &Metrics,
    ) -> Self {
        let nets: Vec<(Net, Net)> = (0..choices.relays)
            .map(|_| {
                (Net::new(Target::Postgres, dice.split()), Net::new(Target::Redis, dice.split()))
            })
            .collect();
        let (world, choices, metrics) = (world.clone(), choices.clone(), metrics.clone());
        let (processes, leaving) = (Vec::new(), Vec::new());
        let mut relays = Self { world, choices, dice, metrics, processes, leaving };
        for nets in nets {
            let process = relays.process(nets, Duration::ZERO);
            relays.processes.push(process);
        }
        relays
    }

    fn process(&mut self, nets: (Net, Net), after: Duration) -> Process {
        let (stopper, stop) = Stopper::new();
        let (world, choices) = (self.world.clone(), self.choices.clone());
        let health = Health::new(self.metrics.clone());
        let task = tokio::spawn(live(world, choices, nets.clone(), health, stop, after));
        Process { task, stopper, nets }
    }

    /// The wires of a relay to Postgres and to Redis.
    pub(super) fn nets(&self, relay: usize) -> &(Net, Net) {
        &self.processes[relay].nets
    }

    /// Ends a relay, at once or by asking it, and puts another in its place.
    pub(super) fn restart(&mut self, relay: usize, kill: bool) {
        // What a dead process has sent may arrive as long as it likes: the new one has wires of its own.
        let nets = match kill {
            true => (
                Net::new(Target::Postgres, self.dice.split()),
                Net::new(Target::Redis, self.dice.split()),
            ),
            false => self.nets(relay).clone(),
        };
        let process = self.process(nets, BIRTH);
        let old = std::mem::replace(&mut self.processes[relay], process);
        match kill {
            true => old.task.abort(),
            false => {
                old.stopper.stop();
                self.leaving.push((old.task, old.stopper));
            }
        }
    }

    /// Fair weather from now on.
    pub(super) fn heal(&self) {
        for process in &self.processes {
            process.nets.0.heal();
            process.nets.1.heal();
        }
    }
}

async fn live(
    world: Shared,
    choices: Choices,
    nets: (Net, Net),
    health: Health,
    stop: Stop,
    after: Duration,
) {
    tokio::time::sleep(after).await;
    let servers = Servers {
        postgres: Box::new(PostgresDoor { world: world.clone(), net: nets.0 }),
        redis: Box::new(RedisDoor { world: world.clone(), net: nets.1 }),
    };
    let settings = settings(&choices);
    let ran = health.beating(Box::pin(sessions(&servers, &settings, &health, stop))).await;
    if let Err(error) = ran {
        world.with(|world| world.oracle.violated("I9", &format!("a relay gave up: {error}")));
    }
}
