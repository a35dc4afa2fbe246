//! The log: sealed batches, written once, marked when Redis has them, read again when it lost them.

use std::sync::Arc;

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use super::connect::{Connection, answer};
use super::cursor::Cursor;
use super::lease::{Term, superseded};
use super::streams::StateChange;
use crate::batch::{Batch, Mark};
use crate::error::{Kind, Result, Target};
use crate::position::Position;

/// Writes the log, on a connection of its own. Each write names the term's token.
#[derive(Debug)]
pub struct Log {
    connection: Connection,
    term: Term,
    seal: Statement,
    mark: Statement,
    mark_through: Statement,
    unmark: Statement,
    set_state: Statement,
    settle_phantoms: Statement,
}

/// Batches whose marks are taken back by one statement.
const PIECE: i64 = 50_000;

/// What one transaction seals.
#[derive(Debug)]
pub struct Seal<'a> {
    /// Its number: one more than the last.
    pub seal: i64,
    /// How far rows have been found once it is sealed.
    pub cursor: &'a Cursor,
    /// What it seals. May be empty only if nothing but marks is written.
    pub batches: &'a [Batch],
    /// Streams that never had an entry before.
    pub new_streams: &'a [Arc<str>],
    /// Earlier batches that are known to be in Redis.
    pub marks: &'a [Mark],
}

impl Log {
    /// Prepares to write in `term`.
    ///
    /// # Errors
    /// As any statement.
    pub async fn new(connection: Connection, term: Term) -> Result<Self> {
        connection.commit_durably().await?;
        // Batches are found by their keys. Without this, a plan made while the log was empty reads
        // all of it at each mark: 63 ms with 300,000 batches where the keys take 1.
        connection
            .batch(
                "set enable_seqscan = off; set enable_bitmapscan = off; \
                 set enable_hashjoin = off; set enable_mergejoin = off; \
                 set plan_cache_mode = force_generic_plan",
            )
            .await?;
        let seal = connection.prepare(include_str!("../../sql/queries/seal.sql")).await?;
        let mark = connection.prepare(include_str!("../../sql/queries/mark.sql")).await?;
        let mark_through =
            connection.prepare(include_str!("../../sql/queries/mark_through.sql")).await?;
        let unmark = connection.prepare(include_str!("../../sql/queries/unmark.sql")).await?;
        let set_state = connection.prepare(include_str!("../../sql/queries/set_state.sql")).await?;
        let settle_phantoms =
            connection.prepare(include_str!("../../sql/queries/settle_phantoms.sql")).await?;
        Ok(Self { connection, term, seal, mark, mark_through, unmark, set_state, settle_phantoms })
    }

    /// Seals: when this returns, the positions of the batches are fixed for good.
    ///
    /// # Errors
    /// `Superseded` if the lease is another's, and nothing was sealed. After any other error it is
    /// unknown whether it was sealed; the next term finds out.
    pub async fn seal(&self, seal: Seal<'_>) -> Result<()> {
        let mut columns = BatchColumns::default();
        seal.batches.iter().for_each(|batch| columns.push(batch));
        let marks = MarkColumns::new(seal.marks);
        let names: Vec<&str> = seal.new_streams.iter().map(|name| &**name).collect();
        let target = seal.cursor.window.as_ref().map(|(snapshot, _)| snapshot.as_str());
        let through = seal.cursor.window.as_ref().map(|(_, through)| *through);
        let base = seal.cursor.base.as_str();
        let parameters: [&(dyn ToSql + Sync); 17] = [
            &self.term.token,
            &seal.seal,
            &base,
            &target,
            &through,
            &seal.cursor.high,
            &columns.streams,
            &columns.first_n,
            &columns.last_n,
            &columns.ms,
            &columns.lower,
            &columns.upper,
            &columns.ids,
            &names,
            &marks.seals,
            &marks.streams,
            &marks.last_n,
        ];
        self.fenced(&self.seal, &parameters).await?;
        if self.connection.take_warning() {
            return Err(Target::Postgres.error(
                Kind::Unavailable,
                "Postgres committed a seal with a warning, so it may not be on its standbys yet",
            ));
        }
        Ok(())
    }

    /// Marks batches dispatched.
    ///
    /// # Errors
    /// `Superseded` if the lease is another's.
    pub async fn mark(&self, marks: &[Mark]) -> Result<()> {
        let columns = MarkColumns::new(marks);
        let parameters: [&(dyn ToSql + Sync); 4] =
            [&self.term.token, &columns.seals, &columns.streams, &columns.last_n];
        self.fenced(&self.mark, &parameters).await
    }

