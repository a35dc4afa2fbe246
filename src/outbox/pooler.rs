//! Somebody between here and Postgres who gives one session of it to several connections.

use tokio_postgres::SimpleQueryMessage;

use super::connect::{Connection, answer};
use crate::error::Result;

impl Connection {
    /// Whether this connection and `other` share sessions. Asked without prepared statements, which somebody
    /// in between may not carry.
    ///
    /// # Errors
    /// As any statement.
    pub async fn is_shared_with(&self, other: &Self) -> Result<bool> {
        // More than once, for sessions change hands by chance where others ask as well.
        for _ in 0..3 {
            if self.changes_sessions_beside(other).await? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn changes_sessions_beside(&self, other: &Self) -> Result<bool> {
        const ASK: &str = "select pg_backend_pid(), current_setting('search_path')";
        let before = simple(self, ASK).await?;
        // While the other is in a transaction, the session that it has cannot be ours.
        let theirs = simple(other, "begin; select pg_backend_pid()").await?;
        let after = simple(self, ASK).await?;
        other.batch("rollback").await?;
        // Another server may have a process of the same number.
        let same = self.leads_where(other) && before.first() == theirs.first();
        Ok(before != after || same)
    }
}

/// The values of the last row that some statements return.
async fn simple(connection: &Connection, sql: &str) -> Result<Vec<Option<String>>> {
    let messages = answer(connection.client().simple_query(sql)).await?;
    let rows = messages.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    let read = |row: &tokio_postgres::SimpleQueryRow| {
        (0..row.len()).map(|index| row.get(index).map(ToOwned::to_owned)).collect()
    };
    Ok(rows.last().map(read).unwrap_or_default())
}
