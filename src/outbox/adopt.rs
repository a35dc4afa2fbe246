//! Consent to another cluster: after a restore, a copy or an upgrade in place.

use super::connect::{Connection, statement_error};
use crate::error::Result;

/// What consenting did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// Rows that the log did not have; they are sealed now.
    pub sealed: u64,
    /// Rows that carried transaction ids of another cluster.
    pub restamped: u64,
}

/// Makes this cluster the outbox's own and begins the search for rows anew. Writers wait meanwhile, the
/// longer the more rows are kept.
///
/// # Errors
/// As any statement; then nothing was changed.
pub async fn adopt(connection: &Connection) -> Result<Adopted> {
    connection.batch("set statement_timeout = 0").await?;
    let sql = include_str!("../../sql/queries/adopt.sql");
    // No bound on the answer: a person watches, and can end it.
    let row = connection.client().query_one(sql, &[]).await.map_err(statement_error)?;
    let number = |at: usize| row.get::<_, i64>(at).unsigned_abs();
    Ok(Adopted { sealed: number(0), restamped: number(1) })
}
