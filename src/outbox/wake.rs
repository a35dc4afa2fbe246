//! LISTEN, and the flag by which the relay asks writers for a NOTIFY.
//!
//! A notification is only a hint: polling finds every row without it. The flag is a deadline, so
//! that a relay killed in its sleep stops costing writers within seconds.

use std::time::Duration;

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::connect::{Connection, answer};
use super::lease::Term;
use crate::error::Result;

/// Listens on a connection of its own, never inside a transaction: a listener that is stuck in one
/// would let the queue of notifications fill up, and then commits of applications fail.
#[derive(Debug)]
pub struct Wake {
    connection: Connection,
    term: Term,
    arm: Statement,
    disarm: Statement,
    mark_xid: Statement,
    settled: Statement,
}

/// The moment at which the flag was set: a transaction that began after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Armed {
    pub(crate) xid: String,
}

impl Wake {
    /// Begins to listen, in `term`.
    ///
    /// # Errors
    /// As any statement.
    pub async fn new(connection: Connection, term: Term) -> Result<Self> {
        // The flag need not survive a crash of Postgres: the relay sets it again.
        connection.batch("set synchronous_commit = off; listen outbox").await?;
        let arm = connection.prepare(include_str!("../../sql/queries/arm_wake.sql")).await?;
        let disarm = connection.prepare(include_str!("../../sql/queries/disarm_wake.sql")).await?;
        let mark_xid = connection.prepare(include_str!("../../sql/queries/mark_xid.sql")).await?;
        let settled = connection.prepare(include_str!("../../sql/queries/settled.sql")).await?;
        Ok(Self { connection, term, arm, disarm, mark_xid, settled })
    }

    /// Asks writers for a NOTIFY during the next `length`, whole seconds.
    ///
    /// A writer that read the flag before may still commit without one; [`Wake::settled`] tells
    /// when there is none left.
    ///
    /// # Errors
    /// As any statement.
    pub async fn arm(&self, length: Duration) -> Result<Armed> {
        let seconds = length.as_secs().max(1) as i64;
        let client = self.connection.client();
        // One round trip, two transactions, in this order.
        let length: [&(dyn ToSql + Sync); 1] = [&seconds];
        let (_, row) = tokio::try_join!(
            answer(client.query_one(&self.arm, &length)),
            answer(client.query_one(&self.mark_xid, &[])),
        )?;
        Ok(Armed { xid: row.get("xid") })
    }

    /// Stops asking, unless another relay leads by now: it may have asked meanwhile.
    ///
    /// # Errors
    /// As any statement.
    pub async fn disarm(&self) -> Result<()> {
        let client = self.connection.client();
        answer(client.query_opt(&self.disarm, &[&self.term.token])).await.map(|_| ())
    }

    /// Every transaction that was in progress when the flag was set has ended: from now on each
    /// commit with new rows notifies.
    ///
    /// # Errors
    /// As any statement.
    pub async fn settled(&self, armed: &Armed) -> Result<bool> {
        let row = answer(self.connection.client().query_one(&self.settled, &[&armed.xid])).await?;
        Ok(row.get("settled"))
    }

    /// Waits for a notification. Ends also when the connection does.
    pub async fn notified(&self) {
        self.connection.notified().await;
    }

    /// The connection has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }
}
