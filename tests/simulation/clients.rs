//! What a relay holds of the two models: connections, each over a wire of its own.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use uuid::Uuid;

use super::postgres;
use super::wire::{Net, Wire};
use super::world::{OUTBOX, Shared, World};
use crate::batch::Mark;
use crate::entry::Entry;
use crate::error::{Kind, Result, Target};
use crate::group::Group;
use crate::outbox::{
    Armed, Checkpoint, Clock, Cursor, Found, Head, Identity, Logged, Missed, Phantom, Reached,
    Saved, Seal, StateChange, Term,
};
use crate::position::Position;
use crate::relay::sealer::Leap;
use crate::relay::servers::{
    Checkpoints, Finder, House, Lease, Log, LogReader, Postgres, Redis, RedisServer, Wake,
};
use crate::stream::{
    Append, Appended, Canary, Claim, Life, Limits, Owner, Place, Restored, StreamEntry, View,
};
use crate::telemetry::Metrics;

// ---- Postgres ----

/// The model of Postgres as one relay reaches it.
#[derive(Debug)]
pub(super) struct PostgresDoor {
    pub(super) world: Shared,
    pub(super) net: Net,
}

/// A connection.
#[derive(Debug)]
struct Session {
    world: Shared,
    wire: Wire,
    boot: u64,
    token: i64,
}

impl PostgresDoor {
    async fn session(&self, token: i64) -> Result<Session> {
        let wire = self.net.connect().await?;
        let boot = self.world.with(|world| world.postgres.boot);
        Ok(Session { world: self.world.clone(), wire, boot, token })
    }
}

impl Session {
    async fn ask<T: Send + 'static>(
        &self,
        statement: impl FnOnce(&mut World) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (world, boot) = (self.world.clone(), self.boot);
        let carried = move || {
            world.with(|world| {
                world.steps += 1;
                match world.postgres.boot == boot {
                    true => statement(world),
                    false => Err(Target::Postgres.error(Kind::Unavailable, "the server went away")),
                }
            })
        };
        self.wire.call(carried).await
    }
}

#[async_trait]
impl Postgres for PostgresDoor {
    fn name(&self) -> String {
        "model".to_owned()
    }

    async fn lease(&self, holder: &str, length: Duration) -> Result<(Box<dyn Lease>, Identity)> {
        let (session, holder) = (self.session(0).await?, holder.to_owned());
        let identity = Identity { outbox: OUTBOX, system: "1".to_owned(), former: Vec::new() };
        Ok((Box::new(LeaseSession { session, holder, length }), identity))
    }

    fn log_reader(&self, _: usize) -> Result<Arc<dyn LogReader>> {
        Ok(Arc::new(PostgresDoor { world: self.world.clone(), net: self.net.clone() }))
    }

    async fn log(&self, term: Term) -> Result<Box<dyn Log>> {
        Ok(Box::new(self.session(term.token).await?))
    }

    async fn finder(&self) -> Result<Box<dyn Finder>> {
        Ok(Box::new(self.session(0).await?))
    }

    async fn wake(&self) -> Result<Box<dyn Wake>> {
        let (session, heard) = (self.session(0).await?, Arc::<Notify>::default());
        let listener = heard.clone();
        session.ask(move |world| Ok(world.postgres.listeners.push(listener))).await?;
        Ok(Box::new(Listener { session, heard }))
    }

    async fn checkpoints(&self, term: Term) -> Result<Box<dyn Checkpoints>> {
        Ok(Box::new(self.session(term.token).await?))
    }

    async fn house(&self, _: Duration) -> Result<Box<dyn House>> {
        Ok(Box::new(Purger(self.session(0).await?)))
    }
}

struct LeaseSession {
    session: Session,
    holder: String,
    length: Duration,
}

#[async_trait]
impl Lease for LeaseSession {
    async fn take(&self) -> Result<Option<Term>> {
        let (holder, length) = (self.holder.clone(), self.length.as_millis() as u64);
        let token = self.session.ask(move |world| {
            let now = world.postgres_ms();
            Ok(world.postgres.take_lease(&holder, length, now))
        });
        Ok(token.await?.map(|token| Term { token }))
    }

    async fn keep(&self, term: Term) -> Result<()> {
        let length = self.length.as_millis() as u64;
        let kept = self.session.ask(move |world| {
            let until = world.postgres_ms() + length;
            world.postgres.keep_lease(term.token, until)
        });
        kept.await
    }

    async fn release(&self, term: Term) -> Result<()> {
        self.session.ask(move |world| world.postgres.keep_lease(term.token, 0)).await
    }
}

#[async_trait]
impl LogReader for PostgresDoor {
    async fn cursor(&self) -> Result<(Cursor, i64)> {
        let session = self.session(0).await?;
        session
            .ask(|world| {
                let facts = &world.postgres.facts;
                Ok((facts.cursor.clone(), facts.last_seal))
            })
            .await
    }

