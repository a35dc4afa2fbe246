//! The workers: read entries as a consumer group, look up the order, act once, acknowledge.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::Client;
use uuid::Uuid;

use super::error::chain;
use super::journal::STREAMS;
use super::shop;
use super::streams::{self, WORKERS};

/// The consumers of the group.
pub(super) const NAMES: [&str; 2] = ["worker-1", "worker-2"];
const ENTRIES_AT_ONCE: usize = 100;
const BLOCK_MS: usize = 500;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// What XREADGROUP answers: streams with entries, each with its fields unless it was deleted.
type Reply = Vec<(String, Vec<(String, Option<HashMap<String, String>>)>)>;

/// Workers at work. They are aborted when this is dropped.
pub(super) struct Workers {
    _tasks: JoinSet<()>,
    tally: Arc<Tally>,
}

/// What the workers have done so far.
#[derive(Default)]
pub(super) struct Tally {
    processed: AtomicU64,
    seen_again: AtomicU64,
    last_problem: Mutex<Option<String>>,
}

impl Workers {
    pub(super) fn start(redis_url: &str, database_url: &str) -> Self {
        let tally = Arc::new(Tally::default());
        let mut tasks = JoinSet::new();
        for name in NAMES {
            let (redis_url, database_url) = (redis_url.to_owned(), database_url.to_owned());
            let tally = Arc::clone(&tally);
            tasks.spawn(async move {
                loop {
                    // NOGROUP, a lost connection: whatever it was, begin again from the start.
                    let Err(problem) = work(name, &redis_url, &database_url, &tally).await;
                    tally.set_problem(chain(&*problem));
                    sleep(RETRY_PAUSE).await;
                }
            });
        }
        Self { _tasks: tasks, tally }
    }

    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }
}

impl Tally {
    /// Events processed, each counted once.
    pub(super) fn processed(&self) -> u64 {
        self.processed.load(Ordering::Relaxed)
    }

    /// Entries that were skipped because their event had been processed before.
    pub(super) fn seen_again(&self) -> u64 {
        self.seen_again.load(Ordering::Relaxed)
    }

    /// Why a worker last had to begin again, since the last call.
    pub(super) fn take_problem(&self) -> Option<String> {
        self.last_problem.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set_problem(&self, text: String) {
        *self.last_problem.lock().unwrap_or_else(PoisonError::into_inner) = Some(text);
    }
}

/// Works until something fails.
async fn work(
    name: &str,
    redis_url: &str,
    database_url: &str,
    tally: &Tally,
) -> Result<Infallible, Box<dyn Error + Send + Sync>> {
    let mut redis = streams::connect(redis_url).await?;
    streams::create_groups(&mut redis).await?;
    let mut database = shop::connect(database_url).await?;
    loop {
        // First what was delivered to us and never acknowledged: from before a crash of ours, or
        // put back by the relay.
        let mut reply = read(&mut redis, name, "0").await?;
        if reply.iter().all(|(_, entries)| entries.is_empty()) {
            reply = read(&mut redis, name, ">").await?;
        }
        act(&mut database, name, &reply, tally).await?;
        acknowledge(&mut redis, &reply).await?;
    }
}

async fn read(redis: &mut MultiplexedConnection, name: &str, from: &str) -> RedisResult<Reply> {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(WORKERS).arg(name).arg("COUNT").arg(ENTRIES_AT_ONCE);
    command.arg("BLOCK").arg(BLOCK_MS).arg("STREAMS").arg(&STREAMS).arg(&[from; STREAMS.len()]);
    let reply: Option<Reply> = command.query_async(redis).await?;
    Ok(reply.unwrap_or_default())
}

/// Processes the entries in one transaction, each event once.
async fn act(
    database: &mut Client,
    worker: &str,
    reply: &Reply,
    tally: &Tally,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let (mut processed, mut seen_again) = (0, 0);
    let transaction = database.transaction().await?;
    for (stream, entries) in reply {
        for (position, fields) in entries {
            // Acknowledged, not processed: an entry that was trimmed while it was pending and so
            // has no fields, or one that is not the shop's.
            let Some(fields) = fields else { continue };
            let field = |name| fields.get(name).map(String::as_str).unwrap_or_default();
            let (Ok(event_id), Ok(order)) =
                (field("id").parse::<Uuid>(), field("key").parse::<i64>())
            else {
                continue;
            };
            // The event only says that something happened; the facts are in Postgres.
            let query = "select status from shop.orders where id = $1";
            let status: Option<String> =
                transaction.query_opt(query, &[&order]).await?.map(|row| row.get(0));
            let query = "insert into shop.processed \
                         (event_id, stream, entry_id, worker, order_status) \
                         values ($1, $2, $3, $4, $5) on conflict do nothing";
            match transaction
                .execute(query, &[&event_id, stream, position, &worker, &status])
                .await?
            {
                0 => seen_again += 1,
                _ => processed += 1,
            }
        }
    }
    transaction.commit().await?;
    tally.processed.fetch_add(processed, Ordering::Relaxed);
    tally.seen_again.fetch_add(seen_again, Ordering::Relaxed);
    Ok(())
}

async fn acknowledge(redis: &mut MultiplexedConnection, reply: &Reply) -> RedisResult<()> {
    for (stream, entries) in reply.iter().filter(|(_, entries)| !entries.is_empty()) {
        let positions: Vec<&String> = entries.iter().map(|(position, _)| position).collect();
        let mut command = redis::cmd("XACK");
        command.arg(stream).arg(WORKERS).arg(positions).query_async::<()>(redis).await?;
    }
    Ok(())
}
