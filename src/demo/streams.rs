//! The shop's streams in Redis, as an onlooker sees them.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, RedisResult};

use super::journal::{Fate, Record, STREAMS};

const PAGE: usize = 1000;

/// The group of the workers.
pub(super) const WORKERS: &str = "workers";

/// A group that never reads. As long as a group has not acknowledged an entry the relay keeps it
/// and puts it back after a loss, so at the end everything can be counted.
pub(super) const AUDITORS: &str = "auditors";

const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// An entry of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// Its ID in the stream.
    pub(super) position: String,
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

    /// How many entries each stream has, in the order of [`STREAMS`].
    pub(super) async fn lengths(&mut self) -> RedisResult<[u64; STREAMS.len()]> {
        let mut lengths = [0; STREAMS.len()];
        for (length, stream) in lengths.iter_mut().zip(STREAMS) {
            *length = self.query(redis::cmd("XLEN").arg(stream)).await?;
        }
        Ok(lengths)
    }

    pub(super) async fn total(&mut self) -> RedisResult<u64> {
        self.lengths().await.map(|lengths| lengths.iter().sum())
    }

    /// The ID of the last entry of `stream`; before all others when there is none.
    pub(super) async fn last_position(&mut self, stream: &str) -> RedisResult<String> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(stream).arg("+").arg("-").arg("COUNT").arg(1);
        let page: Vec<(String, HashMap<String, String>)> = self.query(&command).await?;
        Ok(page.into_iter().next().map_or_else(|| "0-0".to_owned(), |(position, _)| position))
    }

    /// All entries of `stream` behind the position `after`.
    pub(super) async fn entries(&mut self, stream: &str, after: &str) -> RedisResult<Vec<Entry>> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let last = entries.last().map_or(after, |entry| entry.position.as_str());
            let start = format!("({last}");
            let mut command = redis::cmd("XRANGE");
            command.arg(stream).arg(start).arg("+").arg("COUNT").arg(PAGE);
            let page: Vec<(String, HashMap<String, String>)> = self.query(&command).await?;
            if page.is_empty() {
                return Ok(entries);
            }
            entries.extend(page.into_iter().map(|(position, mut fields)| Entry {
                position,
                event_id: fields.remove("id").unwrap_or_default(),
            }));
        }
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

/// Committed events that have not been seen in the streams so far.
pub(super) struct Absent {
    missing: HashSet<(&'static str, String)>,
    seen_up_to: [String; STREAMS.len()],
}

impl Absent {
    /// Expects every committed event among `records`.
    pub(super) fn new(records: &[Record]) -> Self {
        let committed = records.iter().filter(|record| record.fate == Fate::Committed);
        Self {
            missing: committed
                .map(|record| (record.event.stream, record.event.id.to_string()))
                .collect(),
            seen_up_to: STREAMS.map(|_| "0-0".to_owned()),
        }
    }

    /// Looks at what the streams got since the last call; how many are still missing.
    pub(super) async fn look(&mut self, streams: &mut Streams) -> RedisResult<usize> {
        for (stream, seen_up_to) in STREAMS.into_iter().zip(&mut self.seen_up_to) {
            for entry in streams.entries(stream, seen_up_to).await? {
                self.missing.remove(&(stream, entry.event_id));
                *seen_up_to = entry.position;
            }
        }
        Ok(self.missing.len())
    }

    /// How many are missing from each stream, with an example.
    pub(super) fn describe(&self) -> Vec<String> {
        let of = |stream: &str| {
            let mut ids = self.missing.iter().filter(|(s, _)| *s == stream).map(|(_, id)| id);
            let example = ids.next()?;
            Some(format!("{} of {stream}, such as event {example}", ids.count() + 1))
        };
        STREAMS.into_iter().filter_map(of).collect()
    }
}

pub(super) async fn connect(url: &str) -> RedisResult<MultiplexedConnection> {
    connect_for(url, ANSWER_LIMIT).await
}

/// A connection for commands that may take as long as `limit`.
pub(super) async fn connect_for(url: &str, limit: Duration) -> RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new().set_response_timeout(Some(limit));
    Client::open(url)?.get_multiplexed_async_connection_with_config(&config).await
}

/// Makes the groups of both streams where they are missing, from the first entry on: what they
/// had acknowledged died with Redis.
pub(super) async fn create_groups(connection: &mut MultiplexedConnection) -> RedisResult<()> {
    for stream in STREAMS {
        for group in [AUDITORS, WORKERS] {
            let mut command = redis::cmd("XGROUP");
            command.arg("CREATE").arg(stream).arg(group).arg("0").arg("MKSTREAM");
            match command.query_async::<()>(connection).await {
                Err(error) if error.code() != Some("BUSYGROUP") => return Err(error),
                _ => {}
            }
        }
    }
    Ok(())
}
