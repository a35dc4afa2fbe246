//! The log read again: where rows and streams stand, and what Redis must be given back.

use std::collections::HashSet;

use deadpool_postgres::Pool;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};

use super::checkpoint::Saved;
use super::connect::{answer, statement_error};
use super::cursor::{Cursor, Snapshot};
use super::find::Names;
use super::hold::{HOLDS, Holds};
use super::page::Pages;
use super::streams::{Head, State};
use crate::entry::Entry;
use crate::error::{Kind, Result, Target};
use crate::group::Group;
use crate::position::Position;

/// Reads the log, on connections of a pool. Cloning is cheap.
#[derive(Clone, Debug)]
pub struct LogReader {
    pool: Pool,
    pages: Pages,
}

/// One number of the log with its row.
#[derive(Clone, Debug)]
pub struct Logged {
    /// Its position.
    pub position: Position,
    /// The row, or None if it is no longer in Postgres.
    pub entry: Option<Entry>,
}

impl LogReader {
    /// Reads through `pool`.
    pub fn new(pool: Pool) -> Self {
        Self { pool, pages: Pages::default() }
    }

    /// Where rows have been found up to, and the number of the last seal.
    ///
    /// # Errors
    /// As any statement.
    pub async fn cursor(&self) -> Result<(Cursor, i64)> {
        let sql = "select seal, base::text, target::text, through, high from outbox.cursor";
        let client = self.client().await?;
        let row = answer(client.query_one(sql, &[])).await?;
        let read = |text: &str| -> Result<Snapshot> {
            text.parse().map_err(|error: String| Target::Postgres.error(Kind::Internal, error))
        };
        let target: Option<&str> = row.get(2);
        let through: Option<i64> = row.get(3);
        let window = match target.zip(through) {
            Some((target, through)) => Some((read(target)?, through)),
            None => None,
        };
        let cursor = Cursor { base: read(row.get(1))?, window, high: row.get(4) };
        Ok((cursor, row.get(0)))
    }

    /// All streams with their heads.
    ///
    /// # Errors
    /// As any statement.
    pub async fn heads(&self) -> Result<Vec<Head>> {
        let client = self.client().await?;
        let rows = answer(client.query(include_str!("../../sql/queries/heads.sql"), &[])).await?;
        Ok(rows
            .iter()
            .map(|row| Head {
                stream: row.get::<_, &str>("name").into(),
                sealed: position(row, "ms", "sealed"),
                dispatched: row.get::<_, i64>("dispatched").unsigned_abs(),
                floor: position(row, "floor_ms", "floor_n"),
                purged: position(row, "purged_ms", "purged_n"),
                canary: row
                    .get::<_, Option<String>>("nonce")
                    .zip(row.get::<_, Option<i64>>("count").map(i64::unsigned_abs)),
                checkpointed_us: row.get("checkpointed_us"),
                groups_lost: row.get("groups_lost"),
                told: (State::read(row.get("state")).unwrap_or(State::Active), row.get("reason")),
            })
            .collect())
    }

    /// The position that the log gave to number `n` of `stream`, if it did. That of an entry whose row
    /// Postgres has lost is known as well: a Redis that goes back may end with it.
    ///
    /// # Errors
    /// As any statement.
    pub async fn locate(&self, stream: &str, n: u64) -> Result<Option<Position>> {
        let Ok(number) = i64::try_from(n) else { return Ok(None) };
        let sql = include_str!("../../sql/queries/locate.sql");
        let client = self.client().await?;
        let statement = answer(client.prepare_cached(sql)).await?;
        let row = answer(client.query_opt(&statement, &[&stream, &number])).await?;
        Ok(row.map(|row| Position { ms: row.get::<_, i64>(0).unsigned_abs(), n }))
    }