    async fn heads(&self) -> Result<Vec<Head>> {
        self.session(0).await?.ask(|world| Ok(world.postgres.heads())).await
    }

    async fn locate(&self, stream: &str, n: u64) -> Result<Option<Position>> {
        let session = self.session(0).await?;
        session.of(stream, move |stream| stream.locate(n)).await.map(Option::flatten)
    }

    async fn read(
        &self,
        stream: &str,
        after: u64,
        through: u64,
        rows: usize,
        _: usize,
    ) -> Result<Vec<Logged>> {
        let (session, name) = (self.session(0).await?, stream.to_owned());
        session
            .ask(move |world| {
                let postgres = &world.postgres;
                let Some(stream) = postgres.facts.streams.get(&*name) else {
                    return Ok(Vec::new());
                };
                let log = stream.log().filter(|(at, _)| at.n > after && at.n <= through);
                let logged = log.map(|(position, id)| Logged { position, entry: postgres.row(id) });
                Ok(logged.take(rows).collect())
            })
            .await
    }

    async fn purged(&self, stream: &str) -> Result<Position> {
        let session = self.session(0).await?;
        Ok(session.of(stream, |stream| stream.purged).await?.unwrap_or(Position::START))
    }

    async fn pending(&self, stream: &str, events: &[Uuid]) -> Result<bool> {
        let (stream, events) = (stream.to_owned(), events.to_vec());
        let session = self.session(0).await?;
        session.ask(move |world| Ok(world.postgres.has_pending(&stream, &events))).await
    }

    async fn saved_groups(&self, stream: &str) -> Result<Saved> {
        let session = self.session(0).await?;
        let saved = session.of(stream, |stream| Saved {
            floor: stream.floor(),
            groups: stream.checkpoint.as_ref().map(|kept| kept.groups.clone()).unwrap_or_default(),
        });
        Ok(saved.await?.unwrap_or_default())
    }

    async fn lose_groups(&self, stream: &str) -> Result<()> {
        let session = self.session(0).await?;
        session.of(stream, |stream| stream.groups_lost = true).await.map(drop)
    }
}

impl Session {
    async fn of<T: Send + 'static>(
        &self,
        stream: &str,
        look: impl FnOnce(&mut postgres::Stream) -> T + Send + 'static,
    ) -> Result<Option<T>> {
        let name = stream.to_owned();
        self.ask(move |world| Ok(world.postgres.facts.streams.get_mut(&*name).map(look))).await
    }
}

#[async_trait]
impl Log for Session {
    async fn seal(&self, seal: Seal<'_>) -> Result<()> {
        let (token, number, cursor) = (self.token, seal.seal, seal.cursor.clone());
        let (batches, marks) = (seal.batches.to_vec(), seal.marks.to_vec());
        self.ask(move |world| {
            world.postgres.fence(token)?;
            world.oracle.sealing(&world.postgres.facts, &batches);
            world.postgres.seal(token, number, cursor, &batches, &marks)
        })
        .await
    }

    async fn mark(&self, marks: &[Mark]) -> Result<()> {
        let (token, marks) = (self.token, marks.to_vec());
        self.ask(move |world| world.postgres.mark(token, &marks)).await
    }

    async fn mark_through(&self, reached: &[Reached]) -> Result<()> {
        let (token, reached) = (self.token, reached.to_vec());
        self.ask(move |world| {
            reached.iter().try_for_each(|one| {
                let numbers = one.after + 1..=one.through;
                world.postgres.mark_range(token, &one.stream, numbers, true)
            })
        })
        .await
    }

    async fn unmark(&self, stream: &str, n: u64) -> Result<()> {
        let (token, stream) = (self.token, stream.to_owned());
        self.ask(move |world| world.postgres.mark_range(token, &stream, n + 1..=u64::MAX, false))
            .await
    }

    async fn set_states(&self, changes: &[StateChange]) -> Result<()> {
        let (token, changes) = (self.token, changes.to_vec());
        self.ask(move |world| world.postgres.set_states(token, &changes)).await
    }

    async fn settle_phantoms(
        &self,
        stream: &str,
        last: Position,
        phantoms: &[Phantom],
    ) -> Result<()> {
        let (token, stream) = (self.token, stream.to_owned());
        let phantoms: Vec<Position> = phantoms.iter().map(|phantom| phantom.position).collect();
        self.ask(move |world| world.postgres.settle(token, &stream, last, &phantoms)).await
    }
}

