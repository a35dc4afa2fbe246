//! The relay: carries entries from Postgres into Redis, and decides what to do where they differ.
//!
//! ```text
//!  Postgres                                                              Redis
//!  outbox.entry ──find──▶ Reader ──▶ Sealer ──▶ Appender ──append──▶ stream
//!                                      │  ▲        │  ▲
//!  outbox.batch ◀──────seal, mark──────┘  └──notes─┘  │
//!       └───────────────────replay────────────────────┘
//! ```
//!
//! | file | noun |
//! |---|---|
//! | `servers` | both servers as a session needs them, so that a simulation can stand for them |
//! | `session` | connections, the lease, and the order of the stages: begin here |
//! | `reader`, `pace` | finds rows; when to search and when to sleep (pure) |
//! | `sealer`, `plan`, `partition` | fixes positions; which position and partition each row gets (pure) |
//! | `appender`, `work`, `progress` | carries batches; what is in flight; where one stream stands (pure) |
//! | `recovery`, `decide` | brings a stream back into step; what to do where it differs (pure) |
//! | `replay`, `audit`, `ahead` | a chunk of the log; a look at all streams; entries without rows |
//! | `checkpoint`, `rota` | consumer groups looked at, stored and trimmed by; whose turn it is (pure) |
//! | `restore` | consumer groups put back after a loss |
//! | `primary` | what is known of each primary of Redis (pure) |
//! | `keeper` | the lease, upkeep, purge, and which streams somebody holds |
//! | `watch`, `health`, `clock` | both servers seen from outside; alive and ready; the clock of Postgres |
//! | `reviewer` | what Redis holds beside the streams, looked at every so often |
//! | `report` | what is said of streams: the same sentence in log and status |
//! | `operate` | what people ask: status, doctor, trace, verify, pause, rebuild, replay, adopt |

use std::net::SocketAddr;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use self::health::Role;
use self::servers::Servers;
use crate::error::{Kind, Result};
use crate::outbox::Database;
use crate::retry::Waits;
use crate::review::Rules;
use crate::stream::{Limits, Server};
use crate::telemetry::Troubles;

mod ahead;
mod appender;
mod audit;
mod checkpoint;
mod clock;
pub mod decide;
mod health;
mod keeper;
pub mod operate;
pub mod pace;
pub mod partition;
pub mod plan;
mod primary;
pub mod progress;
mod reader;
mod recovery;
mod replay;
mod report;
mod restore;
mod reviewer;
mod rota;
mod sealer;
mod servers;
mod session;
#[cfg(test)]
#[path = "../../tests/simulation/mod.rs"]
mod simulation;
mod stop;
mod watch;
mod work;

pub use health::Health;
pub use stop::{Stop, Stopper};

/// A session that lasted this long was no failed attempt: the next wait is short again.
const STABLE: Duration = Duration::from_secs(10);

/// How much is held in memory at a time, per batch.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Rows at most.
    pub rows: usize,
    /// About this many bytes at most, unless a single row is larger.
    pub bytes: usize,
}

/// What the relay is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The database with the outbox.
    pub database: Database,
    /// The Redis with the streams.
    pub server: Server,
    /// How long the lease holds without a heartbeat.
    pub lease: Duration,
    /// How often all streams are looked at.
    pub audit: Duration,
    /// How often consumer groups are looked at, stored, and streams trimmed.
    pub checkpoint: Duration,
    /// How long rows are kept at least.
    pub retention: Duration,
    /// How much a stream may hold.
    pub limits: Limits,
    /// How often rows are searched for at least.
    pub poll: Duration,
    /// Whether writers are asked for NOTIFY.
    pub wake: bool,
    /// How long entries in flight may take after a stop was asked for.
    pub drain: Duration,
    /// How long an unreachable server is waited for at start.
    pub start: Duration,
    /// How much is held in memory.
    pub bounds: Bounds,
    /// Where health and metrics are served.
    pub http: SocketAddr,
    /// How many streams have a label of their own in metrics.
    pub metric_streams: usize,
    /// How Redis is reviewed, if it is.
    pub reviews: Option<Reviews>,
}

/// How the leader reviews what Redis holds.
#[derive(Clone, Debug)]
pub struct Reviews {
    /// What a team says of its keys.
    pub rules: Rules,
    /// How often.
    pub every: Duration,
    /// Whether what is stale is removed where its rule says so.
    pub remove: bool,
}

/// Runs until it is stopped: one session after another, and a watch beside them.
///
/// # Errors
/// Only before the first session has begun: `Refused` at once if a server needs a person,
/// `Unavailable` if one cannot be reached within [`Settings::start`]. Afterwards it backs off in
/// place and says so.
pub async fn run(settings: Settings, health: &Health, stop: Stop) -> Result<()> {
    let servers = Servers {
        postgres: Box::new(settings.database.clone()),
        redis: Box::new(settings.server.clone()),
    };
    tokio::select! {
        ran = health.beating(Box::pin(sessions(&servers, &settings, health, stop))) => ran,
        () = watch::watch(&settings, health) => Ok(()),
        () = Box::pin(reviewer::review(&settings, health)) => Ok(()),
    }
}

async fn sessions(
    servers: &Servers,
    settings: &Settings,
    health: &Health,
    stop: Stop,
) -> Result<()> {
    let begun = Instant::now();
    let (mut waits, mut troubles) = (Waits::new(), Troubles::default());
    let mut reached = false;
    let holder = holder();
    while !stop.is_set() {
        let connected = tokio::select! {
            biased;
            connected = Box::pin(session::connect(servers, settings, &holder)) => connected,
            () = stop.wait() => break,
        };
        let error = match connected {
            Ok(ready) => {
                reached = true;
                let led_since = Instant::now();
                let led = Box::pin(session::lead(servers, settings, ready, health, &stop)).await;
                health.role(Role::Neither);
                let Err(error) = led else { break };
                if led_since.elapsed() > STABLE {
                    waits.reset();
                    troubles = Troubles::default();
                }
                error
            }
            Err(error) if reached => error,
            Err(error) if error.kind() == Kind::Refused || begun.elapsed() >= settings.start => {
                return Err(error);
            }
            Err(error) => error,
        };
        let wait = waits.next_wait();
        health.metrics().failed(&error);
        troubles.tell(&error, wait);
        tokio::select! {
            biased;
            () = stop.wait() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    info!("stopped");
    Ok(())
}

/// Which relay this is, for the lease and for people: host, process, and a random part, for two
/// hosts may have the same name.
fn holder() -> String {
    let system = rustix::system::uname();
    let random = uuid::Uuid::new_v4().simple().to_string();
    format!("{}/{}/{}", system.nodename().to_string_lossy(), std::process::id(), &random[..8])
}