    /// What the log has of `stream` after number `after` up to `through`: at most `rows`, and at
    /// most about `bytes` unless the first row alone is larger.
    ///
    /// # Errors
    /// As any statement.
    pub async fn read(
        &self,
        stream: &str,
        after: u64,
        through: u64,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Logged>> {
        use futures_util::TryStreamExt as _;
        let client = self.client().await?;
        let sql = include_str!("../../sql/queries/read_log.sql");
        let statement = answer(client.prepare_cached(sql)).await?;
        let mut page = self.pages.of(stream);
        let asked = page.rows(rows);
        let (after, through, limit) = (after as i64, through as i64, asked as i64);
        let parameters: [&(dyn ToSql + Sync); 4] = [&stream, &after, &through, &limit];
        let found = answer(client.query_raw(&statement, parameters)).await?;
        let mut found = std::pin::pin!(found);
        let (mut names, mut logged, mut size, mut cut) = (Names::default(), Vec::new(), 0, false);
        while let Some(row) = answer(found.try_next()).await? {
            if size >= bytes && !logged.is_empty() {
                cut = true;
                continue;
            }
            let present: Option<i64> = row.try_get("id").map_err(statement_error)?;
            let entry = match present {
                Some(_) => Some(names.entry(&row, 2)?),
                None => None,
            };
            size += entry.as_ref().map_or(100, Entry::size);
            logged.push(Logged {
                position: Position {
                    ms: row.get::<_, i64>(0).unsigned_abs(),
                    n: row.get::<_, i64>(1).unsigned_abs(),
                },
                entry,
            });
        }
        page.took(logged.len(), asked, cut);
        self.pages.set(stream, page);
        Ok(logged)
    }

    /// The consumer groups of `stream`, as of its latest checkpoint.
    ///
    /// # Errors
    /// As any statement.
    pub async fn saved_groups(&self, stream: &str) -> Result<Saved> {
        let sql = include_str!("../../sql/queries/saved_groups.sql");
        let client = self.client().await?;
        let Some(row) = answer(client.query_opt(sql, &[&stream])).await? else {
            return Ok(Saved::default());
        };
        let Json(groups) = row.get::<_, Json<Vec<Group>>>("groups");
        Ok(Saved { floor: position(&row, "ms", "n"), groups })
    }

    /// Remembers that the consumer groups of `stream` are not what they were, until a checkpoint of them
    /// is stored.
    ///
    /// # Errors
    /// As any statement.
    pub async fn lose_groups(&self, stream: &str) -> Result<()> {
        let client = self.client().await?;
        let sql = include_str!("../../sql/queries/lose_groups.sql");
        answer(client.execute(sql, &[&stream])).await.map(drop)
    }

    /// Up to where the log of `stream` has been purged.
    ///
    /// # Errors
    /// As any statement.
    pub async fn purged(&self, stream: &str) -> Result<Position> {
        let sql = "select purged_ms, purged_n from outbox.stream where name = $1";
        let client = self.client().await?;
        let row = answer(client.query_opt(sql, &[&stream])).await?;
        Ok(row.map_or(Position::START, |row| position(&row, "purged_ms", "purged_n")))
    }

    /// Which numbers of `stream` after `after` up to `through` the log has, `count` at most, and whether
    /// the row of each is still in Postgres.
    ///
    /// # Errors
    /// As any statement.
    pub async fn presence(
        &self,
        stream: &str,
        after: u64,
        through: u64,
        count: usize,
    ) -> Result<Vec<(u64, bool)>> {
        let sql = include_str!("../../sql/queries/presence.sql");
        let client = self.client().await?;
        let statement = answer(client.prepare_cached(sql)).await?;
        let (after, through, count) = (after as i64, through as i64, count as i64);
        let parameters: [&(dyn ToSql + Sync); 4] = [&stream, &after, &through, &count];
        let rows = answer(client.query(&statement, &parameters)).await?;
        Ok(rows.iter().map(|row| (row.get::<_, i64>(0).unsigned_abs(), row.get(1))).collect())
    }

    /// Where in the log of `stream` a time falls: one more than the last number that was sealed before
    /// `ms`, of the numbers up to `head`.
    ///
    /// # Errors
    /// As any statement.
    pub async fn reached(&self, stream: &str, ms: u64, head: u64) -> Result<u64> {
        let sql = include_str!("../../sql/queries/batch_from.sql");
        let client = self.client().await?;
        let statement = answer(client.prepare_cached(sql)).await?;
        // What is below `low` was sealed before; what is at `high` or above was not.
        let (mut low, mut high) = (1, head + 1);
        while low < high {
            let middle = low + (high - low) / 2;
            let row = answer(client.query_opt(&statement, &[&stream, &(middle as i64)])).await?;
            let batch = row.map(|row| {
                (row.get::<_, i64>(0).unsigned_abs(), row.get::<_, i64>(1).unsigned_abs())
            });
            match batch {
                Some((last, sealed)) if sealed < ms => low = last + 1,
                _ => high = middle,
            }
        }
        Ok(low.min(head + 1))
    }

    /// Whether a row names `stream`, sealed or not.
    ///
    /// # Errors
    /// As any statement.
    pub async fn is_named(&self, stream: &str) -> Result<bool> {
        let client = self.client().await?;
        let sql = include_str!("../../sql/queries/named.sql");
        Ok(answer(client.query_one(sql, &[&stream])).await?.get(0))
    }

    /// The last sealed position of `stream` now.
    ///
    /// # Errors
    /// As any statement.
    pub async fn head(&self, stream: &str) -> Result<Position> {
        let sql =
            "select ms, last_n from outbox.batch where stream = $1 order by last_n desc limit 1";
        let client = self.client().await?;
        let row = answer(client.query_opt(sql, &[&stream])).await?;
        Ok(row.map_or(Position::START, |row| position(&row, "ms", "last_n")))
    }

    /// IDs of entries of `stream` whose rows Postgres lost.
    ///
    /// # Errors
    /// As any statement.
    pub async fn phantoms(&self, stream: &str) -> Result<HashSet<String>> {
        let sql = "select entry_id from outbox.phantom where stream = $1";
        let client = self.client().await?;
        let rows = answer(client.query(sql, &[&stream])).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// What people have asked for.
    ///
    /// # Errors
    /// As any statement.
    pub async fn holds(&self) -> Result<Holds> {
        let client = self.client().await?;
        Ok(Holds::read(&answer(client.query(HOLDS, &[])).await?))
    }

    /// Whether `stream` has rows of one of these events that are not sealed.
    ///
    /// # Errors
    /// As any statement.
    pub async fn pending(&self, stream: &str, events: &[uuid::Uuid]) -> Result<bool> {
        let sql = "select exists (select from outbox.pending where event_id = any ($2) \
                            and (stream = $1 or starts_with($1, stream || ':{')))";
        let client = self.client().await?;
        Ok(answer(client.query_one(sql, &[&stream, &events])).await?.get(0))
    }

    /// Of these events, those that `stream` has rows for.
    ///
    /// # Errors
    /// As any statement.
    pub async fn with_rows(&self, stream: &str, events: &[uuid::Uuid]) -> Result<Vec<uuid::Uuid>> {
        let sql = "select distinct event_id from outbox.entry where event_id = any ($2) \
             and (stream = $1 or starts_with($1, stream || ':{'))";
        let client = self.client().await?;
        let rows = answer(client.query(sql, &[&stream, &events])).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    async fn client(&self) -> Result<deadpool_postgres::Client> {
        self.pool.get().await.map_err(|error| {
            Target::Postgres.error_by(
                Kind::Unavailable,
                "no connection to Postgres for reading the log",
                error,
            )
        })
    }
}

fn position(row: &Row, ms: &str, n: &str) -> Position {
    let number = |column: &str| row.get::<_, i64>(column).unsigned_abs();
    Position { ms: number(ms), n: number(n) }
}