    /// Marks all batches of streams dispatched whose last number is in `after..=through`.
    ///
    /// # Errors
    /// `Superseded` if the lease is another's.
    pub async fn mark_through(&self, reached: &[Reached]) -> Result<()> {
        let streams: Vec<&str> = reached.iter().map(|reached| &*reached.stream).collect();
        let after: Vec<i64> = reached.iter().map(|reached| reached.after as i64).collect();
        let through: Vec<i64> = reached.iter().map(|reached| reached.through as i64).collect();
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.term.token, &streams, &after, &through];
        self.fenced(&self.mark_through, &parameters).await
    }

    /// Records entries found in Redis whose rows Postgres lost, and lets the stream go on at `last`.
    ///
    /// # Errors
    /// `Superseded` if the lease is another's.
    pub async fn settle_phantoms(
        &self,
        stream: &str,
        last: Position,
        phantoms: &[Phantom],
    ) -> Result<()> {
        let ids: Vec<String> = phantoms.iter().map(|p| p.position.to_string()).collect();
        let events: Vec<&str> = phantoms.iter().map(|p| p.event_id.as_str()).collect();
        let fields: Vec<&serde_json::Value> = phantoms.iter().map(|p| &p.fields).collect();
        let (ms, n) = (last.ms as i64, last.n as i64);
        let parameters: [&(dyn ToSql + Sync); 7] =
            [&self.term.token, &stream, &ms, &n, &ids, &events, &fields];
        self.fenced(&self.settle_phantoms, &parameters).await
    }

    /// From the next seal on, rows of `stream` go to so many partitions; until now they went to the streams
    /// of `ends`, the last positions of which these are. False if nobody asks for it any more, or not now.
    ///
    /// # Errors
    /// `Superseded` if the lease is another's. After any other error it is unknown whether it was done; the
    /// next term finds out.
    pub async fn split(
        &self,
        stream: &str,
        partitions: u32,
        ends: &[(Arc<str>, Position)],
    ) -> Result<bool> {
        let sql = include_str!("../../sql/queries/split.sql");
        let statement = self.connection.prepare(sql).await?;
        let names: Vec<&str> = ends.iter().map(|(name, _)| &**name).collect();
        let ns: Vec<i64> = ends.iter().map(|(_, end)| end.n as i64).collect();
        let partitions = partitions.cast_signed();
        let parameters: [&(dyn ToSql + Sync); 5] =
            [&self.term.token, &stream, &partitions, &names, &ns];
        let row = self.connection.client().query_opt(&statement, &parameters);
        Ok(answer(row).await?.ok_or_else(superseded)?.get("done"))
    }

    /// Takes marks back from batches of `stream` after number `n`.
    ///
    /// # Errors
    /// `Superseded` if the lease is another's.
    pub async fn unmark(&self, stream: &str, n: u64) -> Result<()> {
        let (n, limit) = (n as i64, PIECE);
        let parameters: [&(dyn ToSql + Sync); 4] = [&self.term.token, &stream, &n, &limit];
        loop {
            let piece = self.connection.client().query_opt(&self.unmark, &parameters);
            let batches: i64 = answer(piece).await?.ok_or_else(superseded)?.get("batches");
            if batches < limit {
                return Ok(());
            }
        }
    }

    /// Writes states of streams, for people to read.
    ///
    /// # Errors
    /// `Superseded` if the lease is another's.
    pub async fn set_states(&self, changes: &[StateChange]) -> Result<()> {
        let streams: Vec<&str> = changes.iter().map(|change| &*change.stream).collect();
        let states: Vec<&str> = changes.iter().map(|change| change.state.as_str()).collect();
        let reasons: Vec<Option<&str>> =
            changes.iter().map(|change| change.reason.as_deref()).collect();
        self.fenced(&self.set_state, &[&self.term.token, &streams, &states, &reasons]).await
    }

    async fn fenced(
        &self,
        statement: &Statement,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> Result<()> {
        let row = answer(self.connection.client().query_opt(statement, parameters)).await?;
        row.map(|_| ()).ok_or_else(superseded)
    }
}

/// Numbers of a stream that are known to be in Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Name of the stream.
    pub stream: Arc<str>,
    /// Marked up to here before.
    pub after: u64,
    /// In Redis up to here.
    pub through: u64,
}

/// A stream entry of ours whose row Postgres no longer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Phantom {
    /// Its position in the stream.
    pub position: Position,
    /// Its field `id`.
    pub event_id: String,
    /// All its fields.
    pub fields: serde_json::Value,
}

#[derive(Default)]
struct BatchColumns<'a> {
    streams: Vec<&'a str>,
    first_n: Vec<i64>,
    last_n: Vec<i64>,
    ms: Vec<i64>,
    lower: Vec<i32>,
    upper: Vec<i32>,
    ids: Vec<i64>,
}

impl<'a> BatchColumns<'a> {
    fn push(&mut self, batch: &'a Batch) {
        self.streams.push(&batch.stream);
        self.first_n.push(batch.first_n as i64);
        self.last_n.push(batch.last_n() as i64);
        self.ms.push(batch.ms as i64);
        self.lower.push(self.ids.len() as i32 + 1);
        self.ids.extend(batch.entries.iter().map(|entry| entry.id));
        self.upper.push(self.ids.len() as i32);
    }
}

struct MarkColumns<'a> {
    seals: Vec<i64>,
    streams: Vec<&'a str>,
    last_n: Vec<i64>,
}

impl<'a> MarkColumns<'a> {
    fn new(marks: &'a [Mark]) -> Self {
        Self {
            seals: marks.iter().map(|mark| mark.seal).collect(),
            streams: marks.iter().map(|mark| &*mark.stream).collect(),
            last_n: marks.iter().map(|mark| mark.last_n as i64).collect(),
        }
    }
}
