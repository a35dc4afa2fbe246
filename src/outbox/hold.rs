//! Streams that somebody holds: asked for by a person, obeyed by the relay.

use std::sync::Arc;

use super::connect::{Connection, answer};
use crate::error::Result;

/// Asks for streams to be held or let go, and which are, on a connection of its own.
#[derive(Debug)]
pub struct Hold(Connection);

impl Hold {
    /// Works on `connection`.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// Streams that are held, by name.
    ///
    /// # Errors
    /// As any statement.
    pub async fn paused(&self) -> Result<Vec<Arc<str>>> {
        let sql = include_str!("../../sql/queries/paused.sql");
        let rows = answer(self.0.client().query(sql, &[])).await?;
        Ok(rows.iter().map(|row| row.get::<_, &str>(0).into()).collect())
    }

    /// Holds `stream`, in the name of `who`. Returns whether it was held before; None if no row has
    /// ever named the stream.
    ///
    /// # Errors
    /// As any statement.
    pub async fn pause(&self, stream: &str, who: &str) -> Result<Option<bool>> {
        let sql = include_str!("../../sql/queries/pause.sql");
        let row = answer(self.0.client().query_opt(sql, &[&stream, &who])).await?;
        Ok(row.map(|row| row.get(0)))
    }

    /// Lets `stream` flow. Returns whether it was held; None if there is no such stream.
    ///
    /// # Errors
    /// As any statement.
    pub async fn resume(&self, stream: &str) -> Result<Option<bool>> {
        let sql = include_str!("../../sql/queries/resume.sql");
        let row = answer(self.0.client().query_opt(sql, &[&stream])).await?;
        Ok(row.map(|row| row.get(0)))
    }
}
