//! The shop's streams in Redis, as an onlooker sees them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult, Value, from_redis_value};

use super::held::{Held, HeldStream};
use super::journal::STREAMS;
use crate::position::Position;

const PAGE: usize = 1000;

/// More than are ever pending here.
const PENDING_AT_MOST: usize = 1_000_000;

/// The group of the workers.
pub(super) const WORKERS: &str = "workers";

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// An entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its ID in the stream.
    pub(super) position: Position,
    /// Its field `id`, as text: it may be anything.
    pub(super) event_id: String,
}

/// Reads the streams, over one connection as long as it holds.
pub(super) struct Streams {
    url: String,
    connection: Option<MultiplexedConnection>,
}

impl Streams {
    pub(super) fn new(url: String) -> Self {
        Self { url, connection: None }
    }

    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// How many entries the streams have.
    pub(super) async fn total(&mut self) -> RedisResult<u64> {
        let mut total = 0;
        for stream in STREAMS {
            total += self.query::<u64>(redis::cmd("XLEN").arg(stream)).await?;
        }
        Ok(total)
    }

    /// The ID of the last entry that each stream was given, whether it is still there or trimmed.
    pub(super) async fn last_positions(&mut self) -> RedisResult<[Position; STREAMS.len()]> {
        let mut all = [Position::START; STREAMS.len()];
        for (last, stream) in all.iter_mut().zip(STREAMS) {
            let mut command = redis::cmd("XINFO");
            command.arg("STREAM").arg(stream);
            let mut info: HashMap<String, Value> = self.query(&command).await?;
            *last = position(info.remove("last-generated-id"))?;
        }
        Ok(all)
    }

    /// How many entries both streams were given so far. The number in an ID counts them without a gap,
    /// and unlike their length it is not made less by trimming.
    pub(super) async fn appended(&mut self) -> RedisResult<u64> {
        self.last_positions().await.map(|last| last.iter().map(|last| last.n).sum())
    }

    /// What they hold, and where the group of the workers is.
    pub(super) async fn held(&mut self) -> RedisResult<Held> {
        let mut held = Held::default();
        for (held, stream) in held.streams.iter_mut().zip(STREAMS) {
            *held = HeldStream {
                // The group first: what is acknowledged in between counts as not acknowledged.
                delivered: self.delivered(stream).await?,
                pending: self.pending(stream).await?,
                entries: self.entries(stream, Position::START).await?,
            };
        }
        Ok(held)
    }

    /// All entries of `stream` behind the position `after`.
    pub(super) async fn entries(
        &mut self,
        stream: &str,
        after: Position,
    ) -> RedisResult<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let last = entries.last().map_or(after, |entry| entry.position);
            let start = format!("({last}");
            let mut command = redis::cmd("XRANGE");
            command.arg(stream).arg(start).arg("+").arg("COUNT").arg(PAGE);
            let page: Vec<(String, HashMap<String, String>)> = self.query(&command).await?;
            if page.is_empty() {
                return Ok(entries);
            }
            for (id, mut fields) in page {
                let position = id.parse().map_err(odd)?;
                let event_id = fields.remove("id").unwrap_or_default();
                entries.push(Entry { position, event_id });
            }
        }
    }

    /// The last entry that the group of the workers was given. An error where there is no such group.
    async fn delivered(&mut self, stream: &str) -> RedisResult<Position> {
        let mut command = redis::cmd("XINFO");
        command.arg("GROUPS").arg(stream);
        let groups: Vec<HashMap<String, Value>> = self.query(&command).await?;
        let is_ours = |group: &HashMap<String, Value>| {
            let name = group.get("name").cloned().map(from_redis_value::<String>);
            name.is_some_and(|name| name.is_ok_and(|name| name == WORKERS))
        };
        let group = groups.into_iter().find(is_ours);
        let mut group = group.ok_or_else(|| odd(format!("no group {WORKERS} of {stream}")))?;
        position(group.remove("last-delivered-id"))
    }

    /// What the group was given and has not acknowledged.
    async fn pending(&mut self, stream: &str) -> RedisResult<HashSet<Position>> {
        let mut command = redis::cmd("XPENDING");
        command.arg(stream).arg(WORKERS).arg("-").arg("+").arg(PENDING_AT_MOST);
        let pending: Vec<(String, String, u64, u64)> = self.query(&command).await?;
        pending.into_iter().map(|(id, ..)| id.parse().map_err(odd)).collect()
    }

    /// Sends a command that only reads, again on a new connection if the old one fails.
    async fn query<T: redis::FromRedisValue>(&mut self, command: &redis::Cmd) -> RedisResult<T> {
        if let Some(mut connection) = self.connection.take()
            && let Ok(answer) = command.query_async(&mut connection).await
        {
            self.connection = Some(connection);
            return Ok(answer);
        }
        let mut connection = connect(&self.url).await?;
        let answer = command.query_async(&mut connection).await?;
        self.connection = Some(connection);
        Ok(answer)
    }
}

fn position(value: Option<Value>) -> RedisResult<Position> {
    let id: String = from_redis_value(value.unwrap_or(Value::Nil))?;
    id.parse().map_err(odd)
}

fn odd(what: String) -> redis::RedisError {
    (redis::ErrorKind::UnexpectedReturnType, "Redis answered oddly", what).into()
}

pub(super) async fn connect(url: &str) -> RedisResult<MultiplexedConnection> {
    connect_for(url, ANSWER_LIMIT).await
}

/// A connection for commands that may take as long as `limit`.
pub(super) async fn connect_for(url: &str, limit: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(limit));
    Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

/// Makes the group of the workers in both streams, from the first entry on. The shop does it once, when
/// it is set up; after a loss it is the relay that puts groups back.
pub(super) async fn create_groups(url: &str) -> RedisResult<()> {
    let mut connection = connect(url).await?;
    for stream in STREAMS {
        let mut command = redis::cmd("XGROUP");
        command.arg("CREATE").arg(stream).arg(WORKERS).arg("0").arg("MKSTREAM");
        command.exec_async(&mut connection).await?;
    }
    Ok(())
}
