//! Streams that somebody holds, and how streams are split: asked for by a person, obeyed by the relay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio_postgres::Row;

use super::connect::{Connection, answer};
use crate::error::Result;

/// What people have asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holds {
    /// Redis streams that somebody holds.
    pub paused: BTreeSet<Arc<str>>,
    /// New partitions whose entries wait until every consumer group has acknowledged what came before.
    pub gated: BTreeSet<Arc<str>>,
    /// Streams, as rows name them, with more than one partition, and how many.
    pub split: BTreeMap<Arc<str>, u32>,
    /// Streams, as rows name them, that are to have so many partitions.
    pub wanted: BTreeMap<Arc<str>, u32>,
    /// Redis streams that new partitions wait for.
    pub closing: BTreeSet<Arc<str>>,
}

impl Holds {
    /// Reads what `sql/queries/holds.sql` returns.
    pub(super) fn read(rows: &[Row]) -> Self {
        let mut holds = Self::default();
        for row in rows {
            let (kind, name): (&str, Arc<str>) = (row.get(0), row.get::<_, &str>(1).into());
            let partitions = row.get::<_, i32>(2).unsigned_abs();
            match kind {
                "paused" => drop(holds.paused.insert(name)),
                "gated" => drop(holds.gated.insert(name)),
                "closing" => drop(holds.closing.insert(name)),
                "split" => drop(holds.split.insert(name, partitions)),
                _ => drop(holds.wanted.insert(name, partitions)),
            }
        }
        holds
    }

    /// Nothing may be appended to this stream.
    pub fn is_held(&self, stream: &str) -> bool {
        self.paused.contains(stream) || self.gated.contains(stream)
    }
}

/// What people have asked for, and what they get.
pub(super) const HOLDS: &str = include_str!("../../sql/queries/holds.sql");

/// Asks for streams to be held or let go, and which are, on a connection of its own.
#[derive(Debug)]
pub struct Hold(Connection);

impl Hold {
    /// Works on `connection`.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// What people have asked for.
    ///
    /// # Errors
    /// As any statement.
    pub async fn holds(&self) -> Result<Holds> {
        let rows = answer(self.0.client().query(HOLDS, &[])).await?;
        Ok(Holds::read(&rows))
    }

    /// Lets new partitions flow whose groups have acknowledged what came before. Returns the streams, as rows
    /// name them.
    ///
    /// # Errors
    /// As any statement.
    pub async fn open_partitions(&self) -> Result<Vec<Arc<str>>> {
        let sql = "select outbox.open_partitions()";
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