#[async_trait]
impl Finder for Session {
    async fn find(&mut self, cursor: &Cursor, rows: usize, _: usize) -> Result<Found> {
        let cursor = cursor.clone();
        self.ask(move |world| {
            let postgres = &world.postgres;
            let target = match &cursor.window {
                Some((target, _)) => target.clone(),
                None => postgres.snapshot(),
            };
            let entries = postgres.find(&cursor.base, &target, cursor.after(), rows);
            let search = crate::outbox::Search {
                snapshot: target,
                drawn: postgres.facts.last_id,
                last_id: entries.last().map(|entry| entry.id),
                more: entries.len() >= rows,
                cut: false,
            };
            let clock = Clock { us: world.postgres_ms() * 1_000, read_at: Instant::now() };
            Ok(Found { entries, cursor: cursor.advance(search), clock })
        })
        .await
    }

    async fn entries(&mut self, ids: &[i64]) -> Result<Vec<Entry>> {
        let ids = ids.to_vec();
        self.ask(move |world| Ok(ids.iter().filter_map(|id| world.postgres.row(*id)).collect()))
            .await
    }
}

struct Listener {
    session: Session,
    heard: Arc<Notify>,
}

#[async_trait]
impl Wake for Listener {
    async fn arm(&self, length: Duration) -> Result<Armed> {
        let seconds = length.as_secs().max(1);
        let armed = self.session.ask(move |world| {
            world.postgres.facts.wake_until_s = world.postgres_ms() / 1_000 + 1 + seconds;
            Ok(Armed { xid: world.postgres.mark_xid().to_string() })
        });
        armed.await
    }

    async fn disarm(&self) -> Result<()> {
        self.session.ask(|world| Ok(world.postgres.facts.wake_until_s = 0)).await
    }

    async fn settled(&self, armed: &Armed) -> Result<bool> {
        let xid = armed.xid.parse().expect("an xid");
        self.session.ask(move |world| Ok(world.postgres.is_settled(xid))).await
    }

    async fn notified(&self) {
        let gone = async {
            while !self.is_closed() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::select! {
            biased;
            () = self.heard.notified() => {}
            () = gone => {}
        }
    }

    fn is_closed(&self) -> bool {
        self.session.wire.is_broken()
            || self.session.world.with(|world| world.postgres.boot != self.session.boot)
    }
}

#[async_trait]
impl Checkpoints for Session {
    async fn save(
        &mut self,
        nonce: &str,
        count: u64,
        checkpoints: &[Checkpoint],
    ) -> Result<Vec<(Arc<str>, Position)>> {
        if checkpoints.is_empty() {
            return Ok(Vec::new());
        }
        let (token, canary) = (self.token, (nonce.to_owned(), count));
        let checkpoints = checkpoints.to_vec();
        self.ask(move |world| {
            let saved = world.postgres.save(token, &canary, &checkpoints)?;
            let now = world.now_ms();
            for (stream, floor) in &saved {
                world.oracle.stored(now, &world.postgres.facts, stream, floor.n);
            }
            Ok(saved)
        })
        .await
    }
}

/// Purges at random what may be purged.
struct Purger(Session);

#[async_trait]
impl House for Purger {
    async fn keep(
        self: Box<Self>,
        _missed: Sender<Missed>,
        _holds: Sender<BTreeSet<Arc<str>>>,
        _leap: Leap,
        _metrics: &Metrics,
    ) -> Result<()> {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.0.ask(|world| Ok(world.purge())).await?;
        }
    }
}

// ---- Redis ----

/// The model of Redis as one relay reaches it.
#[derive(Debug)]
pub(super) struct RedisDoor {
    pub(super) world: Shared,
    pub(super) net: Net,
}

#[derive(Debug)]
struct Connection {
    world: Shared,
    wire: Wire,
    boot: u64,
}

#[async_trait]
impl RedisServer for RedisDoor {
    fn name(&self) -> String {
        "model".to_owned()
    }

    async fn connect(&self) -> Result<Arc<dyn Redis>> {
        let wire = self.net.connect().await?;
        let boot = self.world.with(|world| world.redis.boot);
        Ok(Arc::new(Connection { world: self.world.clone(), wire, boot }))
    }
}

fn busy() -> String {
    "OOM command not allowed when used memory > 'maxmemory'.".to_owned()
}

impl Connection {
    async fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut World) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (world, boot) = (self.world.clone(), self.boot);
        let carried = move || {
            world.with(|world| {
                world.steps += 1;
                match world.redis.boot == boot {
                    true => command(world),
                    false => Err(Target::Redis.error(Kind::Unavailable, "the server went away")),
                }
            })
        };
        self.wire.call(carried).await
    }

    /// As [`Connection::ask`], of a command that needs memory.
    async fn write<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> Result<T> {
        self.ask(|world| match world.redis_is_full() {
            true => Err(Target::Redis.error(Kind::Busy, busy())),
            false => Ok(command(world)),
        })
        .await
    }
}

