//! Both servers as a session needs them. Everything that it asks of them goes through these traits, so that
//! a simulation can run the relay as it ships against models of both, under one seeded scheduler.
//!
//! Each trait stands for one connection, with the promises and errors of the type it is implemented for.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::Sender;
use uuid::Uuid;

use super::keeper;
use super::sealer::Leap;
use crate::batch::Mark;
use crate::entry::Entry;
use crate::error::Result;
use crate::group::Group;
use crate::outbox::{
    self, Armed, Checkpoint, Cursor, Database, Found, Head, Holds, Identity, Logged, Missed,
    Phantom, Reached, Saved, Seal, StateChange, Term,
};
use crate::position::Position;
use crate::stream::{
    self, Append, Appended, Canary, Claim, Life, Limits, Owner, Place, Restored, Server, Shard,
    StreamEntry, View,
};
use crate::telemetry::Metrics;

/// Where both are.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) postgres: Box<dyn Postgres>,
    pub(super) redis: Box<dyn RedisServer>,
}

/// A Postgres with an outbox, to connect to.
#[async_trait]
pub(super) trait Postgres: Debug + Send + Sync {
    fn name(&self) -> String;
    async fn lease(&self, holder: &str, length: Duration) -> Result<(Box<dyn Lease>, Identity)>;
    fn log_reader(&self, connections: usize) -> Result<Arc<dyn LogReader>>;
    async fn log(&self, term: Term) -> Result<Box<dyn Log>>;
    async fn finder(&self) -> Result<Box<dyn Finder>>;
    async fn wake(&self, term: Term) -> Result<Box<dyn Wake>>;
    async fn checkpoints(&self, term: Term) -> Result<Box<dyn Checkpoints>>;
    async fn house(&self, retention: Duration) -> Result<Box<dyn House>>;
}

/// Asks for the lease and keeps it.
#[async_trait]
pub(super) trait Lease: Send + Sync {
    async fn take(&self) -> Result<Option<Term>>;
    async fn keep(&self, term: Term) -> Result<()>;
    async fn release(&self, term: Term) -> Result<()>;
}

