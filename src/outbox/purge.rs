//! Purge: leaves whose rows nobody needs any more are emptied, empty ones dropped, nets emptied.
//!
//! What may go is decided in SQL, in the same transaction that takes it away.

use std::time::Duration;

use tokio_postgres::types::ToSql;

use super::connect::{Connection, answer};
use crate::error::Result;

/// Leaves emptied in one round at most.
const LEAVES: usize = 100;

/// Purges, on a connection of its own.
#[derive(Debug)]
pub struct Purge {
    connection: Connection,
    retention: Duration,
}

/// What one round did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Leaves of entries emptied.
    pub leaves: i32,
    /// About how many entries were in them.
    pub entries: i64,
    /// Leaves of the log emptied.
    pub log_leaves: i32,
    /// Notes of workers deleted.
    pub done: i64,
    /// Rows moved out of the nets.
    pub moved: i64,
    /// The number from which seals should go on, so that a leaf of the log comes to its end.
    pub seal: Option<i64>,
}

impl Purge {
    /// Purges what is older than `retention`.
    pub fn new(connection: Connection, retention: Duration) -> Self {
        Self { connection, retention }
    }

    /// The connection has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }

    /// One round: moves rows out of the nets, empties leaves, lets slow leaves come to their end.
    ///
    /// # Errors
    /// As any statement.
    pub async fn round(&self) -> Result<Purged> {
        let client = self.connection.client();
        let seconds = self.retention.as_secs_f64();
        let (retention, age) = (seconds, seconds / 4.0);
        let sql = "select seal from outbox.leap(make_interval(secs => $1))";
        let seal = answer(client.query_one(sql, &[&age])).await?.get(0);
        let moved = answer(client.query_one("select outbox.empty_nets()", &[])).await?.get(0);
        let mut purged = Purged { seal, moved, ..Purged::default() };
        let parameters: [&(dyn ToSql + Sync); 1] = [&retention];
        // A leaf per transaction, for its lock is held until the end of it.
        for _ in 0..LEAVES {
            let sql = "select leaves, entries from outbox.purge_entries(make_interval(secs => $1))";
            let row = answer(client.query_one(sql, &parameters)).await?;
            let (leaves, entries): (i32, i64) = (row.get(0), row.get(1));
            purged.leaves += leaves;
            purged.entries += entries;
            let sql = "select leaves from outbox.purge_log(make_interval(secs => $1))";
            let row = answer(client.query_one(sql, &parameters)).await?;
            let log_leaves: i32 = row.get(0);
            purged.log_leaves += log_leaves;
            if leaves + log_leaves == 0 {
                break;
            }
        }
        for _ in 0..LEAVES {
            let sql = "select outbox.purge_done(make_interval(secs => $1))";
            let done: i64 = answer(client.query_one(sql, &parameters)).await?.get(0);
            purged.done += done;
            if done == 0 {
                break;
            }
        }
        Ok(purged)
    }

    /// Drops one empty leaf, if nobody is in the way. Returns how many it dropped.
    ///
    /// # Errors
    /// As any statement.
    pub async fn drop_leaf(&self) -> Result<i32> {
        let row = self.connection.client().query_one("select outbox.drop_leaves()", &[]);
        Ok(answer(row).await?.get(0))
    }
}
