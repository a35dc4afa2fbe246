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
//! | `session` | connections, the lease, and the order of the stages: begin here |
//! | `reader`, `pace` | finds rows; when to search and when to sleep (pure) |
//! | `sealer`, `plan` | fixes positions; which position each row gets (pure) |
//! | `appender`, `work`, `progress` | carries batches; what is in flight; where one stream stands (pure) |
//! | `recovery`, `decide` | brings a stream back into step; what to do where it differs (pure) |
//! | `replay`, `audit`, `ahead` | a chunk of the log; a look at all streams; entries without rows |
//! | `keeper` | the lease and upkeep |
//! | `verify` | Redis compared with the log, for people |

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::error::{Kind, Result};
use crate::outbox::Database;
use crate::retry::Waits;
use crate::stream::Server;

mod ahead;
mod appender;
mod audit;
pub mod decide;
mod keeper;
pub mod pace;
pub mod plan;
pub mod progress;
mod reader;
mod recovery;
mod replay;
mod report;
mod sealer;
mod session;
pub mod verify;
mod work;

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
}

/// Asks the relay to stop. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// The other end of a [`Stop`].
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// A stopper and what it stops.
    pub fn new() -> (Self, Stop) {
        let (sender, receiver) = watch::channel(false);
        (Self(sender), Stop(receiver))
    }

    /// Asks to stop.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// A stop was asked for.
    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until a stop is asked for; for ever if the stopper is gone.
    pub async fn wait(&self) {
        let mut receiver = self.0.clone();
        if receiver.wait_for(|stopped| *stopped).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// Runs until it is stopped: one session after another.
///
/// # Errors
/// Only before the first session has begun: `Refused` at once if a server needs a person,
/// `Unavailable` if one cannot be reached within [`Settings::start`]. Afterwards it backs off in
/// place and says so.
pub async fn run(settings: Settings, stop: Stop) -> Result<()> {
    let holder = format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple());
    let begun = Instant::now();
    let mut waits = Waits::new();
    let mut reached = false;
    while !stop.is_set() {
        let connected = tokio::select! {
            connected = Box::pin(session::connect(&settings, &holder)) => connected,
            () = stop.wait() => break,
        };
        let error = match connected {
            Ok(ready) => {
                reached = true;
                let led_since = Instant::now();
                let Err(error) = Box::pin(session::lead(&settings, ready, &stop)).await else {
                    break;
                };
                if led_since.elapsed() > STABLE {
                    waits.reset();
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
        warn!("{error}; trying again in {} ms", wait.as_millis());
        tokio::select! {
            () = stop.wait() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
    info!("stopped");
    Ok(())
}
