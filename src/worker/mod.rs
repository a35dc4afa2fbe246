//! The worker's half: reads a stream as a consumer of a group, and does each event's work once.
//!
//! The relay gives a worker every event at least once: after a crash, and after a loss of Redis, some come
//! again. So the note that an event is done stands in Postgres, in `outbox.done`, and commits with what was
//! done:
//!
//! 1. Begin a transaction, and note the event as done. It was noted before? Acknowledge it, and that is all.
//! 2. [`Handler::read`]s the current record, and [`Handler::act`]s.
//! 3. Commit.
//! 4. Acknowledge the entry in Redis.
//!
//! Whatever breaks in between, either all of it is in Postgres and the event is acknowledged when it comes
//! again, or nothing is and it is tried again. What handlers do outside of Postgres can happen again.
//!
//! ```no_run
//! use outbox_relay::worker::{Database, Event, Failure, Handler, Server, Settings, Transaction, Worker};
//!
//! struct Receipts;
//!
//! impl Handler for Receipts {
//!     type Record = String;
//!
//!     // What the event is about, as it is by now; None if there is nothing to do any more.
//!     async fn read(
//!         &self,
//!         event: &Event,
//!         transaction: &mut Transaction<'_>,
//!     ) -> Result<Option<String>, Failure> {
//!         let order: i64 = event.key.as_deref().unwrap_or_default().parse()?;
//!         let sql = "select status from orders where id = $1 for update";
//!         Ok(transaction.query_opt(sql, &[&order]).await?.map(|row| row.get(0)))
//!     }
//!
//!     // What is written here commits together with the note that the event is done.
//!     async fn act(
//!         &self,
//!         event: &Event,
//!         status: String,
//!         transaction: &mut Transaction<'_>,
//!     ) -> Result<(), Failure> {
//!         let sql = "insert into receipts (event_id, status) values ($1, $2)";
//!         transaction.execute(sql, &[&event.id, &status]).await?;
//!         Ok(())
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() -> outbox_relay::error::Result<()> {
//!     let database = Database::from_url("postgres://shop@localhost:5432/shop")?;
//!     let redis = Server::from_url("redis://localhost:6379/0", "")?;
//!     let settings = Settings::new("orders", "receipts", "worker-1");
//!     let stop = async { _ = tokio::signal::ctrl_c().await }; // or SIGTERM, as Kubernetes sends it
//!     Worker::new(database, redis, settings).run(Receipts, stop).await
//! }
//! ```
//!
//! **Order.** Events of one key are worked on one after the other, in their order, those of different keys
//! at the same time. One that is to be tried again holds back those of its key, and no others. That holds
//! within one worker that keeps its name; to work on one stream by several in order, give it partitions,
//! and each of them one worker.
//!
//! **Attempts.** A handler that fails, panics or takes too long is tried again after a wait that doubles.
//! Redis counts the attempts, so a worker that dies of an event is counted as well. After the last one the
//! event goes to `outbox.dead_letter`, with the last error, and is acknowledged; `outbox-relay dead` lists
//! such events, and asks for one more attempt or discards them. What a lost server interrupts is not counted.
//! An event that may have killed its worker runs alone at its last attempt, so that none beside it is blamed.
//!
//! **Losses.** While Redis or Postgres is away a worker waits and tries again. After a loss of Redis the
//! relay puts back the stream and the group; the worker reads again what it had not acknowledged, and what
//! it had done is found to be done.
//!
//! | file | noun |
//! |---|---|
//! | `settings` | how a worker works |
//! | `event`, `handler` | what a handler is given, and what it is |
//! | `attempt` | the order that makes the promise: note, read, act, commit |
//! | `task` | an attempt that is counted, made, and perhaps the last |
//! | `queue` | what is held, and what of it may begin (pure) |
//! | `crew` | what runs, and what becomes of it |
//! | `reader`, `receipts` | what Redis gives; what it is told |
//!
//! It reads by the same two ends as the relay, [`outbox`](crate::outbox) and [`stream`](crate::stream), and
//! knows nothing of the relay.

mod attempt;
mod crew;
mod event;
mod handler;
mod queue;
mod reader;
mod receipts;
mod settings;
mod task;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::info;

use self::crew::Crew;
use self::reader::Reader;
use self::receipts::Receipts;
use self::task::Means;
use crate::error::{Kind, Result};
use crate::outbox::WorkLog;
use crate::retry::Waits;
use crate::stream::Consumer;
use crate::telemetry::Troubles;

pub use self::event::Event;
pub use self::handler::{Failure, Handler, Outcome};
pub use self::settings::Settings;
pub use crate::outbox::Database;
pub use crate::outbox::postgres;
pub use crate::outbox::postgres::Transaction;
pub use crate::stream::Server;

/// What is told to Redis at the end may take this long.
const FAREWELL: Duration = Duration::from_secs(5);

/// A worker: one consumer of one group of one stream.
#[derive(Debug)]
pub struct Worker {
    database: Database,
    server: Server,
    settings: Settings,
}

impl Worker {
    /// A worker that notes in `database` what it does with what `server` gives it.
    pub fn new(database: Database, server: Server, settings: Settings) -> Self {
        Self { database, server, settings }
    }

    /// Works until `stop` is ready; then ends what it has begun, and returns. To be run on a Tokio runtime.
    ///
    /// Servers that cannot be reached are waited for, at the beginning as well.
    ///
    /// # Errors
    /// `Usage` for settings out of their bounds; `Refused` if a server answers at the beginning and a person
    /// must act: a wrong password, an old schema, a missing right, a pooler that shares sessions.
    pub async fn run<H: Handler>(self, handler: H, stop: impl Future<Output = ()>) -> Result<()> {
        self.settings.check()?;
        let mut stop = std::pin::pin!(stop);
        let log = tokio::select! {
            begun = self.begin() => begun?,
            () = &mut stop => return Ok(()),
        };
        let Self { database, server, settings } = self;
        let name = settings.consumer.clone();
        let (mut reading, mut telling) = (JoinSet::new(), JoinSet::new());
        let (receipts, clerk) = Receipts::new(server.clone(), settings.clone());
        telling.spawn(clerk.run());
        let means = Means { handler, database, settings: settings.clone(), receipts };
        let look_back = Arc::<AtomicBool>::default();
        let (mut crew, room) = Crew::new(means, log, Arc::clone(&look_back));
        let (read, given) = mpsc::channel(1);
        reading.spawn(Reader { server, settings, room, read, look_back }.run());
        info!(worker = name, "worker {name} begins");
        let worked = crew.work(given, stop).await;
        reading.shutdown().await;
        crew.drain().await;
        let told = async { while telling.join_next().await.is_some() {} };
        // What is not told is given again, and found to be done.
        let _ = timeout(FAREWELL, told).await;
        info!(worker = name, "worker {name} has ended");
        worked
    }

    /// Looks whether both servers let it work, and makes its group.
    async fn begin(&self) -> Result<WorkLog> {
        let (mut waits, mut troubles) = (Waits::new(), Troubles::default());
        loop {
            match self.try_to_begin().await {
                Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Busy) => {
                    let wait = waits.next_wait();
                    troubles.tell(&error, wait);
                    sleep(wait).await;
                }
                begun => return begun,
            }
        }
    }

    async fn try_to_begin(&self) -> Result<WorkLog> {
        let Settings { stream, group, consumer, limit, .. } = &self.settings;
        let log = WorkLog::open(&self.database, group, *limit).await?;
        let consumer = Consumer::connect(&self.server, stream, group, consumer).await?;
        consumer.make_group().await?;
        log.refuse_pooler(&self.database).await?;
        Ok(log)
    }
}
