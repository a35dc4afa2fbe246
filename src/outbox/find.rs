//! Finding the next committed rows that are not sealed.

use std::collections::HashSet;
use std::pin::pin;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use tokio::time::Instant;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, RowStream, Statement};

use super::connect::{Connection, answer, statement_error};
use super::cursor::{Cursor, Search};
use super::page::Page;
use crate::entry::Entry;
use crate::error::{Kind, Result, Target};

/// Names of streams kept for sharing; beyond it the store begins anew.
const NAMES: usize = 100_000;

/// Reads rows on a connection of its own.
///
/// What it has found is true only as long as this connection stays open: a row read before a crash
/// of Postgres may be gone after it.
#[derive(Debug)]
pub struct Finder {
    connection: Connection,
    find: Statement,
    by_id: Statement,
    names: Names,
    page: Page,
}

/// What one search found.
#[derive(Debug)]
pub struct Found {
    /// The rows, in id order; empty if there are none.
    pub entries: Vec<Entry>,
    /// Where the next search goes on, once these rows are sealed.
    pub cursor: Cursor,
    /// The clock of Postgres at the search.
    pub clock: Clock,
}

/// The clock of Postgres, read once.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Microseconds since 1970.
    pub us: u64,
    /// When it arrived here.
    pub read_at: Instant,
}

impl Finder {
    /// Prepares the search on `connection`.
    ///
    /// # Errors
    /// As any statement.
    pub async fn new(connection: Connection) -> Result<Self> {
        // Plans must not depend on statistics of a table that was empty when they were taken:
        // every branch of the search has an index that gives its order.
        connection
            .batch(
                "set enable_seqscan = off; set enable_bitmapscan = off; \
                 set enable_hashjoin = off; set enable_mergejoin = off; \
                 set plan_cache_mode = force_generic_plan",
            )
            .await?;
        let find = connection.prepare(include_str!("../../sql/queries/find.sql")).await?;
        let by_id = connection.prepare(include_str!("../../sql/queries/read_entries.sql")).await?;
        Ok(Self { connection, find, by_id, names: Names::default(), page: Page::new() })
    }

    /// The next rows after `cursor`: at most `rows`, and at most about `bytes` unless the first row
    /// alone is larger.
    ///
    /// # Errors
    /// As any statement; after one, what this finder found before must not be sealed.
    pub async fn find(&mut self, cursor: &Cursor, rows: usize, bytes: usize) -> Result<Found> {
        let in_progress = cursor.base.in_progress();
        let target = cursor.window.as_ref().map(|(snapshot, _)| snapshot.as_str());
        let asked = self.page.rows(rows);
        let (xmax, after) = (cursor.base.xmax(), cursor.after());
        let (limit, most) = (asked as i64, rows as i64);
        let parameters: [&(dyn ToSql + Sync); 7] =
            [&in_progress, &xmax, &target, &cursor.high, &after, &limit, &most];
        let stream = answer(self.connection.client().query_raw(&self.find, parameters)).await?;
        let (header, entries, cut_by_bytes) = self.take(stream, bytes).await?;
        let header = header
            .ok_or_else(|| Target::Postgres.error(Kind::Internal, "find returned no snapshot"))?;
        let search = Search {
            last_id: entries.last().map(|entry| entry.id),
            more: cut_by_bytes || entries.len() >= asked,
            ..header.search
        };
        self.page.took(entries.len(), asked, cut_by_bytes);
        Ok(Found { entries, cursor: cursor.clone().advance(search), clock: header.clock })
    }

    /// Rows by their ids, in id order, whatever the cursor says.
    ///
    /// # Errors
    /// As any statement.
    pub async fn entries(&mut self, ids: &[i64]) -> Result<Vec<Entry>> {
        let parameters: [&(dyn ToSql + Sync); 1] = [&ids];
        let stream = answer(self.connection.client().query_raw(&self.by_id, parameters)).await?;
        Ok(self.take(stream, usize::MAX).await?.1)
    }

    /// Takes rows as they come, so that what is beyond the bound is never held.
    async fn take(
        &mut self,
        stream: RowStream,
        bytes: usize,
    ) -> Result<(Option<Header>, Vec<Entry>, bool)> {
        let mut stream = pin!(stream);
        let (mut header, mut entries, mut size, mut cut) = (None, Vec::new(), 0, false);
        while let Some(row) = answer(stream.try_next()).await? {
            if row.try_get::<_, Option<i64>>(0).map_err(statement_error)?.is_none() {
                header = Some(Header::read(&row)?);
                continue;
            }
            if cut || (size >= bytes && !entries.is_empty()) {
                cut = true;
                continue;
            }
            let entry = self.names.entry(&row, 0)?;
            size += entry.size();
            entries.push(entry);
        }
        Ok((header, entries, cut))
    }
}

struct Header {
    search: Search,
    clock: Clock,
}

impl Header {
    /// The columns of a row hold other things here: see the query.
    fn read(row: &Row) -> Result<Self> {
        let odd = |error: String| Target::Postgres.error(Kind::Internal, error);
        let text = |column: &str| row.try_get::<_, &str>(column).map_err(statement_error);
        let number = |column: &str| {
            text(column)?.parse::<i64>().map_err(|error| odd(format!("find: {column}: {error}")))
        };
        Ok(Self {
            search: Search {
                snapshot: text("stream")?.parse().map_err(odd)?,
                drawn: number("key")?,
                last_id: None,
                more: false,
                cut: text("payload")? == "true",
            },
            clock: Clock { us: number("type")?.unsigned_abs(), read_at: Instant::now() },
        })
    }
}

/// Shares the names of streams among rows.
#[derive(Debug, Default)]
pub(super) struct Names(HashSet<Arc<str>>);

impl Names {
    fn share(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.0.get(name) {
            return known.clone();
        }
        if self.0.len() >= NAMES {
            self.0.clear();
        }
        let name: Arc<str> = name.into();
        self.0.insert(name.clone());
        name
    }

    /// The entry whose columns begin at `at` with its id.
    pub(super) fn entry(&mut self, row: &Row, at: usize) -> Result<Entry> {
        let text = |column: usize| -> Result<Option<Box<str>>> {
            let text: Option<&str> = row.try_get(at + column).map_err(statement_error)?;
            Ok(text.map(Into::into))
        };
        Ok(Entry {
            id: row.try_get(at).map_err(statement_error)?,
            event_id: row.try_get(at + 1).map_err(statement_error)?,
            stream: self.share(row.try_get(at + 2).map_err(statement_error)?),
            key: text(3)?,
            kind: text(4)?,
            payload: text(5)?.unwrap_or_default(),
            headers: text(6)?,
            created_at: row.try_get(at + 7).map_err(statement_error)?,
        })
    }
}