/// Reads the log.
#[async_trait]
pub(super) trait LogReader: Send + Sync {
    async fn cursor(&self) -> Result<(Cursor, i64)>;
    async fn heads(&self) -> Result<Vec<Head>>;
    async fn locate(&self, stream: &str, n: u64) -> Result<Option<Position>>;
    async fn read(
        &self,
        stream: &str,
        after: u64,
        through: u64,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Logged>>;
    async fn purged(&self, stream: &str) -> Result<Position>;
    async fn pending(&self, stream: &str, events: &[Uuid]) -> Result<bool>;
    async fn saved_groups(&self, stream: &str) -> Result<Saved>;
    async fn lose_groups(&self, stream: &str) -> Result<()>;
    async fn holds(&self) -> Result<Holds>;
}

/// Writes the log.
#[async_trait]
pub(super) trait Log: Send + Sync {
    async fn seal(&self, seal: Seal<'_>) -> Result<()>;
    async fn mark(&self, marks: &[Mark]) -> Result<()>;
    async fn mark_through(&self, reached: &[Reached]) -> Result<()>;
    async fn unmark(&self, stream: &str, n: u64) -> Result<()>;
    async fn set_states(&self, changes: &[StateChange]) -> Result<()>;
    async fn split(
        &self,
        stream: &str,
        partitions: u32,
        ends: &[(Arc<str>, Position)],
    ) -> Result<bool>;
    async fn settle_phantoms(
        &self,
        stream: &str,
        last: Position,
        phantoms: &[Phantom],
    ) -> Result<()>;
}

/// Finds rows.
#[async_trait]
pub(super) trait Finder: Send + Sync {
    async fn find(&mut self, cursor: &Cursor, rows: usize, bytes: usize) -> Result<Found>;
    async fn entries(&mut self, ids: &[i64]) -> Result<Vec<Entry>>;
}

/// Asks writers for wake-ups, and hears them.
#[async_trait]
pub(super) trait Wake: Send + Sync {
    async fn arm(&self, length: Duration) -> Result<Armed>;
    async fn disarm(&self) -> Result<()>;
    async fn settled(&self, armed: &Armed) -> Result<bool>;
    async fn notified(&self);
    fn is_closed(&self) -> bool;
}

/// Stores checkpoints.
#[async_trait]
pub(super) trait Checkpoints: Debug + Send + Sync {
    async fn save(
        &mut self,
        nonce: &str,
        count: u64,
        checkpoints: &[Checkpoint],
    ) -> Result<Vec<(Arc<str>, Position)>>;
}

/// What is done in Postgres beside the stages.
#[async_trait]
pub(super) trait House: Send {
    /// Attaches leaves, scrubs, purges, and asks which streams somebody holds. Never ends well.
    async fn keep(
        self: Box<Self>,
        missed: Sender<Missed>,
        holds: Sender<Holds>,
        leap: Leap,
        metrics: &Metrics,
    ) -> Result<()>;
}

/// A Redis to connect to.
#[async_trait]
pub(super) trait RedisServer: Debug + Send + Sync {
    fn name(&self) -> String;
    async fn connect(&self) -> Result<Arc<dyn Redis>>;
}

/// A Redis with streams.
#[async_trait]
pub(super) trait Redis: Debug + Send + Sync {
    fn key(&self, stream: &str) -> String;
    fn shards(&self) -> Vec<Shard>;
    fn shard(&self, stream: &str) -> Shard;
    fn shard_name(&self, shard: Shard) -> String;
    async fn ping(&self) -> Result<()>;
    async fn refuse_unfit(&self) -> Result<()>;
    async fn make_all_durable(&self) -> Result<()>;
    async fn life(&self) -> Result<Vec<Life>>;
    async fn claim(&self, shard: Shard, owner: &Owner) -> Result<Claim>;
    async fn canary(&self, shard: Shard, owner: &Owner, by: u64) -> Result<Option<Canary>>;
    async fn canaries(&self, owner: &Owner) -> Result<Vec<Canary>>;
    async fn renew_canary(&self, shard: Shard) -> Result<Canary>;
    async fn positions(&self, streams: &[Arc<str>]) -> Result<Vec<Place>>;
    async fn range(
        &self,
        stream: &str,
        after: Position,
        through: Position,
        count: usize,
    ) -> Result<Vec<StreamEntry>>;
    async fn last_before(&self, stream: &str, before: Position) -> Result<Option<Position>>;
    async fn append(&self, appends: &[Append], limits: Limits) -> Result<Vec<Appended>>;
    async fn views(&self, streams: &[Arc<str>]) -> Result<Vec<View>>;
    async fn trim(&self, streams: &[(Arc<str>, Position, bool)]) -> Result<Vec<u64>>;
    async fn restore(
        &self,
        stream: &str,
        expected: Position,
        floor: Position,
        groups: &[Group],
    ) -> Result<Restored>;
    async fn pend(
        &self,
        stream: &str,
        expected: Position,
        groups: &[Group],
        gone: &[String],
    ) -> Result<Appended>;
}

// ---- the real ones ----

#[async_trait]
impl Postgres for Database {
    fn name(&self) -> String {
        Database::name(self)
    }

    async fn lease(&self, holder: &str, length: Duration) -> Result<(Box<dyn Lease>, Identity)> {
        let (connection, identity) = self.connect_checked("lease").await?;
        self.settle_on(&connection);
        let lease = outbox::Lease::new(connection, holder.to_owned(), length).await?;
        Ok((Box::new(lease), identity))
    }

    fn log_reader(&self, connections: usize) -> Result<Arc<dyn LogReader>> {
        Ok(Arc::new(outbox::LogReader::new(self.pool(connections)?)))
    }

