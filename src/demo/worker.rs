//! The workers: read entries as a consumer group, look up the order, act once, acknowledge.
//!
//! They do nothing about a loss of Redis but to call again. Making their group again is what they must
//! not do: it would begin somewhere else than where they were.

use std::collections::HashMap;
use std::convert::Infallible;
use std::error::Error;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use redis::RedisResult;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::error::chain;
use super::journal::STREAMS;
use super::shop;
use super::streams::{self, WORKERS};

/// The consumers of the group.
pub(super) const NAMES: [&str; 2] = ["worker-1", "worker-2"];
/// Of each stream.
const ENTRIES_AT_ONCE: usize = 2000;
/// They do and acknowledge what they were given piece by piece, so that a loss finds them in the middle.
const PIECES: usize = 10;
/// What a piece takes, as if the goods were packed. So the workers are always a little behind, and Redis
/// holds something that can be lost.
const PIECE_TIME: Duration = Duration::from_millis(100);
const BLOCK_MS: usize = 500;
const RETRY_PAUSE: Duration = Duration::from_millis(100);

/// Fields of an entry, unless it was deleted.
type Fields = Option<HashMap<String, String>>;

/// What XREADGROUP answers: streams with entries.
type Reply = Vec<(String, Vec<(String, Fields)>)>;

/// An entry that a worker was given.
struct Given {
    stream: String,
    entry_id: String,
    fields: Fields,
}

/// Workers at work. They are aborted when this is dropped.
pub(super) struct Workers {
    _tasks: JoinSet<()>,
    tally: Arc<Tally>,
}

/// What the workers have done so far.
#[derive(Default)]
pub(super) struct Tally {
    processed: AtomicU64,
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
                    // NOGROUP, a lost connection: whatever it was, call again until it works.
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
    /// Events processed, each counted once; for the eye, the truth is in the shop's database.
    pub(super) fn processed(&self) -> u64 {
        self.processed.load(Ordering::Relaxed)
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
    let database = shop::connect(database_url).await?;
    let process = database.prepare(include_str!("process.sql")).await?;
    loop {
        // First what was given to us and never acknowledged: from before a crash of ours, or put back
        // by the relay.
        let mut given = read(&mut redis, name, "0").await?;
        if given.is_empty() {
            given = read(&mut redis, name, ">").await?;
        }
        let given_at = SystemTime::now();
        for piece in given.chunks(given.len().div_ceil(PIECES).max(1)) {
            sleep(PIECE_TIME).await;
            let processed = act(&database, &process, name, piece, given_at).await?;
            tally.processed.fetch_add(processed, Ordering::Relaxed);
            acknowledge(&mut redis, piece).await?;
        }
    }
}

async fn read(
    redis: &mut MultiplexedConnection,
    name: &str,
    from: &str,
) -> RedisResult<Vec<Given>> {
    let mut command = redis::cmd("XREADGROUP");
    command.arg("GROUP").arg(WORKERS).arg(name).arg("COUNT").arg(ENTRIES_AT_ONCE);
    command.arg("BLOCK").arg(BLOCK_MS).arg("STREAMS").arg(&STREAMS).arg(&[from; STREAMS.len()]);
    let reply: Option<Reply> = command.query_async(redis).await?;
    let entries = |(stream, entries): (String, Vec<(String, Fields)>)| {
        let given = move |(entry_id, fields)| Given { stream: stream.clone(), entry_id, fields };
        entries.into_iter().map(given)
    };
    Ok(reply.into_iter().flatten().flat_map(entries).collect())
}

/// Processes entries in one transaction, each event once; how many there were to process.
async fn act(
    database: &Client,
    process: &Statement,
    worker: &str,
    piece: &[Given],
    given_at: SystemTime,
) -> Result<u64, tokio_postgres::Error> {
    let streams: Vec<&str> = piece.iter().map(|given| &*given.stream).collect();
    let entries: Vec<&str> = piece.iter().map(|given| &*given.entry_id).collect();
    // What is no event of the shop's is noted and acknowledged, and cannot be processed.
    let events: Vec<Option<Uuid>> = piece.iter().map(|given| given.field("id")).collect();
    let orders: Vec<Option<i64>> = piece.iter().map(|given| given.field("key")).collect();
    let row = database
        .query_one(process, &[&streams, &entries, &events, &orders, &worker, &given_at])
        .await?;
    Ok(row.get::<_, i64>(0).cast_unsigned())
}

impl Given {
    fn field<T: FromStr>(&self, name: &str) -> Option<T> {
        self.fields.as_ref()?.get(name)?.parse().ok()
    }
}

async fn acknowledge(redis: &mut MultiplexedConnection, piece: &[Given]) -> RedisResult<()> {
    for stream in STREAMS {
        let given = piece.iter().filter(|given| given.stream == stream);
        let entries: Vec<&str> = given.map(|given| &*given.entry_id).collect();
        if !entries.is_empty() {
            let mut command = redis::cmd("XACK");
            command.arg(stream).arg(WORKERS).arg(entries).exec_async(redis).await?;
        }
    }
    Ok(())
}
