//! What waits, since when, and who leads: for metrics and for people.

use jiff::Timestamp;
use tokio_postgres::Row;

use super::connect::{Connection, answer};
use crate::error::Result;

/// One stream, as `outbox.stream_status` shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct StreamStatus {
    /// Its name.
    pub stream: String,
    /// Number of the last sealed entry.
    pub sealed: u64,
    /// Number of the last entry known to be in Redis.
    pub dispatched: u64,
    /// Every consumer group has acknowledged up to here; None while that is not known.
    pub acked: Option<u64>,
    /// Rows and log have been purged up to here.
    pub purged: u64,
    /// Nobody needs an entry up to here, as last stored.
    pub floor: u64,
    /// Rows that are not known to be in Redis, sealed or not.
    pub undispatched: u64,
    /// When the oldest of them was inserted.
    pub oldest_at: Option<Timestamp>,
    /// Its age in seconds, by the clock of Postgres.
    pub oldest_age: Option<f64>,
    /// `active`, `rebuilding`, `full`, `paused` or `halted`.
    pub state: String,
    /// Why, and what to do.
    pub reason: Option<String>,
}

/// The oldest open transaction.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OldestTransaction {
    /// Its age in seconds, as far as this role may see it.
    pub age: Option<f64>,
    /// The oldest transaction id in progress.
    pub xid: Option<String>,
}

/// The current term of leadership.
#[derive(Clone, Debug, PartialEq)]
pub struct Leadership {
    /// Its token.
    pub token: i64,
    /// Which relay; empty before the first.
    pub holder: String,
    /// When it began.
    pub since: Timestamp,
    /// Seconds until its lease ends; negative once it has ended.
    pub remaining: f64,
}

/// Entries of one stream whose rows Postgres lost.
#[derive(Clone, Debug, PartialEq)]
pub struct Phantoms {
    /// The stream.
    pub stream: String,
    /// How many.
    pub entries: u64,
    /// When the last of them was found.
    pub found_at: Timestamp,
}

/// Asks, on a connection of its own, which it keeps open.
#[derive(Debug)]
pub struct Survey(Connection);

impl Survey {
    /// Asks on `connection`.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// All streams, by name. The cost grows with streams and backlog, not with rows kept.
    ///
    /// # Errors
    /// As any statement.
    pub async fn streams(&self) -> Result<Vec<StreamStatus>> {
        let rows = self.ask(include_str!("../../sql/queries/survey.sql")).await?;
        Ok(rows.iter().map(stream_status).collect())
    }

    /// The oldest open or prepared transaction.
    ///
    /// # Errors
    /// As any statement.
    pub async fn oldest_transaction(&self) -> Result<OldestTransaction> {
        let rows = self.ask(include_str!("../../sql/queries/transactions.sql")).await?;
        let read = |row: &Row| OldestTransaction { age: row.get(0), xid: row.get(1) };
        Ok(rows.first().map(read).unwrap_or_default())
    }

    /// The current term, whether its lease still holds or not.
    ///
    /// # Errors
    /// As any statement.
    pub async fn leadership(&self) -> Result<Option<Leadership>> {
        let rows = self.ask(include_str!("../../sql/queries/leadership.sql")).await?;
        Ok(rows.first().map(|row| Leadership {
            token: row.get("token"),
            holder: row.get("holder"),
            since: row.get("taken_at"),
            remaining: row.get("remaining"),
        }))
    }

    /// Streams with entries whose rows Postgres lost.
    ///
    /// # Errors
    /// As any statement.
    pub async fn phantoms(&self) -> Result<Vec<Phantoms>> {
        let rows = self.ask(include_str!("../../sql/queries/phantoms.sql")).await?;
        let read = |row: &Row| Phantoms {
            stream: row.get(0),
            entries: row.get::<_, i64>(1).unsigned_abs(),
            found_at: row.get(2),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Events that consumer groups have given up.
    ///
    /// # Errors
    /// As any statement.
    pub async fn dead_letters(&self) -> Result<u64> {
        let rows = self.ask(include_str!("../../sql/queries/count_dead_letters.sql")).await?;
        Ok(rows.first().map_or(0, |row| row.get::<_, i64>(0).unsigned_abs()))
    }

    /// Streams whose last position is ahead of the clock of Postgres, and by how many seconds: the clock
    /// had been wrong, or has gone back.
    ///
    /// # Errors
    /// As any statement.
    pub async fn ahead_of_clock(&self) -> Result<Vec<(String, f64)>> {
        let rows = self.ask(include_str!("../../sql/queries/ahead_of_clock.sql")).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Asks for nothing but an answer.
    ///
    /// # Errors
    /// As any statement.
    pub async fn ping(&self) -> Result<()> {
        self.0.batch("").await
    }

    async fn ask(&self, sql: &str) -> Result<Vec<Row>> {
        answer(self.0.client().query(sql, &[])).await
    }
}

fn stream_status(row: &Row) -> StreamStatus {
    let number = |name: &str| row.get::<_, i64>(name).unsigned_abs();
    StreamStatus {
        stream: row.get("stream"),
        sealed: number("sealed"),
        dispatched: number("dispatched"),
        acked: row.get::<_, Option<i64>>("acked").map(i64::unsigned_abs),
        purged: number("purged"),
        floor: number("floor"),
        undispatched: number("undispatched"),
        oldest_at: row.get("oldest_undispatched_at"),
        oldest_age: row.get("oldest_age"),
        state: row.get("state"),
        reason: row.get("reason"),
    }
}