    async fn log(&self, term: Term) -> Result<Box<dyn Log>> {
        Ok(Box::new(outbox::Log::new(self.connect_beside("seal").await?, term).await?))
    }

    async fn finder(&self) -> Result<Box<dyn Finder>> {
        Ok(Box::new(outbox::Finder::new(self.connect_beside("find").await?).await?))
    }

    async fn wake(&self, term: Term) -> Result<Box<dyn Wake>> {
        Ok(Box::new(outbox::Wake::new(self.connect_beside("wake").await?, term).await?))
    }

    async fn checkpoints(&self, term: Term) -> Result<Box<dyn Checkpoints>> {
        let connection = self.connect_beside("checkpoint").await?;
        Ok(Box::new(outbox::Checkpoints::new(connection, term).await?))
    }

    async fn house(&self, retention: Duration) -> Result<Box<dyn House>> {
        let hold = outbox::Hold::new(self.connect_beside("holds").await?);
        let upkeep = outbox::Upkeep::new(self.connect_beside("upkeep").await?).await?;
        let purge = outbox::Purge::new(self.connect_beside("purge").await?, retention);
        Ok(Box::new(keeper::Keeper { hold, upkeep, purge, retention }))
    }
}

#[async_trait]
impl Lease for outbox::Lease {
    async fn take(&self) -> Result<Option<Term>> {
        self.take().await
    }

    async fn keep(&self, term: Term) -> Result<()> {
        self.keep(term).await
    }

    async fn release(&self, term: Term) -> Result<()> {
        self.release(term).await
    }
}

#[async_trait]
impl LogReader for outbox::LogReader {
    async fn cursor(&self) -> Result<(Cursor, i64)> {
        self.cursor().await
    }

    async fn heads(&self) -> Result<Vec<Head>> {
        self.heads().await
    }

    async fn locate(&self, stream: &str, n: u64) -> Result<Option<Position>> {
        self.locate(stream, n).await
    }

    async fn read(
        &self,
        stream: &str,
        after: u64,
        through: u64,
        rows: usize,
        bytes: usize,
    ) -> Result<Vec<Logged>> {
        self.read(stream, after, through, rows, bytes).await
    }

    async fn purged(&self, stream: &str) -> Result<Position> {
        self.purged(stream).await
    }

    async fn pending(&self, stream: &str, events: &[Uuid]) -> Result<bool> {
        self.pending(stream, events).await
    }

    async fn saved_groups(&self, stream: &str) -> Result<Saved> {
        self.saved_groups(stream).await
    }

    async fn lose_groups(&self, stream: &str) -> Result<()> {
        self.lose_groups(stream).await
    }

    async fn holds(&self) -> Result<Holds> {
        self.holds().await
    }
}

#[async_trait]
impl Log for outbox::Log {
    async fn seal(&self, seal: Seal<'_>) -> Result<()> {
        self.seal(seal).await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        self.mark(marks).await
    }

    async fn mark_through(&self, reached: &[Reached]) -> Result<()> {
        self.mark_through(reached).await
    }

    async fn unmark(&self, stream: &str, n: u64) -> Result<()> {
        self.unmark(stream, n).await
    }

    async fn set_states(&self, changes: &[StateChange]) -> Result<()> {
        self.set_states(changes).await
    }

    async fn split(
        &self,
        stream: &str,
        partitions: u32,
        ends: &[(Arc<str>, Position)],
    ) -> Result<bool> {
        self.split(stream, partitions, ends).await
    }

    async fn settle_phantoms(
        &self,
        stream: &str,
        last: Position,
        phantoms: &[Phantom],
    ) -> Result<()> {
        self.settle_phantoms(stream, last, phantoms).await
    }
}

#[async_trait]
impl Finder for outbox::Finder {
    async fn find(&mut self, cursor: &Cursor, rows: usize, bytes: usize) -> Result<Found> {
        self.find(cursor, rows, bytes).await
    }

