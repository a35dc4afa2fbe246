//! The model of Postgres as one relay reaches it: connections, each over a wire of its own.

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
use crate::outbox::{
    Armed, Checkpoint, Clock, Cursor, Found, Head, Holds, Identity, Logged, Missed, Phantom,
    Reached, Saved, Seal, StateChange, Term,
};
use crate::position::Position;
use crate::relay::sealer::Leap;
use crate::relay::servers::{Checkpoints, Finder, House, Lease, Log, LogReader, Postgres, Wake};
use crate::telemetry::Metrics;

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

    async fn wake(&self, term: Term) -> Result<Box<dyn Wake>> {
        let (session, heard) = (self.session(term.token).await?, Arc::<Notify>::default());
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

    async fn holds(&self) -> Result<Holds> {
        Ok(Holds::default())
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

    /// Nobody in the model asks for partitions.
    async fn split(&self, _: &str, _: u32, _: &[(Arc<str>, Position)]) -> Result<bool> {
        Ok(false)
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
        let token = self.session.token;
        let disarmed = self.session.ask(move |world| {
            if world.postgres.fence(token).is_ok() {
                world.postgres.facts.wake_until_s = 0;
            }
            Ok(())
        });
        disarmed.await
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
            world.no_group_is_forgotten();
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
        _holds: Sender<Holds>,
        _leap: Leap,
        _metrics: &Metrics,
    ) -> Result<()> {
        loop {
            tokio::time::sleep(Duration::from_secs(2)).await;
            self.0.ask(|world| Ok(world.purge())).await?;
        }
    }
}
