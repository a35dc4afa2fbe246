//! Upkeep in the background: leaves made ahead of need, and the scrub that proves the search right.
//!
//! The search for new rows compares transactions with snapshots. The scrub compares ids with the
//! log, which knows nothing of transactions; it remembers what it has proved and never reads that
//! again.

use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::connect::{Connection, answer, statement_error};
use crate::error::Result;

/// Ids compared with the log at a time.
const CHUNK: i64 = 20_000;

/// Works on a connection of its own.
#[derive(Debug)]
pub struct Upkeep {
    connection: Connection,
    candidate: Option<Candidate>,
}

/// Ids that can be compared once every transaction that may have drawn one of them has ended and
/// been sealed.
#[derive(Debug)]
struct Candidate {
    drawn: i64,
    xid: String,
}

/// Rows that the search missed: a fault of the relay, or rows written around the schema's rules.
#[derive(Debug)]
pub struct Missed {
    /// Their ids, in order.
    pub ids: Vec<i64>,
}

impl Upkeep {
    /// Works on `connection`.
    ///
    /// # Errors
    /// As any statement.
    pub async fn new(connection: Connection) -> Result<Self> {
        connection.batch("set synchronous_commit = off; set enable_seqscan = off").await?;
        Ok(Self { connection, candidate: None })
    }

    /// The connection has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// Attaches leaves that will be needed; returns how many, or None if somebody holds a lock: then
    /// there is time to try again until the next leaf is needed.
    ///
    /// # Errors
    /// As any statement.
    pub async fn attach_leaves(&self) -> Result<Option<i32>> {
        let sql = "select outbox.attach_leaves()";
        match self.connection.client().query_one(sql, &[]).await {
            Ok(row) => Ok(Some(row.get(0))),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
            Err(error) => Err(statement_error(error)),
        }
    }

    /// Compares the next ids with the log. Returns what the search missed, if anything, and whether
    /// more can be compared at once.
    ///
    /// # Errors
    /// As any statement.
    pub async fn scrub(&mut self) -> Result<(Option<Missed>, bool)> {
        let client = self.connection.client();
        let Some(candidate) = &self.candidate else {
            // The last id first, then the xid: whoever drew an id before has an older xid.
            let sql = "select coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0), \
                       pg_current_xact_id()::text";
            let row = answer(client.query_one(sql, &[])).await?;
            self.candidate = Some(Candidate { drawn: row.get(0), xid: row.get(1) });
            return Ok((None, false));
        };
        let sql = "select proved, \
                   (select pg_snapshot_xmin(base) > $1::text::xid8 from outbox.cursor) from outbox.scrub";
        let row = answer(client.query_one(sql, &[&candidate.xid])).await?;
        let (proved, sealed): (i64, bool) = (row.get(0), row.get(1));
        if !sealed {
            return Ok((None, false));
        }
        let to = candidate.drawn.min(proved.saturating_add(CHUNK));
        if to <= proved {
            self.candidate = None;
            return Ok((None, false));
        }
        let parameters: [&(dyn ToSql + Sync); 2] = [&proved, &to];
        let rows =
            answer(client.query(include_str!("../../sql/queries/scrub.sql"), &parameters)).await?;
        if !rows.is_empty() {
            // Not remembered as proved: the next call sees whether they have been sealed.
            return Ok((Some(Missed { ids: rows.iter().map(|row| row.get(0)).collect() }), false));
        }
        answer(client.execute("update outbox.scrub set proved = greatest(proved, $1)", &[&to]))
            .await?;
        Ok((None, to < candidate.drawn))
    }
}