    async fn entries(&mut self, ids: &[i64]) -> Result<Vec<Entry>> {
        self.entries(ids).await
    }
}

#[async_trait]
impl Wake for outbox::Wake {
    async fn arm(&self, length: Duration) -> Result<Armed> {
        self.arm(length).await
    }

    async fn disarm(&self) -> Result<()> {
        self.disarm().await
    }

    async fn settled(&self, armed: &Armed) -> Result<bool> {
        self.settled(armed).await
    }

    async fn notified(&self) {
        self.notified().await;
    }

    fn is_closed(&self) -> bool {
        self.is_closed()
    }
}

#[async_trait]
impl Checkpoints for outbox::Checkpoints {
    async fn save(
        &mut self,
        nonce: &str,
        count: u64,
        checkpoints: &[Checkpoint],
    ) -> Result<Vec<(Arc<str>, Position)>> {
        self.save(nonce, count, checkpoints).await
    }
}

#[async_trait]
impl RedisServer for Server {
    fn name(&self) -> String {
        Server::name(self)
    }

    async fn connect(&self) -> Result<Arc<dyn Redis>> {
        let redis = Server::connect(self).await?;
        self.check_rights(&redis).await?;
        Ok(Arc::new(redis))
    }
}

#[async_trait]
impl Redis for stream::Redis {
    fn key(&self, stream: &str) -> String {
        self.key(stream)
    }

    fn shards(&self) -> Vec<Shard> {
        self.shards()
    }

    fn shard(&self, stream: &str) -> Shard {
        self.shard(stream)
    }

    fn shard_name(&self, shard: Shard) -> String {
        self.shard_name(shard).to_owned()
    }

    async fn ping(&self) -> Result<()> {
        self.ping().await
    }

    async fn refuse_unfit(&self) -> Result<()> {
        self.refuse_unfit().await
    }

    async fn make_all_durable(&self) -> Result<()> {
        self.make_all_durable().await
    }

    async fn life(&self) -> Result<Vec<Life>> {
        self.life().await
    }

    async fn claim(&self, shard: Shard, owner: &Owner) -> Result<Claim> {
        self.claim(shard, owner).await
    }

    async fn canary(&self, shard: Shard, owner: &Owner, by: u64) -> Result<Option<Canary>> {
        self.canary(shard, owner, by).await
    }

    async fn canaries(&self, owner: &Owner) -> Result<Vec<Canary>> {
        self.canaries(owner).await
    }

    async fn renew_canary(&self, shard: Shard) -> Result<Canary> {
        self.renew_canary(shard).await
    }

    async fn positions(&self, streams: &[Arc<str>]) -> Result<Vec<Place>> {
        self.positions(streams).await
    }

    async fn range(
        &self,
        stream: &str,
        after: Position,
        through: Position,
        count: usize,
    ) -> Result<Vec<StreamEntry>> {
        self.range(stream, after, through, count).await
    }

    async fn last_before(&self, stream: &str, before: Position) -> Result<Option<Position>> {
        self.last_before(stream, before).await
    }

    async fn append(&self, appends: &[Append], limits: Limits) -> Result<Vec<Appended>> {
        self.append(appends, limits).await
    }

    async fn views(&self, streams: &[Arc<str>]) -> Result<Vec<View>> {
        self.views(streams).await
    }

    async fn trim(&self, streams: &[(Arc<str>, Position, bool)]) -> Result<Vec<u64>> {
        self.trim(streams).await
    }

    async fn restore(
        &self,
        stream: &str,
        expected: Position,
        floor: Position,
        groups: &[Group],
    ) -> Result<Restored> {
        self.restore(stream, expected, floor, groups).await
    }

    async fn pend(
        &self,
        stream: &str,
        expected: Position,
        groups: &[Group],
        gone: &[String],
    ) -> Result<Appended> {
        self.pend(stream, expected, groups, gone).await
    }
}