#[async_trait]
impl Redis for Connection {
    fn key(&self, stream: &str) -> String {
        stream.to_owned()
    }

    async fn ping(&self) -> Result<()> {
        self.ask(|_| Ok(())).await
    }

    async fn refuse_eviction(&self) -> Result<()> {
        self.ping().await
    }

    async fn life(&self) -> Result<Life> {
        let boot = self.boot.to_string();
        self.ask(|_| Ok(Life { run_id: boot, ..Life::default() })).await
    }

    async fn claim(&self, owner: &Owner) -> Result<Claim> {
        let owner = owner.clone();
        let ours = self.ask(|world| Ok(world.redis.canary(0).is_some())).await?;
        match ours {
            true => Ok(Claim::Ours),
            false => self.write(move |world| world.redis.claim(&owner)).await,
        }
    }

    async fn canary(&self, _: &Owner, by: u64) -> Result<Option<Canary>> {
        match by {
            0 => self.ask(|world| Ok(world.redis.canary(0))).await,
            _ => self.write(move |world| world.redis.canary(by)).await,
        }
    }

    async fn renew_canary(&self) -> Result<Canary> {
        let owner = Owner { id: OUTBOX.to_string(), system: "1".to_owned(), former: Vec::new() };
        self.write(move |world| world.redis.renew_canary(&owner)).await
    }

    async fn positions(&self, streams: &[Arc<str>]) -> Result<Vec<Place>> {
        let streams = streams.to_vec();
        self.ask(move |world| Ok(streams.iter().map(|name| world.redis.place(name)).collect()))
            .await
    }

    async fn range(
        &self,
        stream: &str,
        after: Position,
        through: Position,
        count: usize,
    ) -> Result<Vec<StreamEntry>> {
        let stream = stream.to_owned();
        let bytes =
            |(name, value): &(&str, String)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        self.ask(move |world| {
            let found = world.redis.range(&stream, after, through, count).into_iter();
            let entries = found.map(|(position, fields)| StreamEntry {
                position,
                fields: fields.iter().map(bytes).collect(),
            });
            Ok(entries.collect())
        })
        .await
    }

    async fn last_before(&self, _: &str, _: Position) -> Result<Option<Position>> {
        Ok(None)
    }

    async fn append(&self, appends: &[Append], limits: Limits) -> Result<Vec<Appended>> {
        // One request each: others come between the scripts of a pipeline.
        let asked = appends.iter().map(|append| {
            let append = append.clone();
            self.ask(move |world| match world.redis_is_full() {
                true if world.redis.last(&append.stream) == append.expected => {
                    Ok(Appended::Refused(busy()))
                }
                _ => Ok(world.append(&append, limits)),
            })
        });
        futures_util::future::try_join_all(asked).await
    }

    async fn views(&self, streams: &[Arc<str>]) -> Result<Vec<View>> {
        let mut views = Vec::with_capacity(streams.len());
        for stream in streams {
            let name = stream.clone();
            let view = self.ask(move |world| {
                let held = world.redis.held.streams.get(&name);
                Ok(held.map_or_else(missing, super::redis::Stream::view))
            });
            views.push(view.await?);
        }
        Ok(views)
    }

    async fn trim(&self, streams: &[(Arc<str>, Position, bool)]) -> Result<Vec<u64>> {
        let mut trimmed = Vec::with_capacity(streams.len());
        for (stream, floor, grouped) in streams.iter().cloned() {
            trimmed.push(self.ask(move |world| Ok(world.trim(&stream, floor, grouped))).await?);
        }
        Ok(trimmed)
    }

    async fn restore(
        &self,
        stream: &str,
        expected: Position,
        floor: Position,
        groups: &[Group],
    ) -> Result<Restored> {
        let (stream, groups) = (stream.to_owned(), groups.to_vec());
        self.ask(move |world| {
            Ok(match world.redis_is_full() {
                true => Restored::Not(Appended::Refused(busy())),
                false => world.restore(&stream, expected, floor, &groups),
            })
        })
        .await
    }

    async fn pend(
        &self,
        stream: &str,
        expected: Position,
        groups: &[Group],
        gone: &[String],
    ) -> Result<Appended> {
        for group in groups {
            let (stream, group) = (stream.to_owned(), group.clone());
            let is_gone = gone.contains(&group.name);
            let pended = self.ask(move |world| {
                Ok(match world.redis_is_full() {
                    true => Appended::Refused(busy()),
                    false => world.redis.pend(&stream, expected, &group, is_gone),
                })
            });
            match pended.await? {
                Appended::Done => {}
                other => return Ok(other),
            }
        }
        Ok(Appended::Done)
    }
}

fn missing() -> View {
    let (first, removed, groups) = (None, None, Vec::new());
    View { place: Place::Missing, first, entries: 0, bytes: 0, removed, groups }
}
