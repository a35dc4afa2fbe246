//! Events that consumer groups have given up: listed, asked to be tried again, discarded.

use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connect::{Connection, answer};
use crate::error::Result;

/// An event that a group gives up, or has given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buried {
    /// The event.
    pub event: Uuid,
    /// Its stream.
    pub stream: String,
    /// Its ID in the stream.
    pub entry_id: String,
    /// Its key.
    pub key: Option<String>,
    /// Its type.
    pub kind: Option<String>,
    /// Its payload, JSON.
    pub payload: String,
    /// Its headers, JSON.
    pub headers: Option<String>,
    /// When it was written, RFC 3339.
    pub created_at: String,
    /// How often it was given to a worker.
    pub deliveries: u64,
}

/// An event that a group has given up, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// The event.
    pub buried: Buried,
    /// The consumer group.
    pub group: String,
    /// Why the last attempt failed.
    pub error: String,
    /// When it was given up, the last time.
    pub died_at: Timestamp,
    /// When somebody asked for one more attempt that no worker has begun yet.
    pub retry_at: Option<Timestamp>,
}

/// Which of them; what is None is not asked for.
#[derive(Clone, Debug, Default)]
pub struct Dead {
    /// Of this consumer group.
    pub group: Option<String>,
    /// Of this stream.
    pub stream: Option<String>,
    /// This event.
    pub event: Option<Uuid>,
}

impl Dead {
    /// Those there are, at most `most`, the last given up first.
    ///
    /// # Errors
    /// As any statement.
    pub async fn list(&self, connection: &Connection, most: usize) -> Result<Vec<DeadLetter>> {
        let sql = include_str!("../../sql/queries/dead_letters.sql");
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let client = connection.client();
        let rows =
            answer(client.query(sql, &[&self.group, &self.stream, &self.event, &most])).await?;
        Ok(rows.iter().map(read).collect())
    }
}

impl DeadLetter {
    /// Asks for one more attempt. False if it is no dead letter any more.
    ///
    /// # Errors
    /// As any statement.
    pub async fn retry(&self, connection: &Connection) -> Result<bool> {
        self.call(connection, "select outbox.retry_dead_letter($1, $2)").await
    }

    /// Forgets it for good. False if it is no dead letter any more.
    ///
    /// # Errors
    /// As any statement.
    pub async fn discard(&self, connection: &Connection) -> Result<bool> {
        self.call(connection, "select outbox.discard_dead_letter($1, $2)").await
    }

    async fn call(&self, connection: &Connection, sql: &str) -> Result<bool> {
        let client = connection.client();
        Ok(answer(client.query_one(sql, &[&self.group, &self.buried.event])).await?.get(0))
    }
}

impl Buried {
    /// Reads what a row begins with.
    pub(super) fn read(row: &Row) -> Self {
        Self {
            event: row.get(0),
            stream: row.get(1),
            entry_id: row.get(2),
            key: row.get(3),
            kind: row.get(4),
            payload: row.get(5),
            headers: row.get(6),
            created_at: row.get(7),
            deliveries: row.get::<_, i64>(8).unsigned_abs(),
        }
    }
}

fn read(row: &Row) -> DeadLetter {
    DeadLetter {
        buried: Buried::read(row),
        group: row.get("consumer_group"),
        error: row.get("error"),
        died_at: row.get("died_at"),
        retry_at: row.get("retry_at"),
    }
}
