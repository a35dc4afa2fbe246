//! Checkpoints: consumer groups and floors of streams, stored before anything is trimmed.

use std::sync::Arc;

use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{Json, ToSql};

use super::connect::{Connection, answer, statement_error};
use super::lease::{Term, superseded};
use crate::error::Result;
use crate::group::Group;
use crate::position::Position;

/// Rows stored between two looks at the size of the table.
const ROTATE: usize = 1_000;

/// Stores checkpoints, on a connection of its own. Each names the term's token.
#[derive(Debug)]
pub struct Checkpoints {
    connection: Connection,
    term: Term,
    save: Statement,
    half: i16,
    saved: usize,
}

/// One stream as a checkpoint holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Name of the stream.
    pub stream: Arc<str>,
    /// Nobody needs an entry up to this number.
    pub floor: u64,
    /// Its consumer groups; None for those that were stored before, with their canary.
    pub groups: Option<Vec<Group>>,
    /// They were looked at after they had been put back: if they were lost, they no longer are.
    pub restored: bool,
    /// No later than when it was looked at, in milliseconds since 1970 by the clock of Postgres.
    pub looked_ms: u64,
}

/// What the latest checkpoint of a stream says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Saved {
    /// Nobody needs an entry up to here.
    pub floor: Position,
    /// Its consumer groups.
    pub groups: Vec<Group>,
}

impl Checkpoints {
    /// Prepares to store in `term`.
    ///
    /// # Errors
    /// As any statement.
    pub async fn new(connection: Connection, term: Term) -> Result<Self> {
        // What is stored is trimmed next, so it must last as a seal does.
        connection.commit_durably().await?;
        connection.batch("set enable_seqscan = off; set enable_bitmapscan = off").await?;
        let save = connection.prepare(include_str!("../../sql/queries/save_groups.sql")).await?;
        let mut checkpoints = Self { connection, term, save, half: 0, saved: 0 };
        checkpoints.rotate().await?;
        Ok(checkpoints)
    }

    /// Stores what streams were like while the canary said `nonce` and `count`. Returns the floors of those
    /// that were stored: one that has lost its groups meanwhile is not.
    ///
    /// # Errors
    /// `Superseded` if the lease is another's; then nothing was stored.
    pub async fn save(
        &mut self,
        nonce: &str,
        count: u64,
        checkpoints: &[Checkpoint],
    ) -> Result<Vec<(Arc<str>, Position)>> {
        if checkpoints.is_empty() {
            return Ok(Vec::new());
        }
        if self.saved > ROTATE {
            self.rotate().await?;
        }
        let streams: Vec<&str> = checkpoints.iter().map(|one| &*one.stream).collect();
        let floors: Vec<i64> = checkpoints.iter().map(|one| one.floor as i64).collect();
        let groups: Vec<Option<Json<&Vec<Group>>>> =
            checkpoints.iter().map(|one| one.groups.as_ref().map(Json)).collect();
        let restored: Vec<bool> = checkpoints.iter().map(|one| one.restored).collect();
        let looked: Vec<i64> = checkpoints.iter().map(|one| one.looked_ms as i64).collect();
        let count = count as i64;
        let parameters: [&(dyn ToSql + Sync); 9] = [
            &self.term.token,
            &self.half,
            &nonce,
            &count,
            &streams,
            &floors,
            &groups,
            &restored,
            &looked,
        ];
        let rows = answer(self.connection.client().query(&self.save, &parameters)).await?;
        if rows.is_empty() {
            return Err(superseded());
        }
        self.saved += rows.len();
        let position = |ms: i64, n: i64| Position { ms: ms.unsigned_abs(), n: n.unsigned_abs() };
        Ok(rows
            .iter()
            .filter_map(|row| {
                let stream = row.get::<_, Option<&str>>(0)?;
                Some((stream.into(), position(row.get(1), row.get(2))))
            })
            .collect())
    }

    /// Moves to the other half of the table where this one has grown.
    async fn rotate(&mut self) -> Result<()> {
        self.saved = 0;
        let sql = "select outbox.rotate_checkpoints()";
        match self.connection.client().query_one(sql, &[]).await {
            Ok(row) => self.half = row.get(0),
            // Somebody reads it, as a dump does for as long as it lasts: another time.
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {}
            Err(error) => return Err(statement_error(error)),
        }
        Ok(())
    }
}
