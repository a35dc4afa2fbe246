//! Carries sealed batches into Redis, several requests in flight, and looks after each stream.
//!
//! One task owns all [`Progress`]. Requests, lookups and replays run beside it and report back, so
//! no stream waits for another one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::StreamExt as _;
use tokio::sync::mpsc::{Receiver, UnboundedSender};
use tokio::time::{Instant, MissedTickBehavior};

use super::audit::{self, Audit};
use super::clock::DatabaseClock;
use super::health::Health;
use super::primary::Primaries;
use super::progress::{Mode, Outgoing, Progress};
use super::rota::Rota;
use super::sealer::Note;
use super::servers::{Checkpoints, LogReader, Redis};
use super::work::{Report, Ticket, Work};
use super::{Bounds, report};
use crate::batch::Batch;
use crate::error::{Error, Kind, Result};
use crate::failpoint::failpoint;
use crate::outbox::Holds;
use crate::stream::{Append, Appended, Claim, Life, Limits, Owner, Place, Shard};
use crate::telemetry::Metrics;

/// Pipelines of appends in flight: enough to hide a round trip, few enough to bound memory.
const IN_FLIGHT: usize = 4;
/// How often the server is asked whether it is still the same life.
const PULSE: Duration = Duration::from_secs(1);

/// The one that writes to Redis.
pub(super) struct Appender {
    pub(super) redis: Arc<dyn Redis>,
    pub(super) log: Arc<dyn LogReader>,
    pub(super) bounds: Bounds,
    pub(super) audit_every: Duration,
    pub(super) owner: Owner,
    pub(super) limits: Limits,
    pub(super) retention: Duration,
    pub(super) checkpoint_every: Duration,
    /// None while a round is under way.
    pub(super) checkpoints: Option<Box<dyn Checkpoints>>,
    pub(super) primaries: Primaries,
    pub(super) rota: Rota,
    pub(super) sealed: Receiver<Vec<Batch>>,
    pub(super) notes: UnboundedSender<Note>,
    pub(super) streams: BTreeMap<Arc<str>, Progress>,
    pub(super) lives: Vec<Life>,
    /// What people have asked for, as last heard.
    pub(super) held: Holds,
    pub(super) holds: Receiver<Holds>,
    pub(super) clock: DatabaseClock,
    pub(super) health: Health,
    pub(super) metrics: Metrics,
    pub(super) work: Work,
}

impl Appender {
    /// Appends until sealing has ended and nothing is in flight.
    ///
    /// `found` is where Redis had the streams before the first seal; `fresh` the primaries that had no
    /// identity.
    pub(super) async fn run(
        mut self,
        found: Vec<(Arc<str>, Place)>,
        fresh: &[Shard],
    ) -> Result<()> {
        let _pace = self.health.own_pace();
        self.examine_all(found, fresh);
        let mut sealing = true;
        let mut audits = every(self.audit_every);
        let mut pulse = every(PULSE);
        let mut checkpoints = every(self.checkpoint_every);
        while sealing || !self.work.in_flight.is_empty() {
            self.health.beat();
            self.replay_next();
            let retry_at = self.work.refused.values().filter_map(|refused| refused.at).min();
            let retry = tokio::time::sleep_until(retry_at.unwrap_or_else(Instant::now));
            tokio::select! {
                biased;
                // First, for under load something else is always ready.
                _ = audits.tick() => self.audit(),
                _ = pulse.tick() => self.take_pulse(),
                _ = checkpoints.tick() => self.checkpoint(None),
                Some(holds) = self.holds.recv() => self.obey(holds),
                Some(answers) = self.work.in_flight.next() => self.answered(answers?),
                Some(report) = self.work.tasks.join_next() => self.reported(report)?,
                batches = self.sealed.recv(), if sealing && self.work.in_flight.len() < IN_FLIGHT => {
                    match batches {
                        Some(batches) => self.carry(batches),
                        None => sealing = false,
                    }
                }
                () = retry, if retry_at.is_some() => self.retry(),
            }
        }
        Ok(())
    }

    /// Appends what was sealed, stream by stream, in one pipeline.
    fn carry(&mut self, batches: Vec<Batch>) {
        let (mut tickets, mut appends) = (Vec::new(), Vec::new());
        for batch in batches {
            let stream = batch.stream.clone();
            let progress = self.streams.entry(stream).or_insert_with_key(|stream| {
                let mut progress = Progress::fresh();
                if self.held.is_held(stream) {
                    progress.pause();
                    report::held(stream, &self.held);
                }
                progress
            });
            if let Some(Outgoing { append, mark }) = progress.seal(batch) {
                tickets.push(Ticket::new(progress.epoch(), &append, mark));
                appends.push(append);
            }
        }
        self.send(tickets, appends);
    }

    pub(super) fn send(&mut self, tickets: Vec<Ticket>, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        let (redis, limits) = (self.redis.clone(), self.limits);
        // Requests leave in the order in which their futures are first polled; a task of its own
        // would let a later one overtake. That would cost a replay, not the order.
        self.work.in_flight.push_back(Box::pin(async move {
            failpoint("before_append");
            let answers = redis.append(&appends, limits).await?;
            failpoint("after_append");
            Ok((tickets, answers))
        }));
    }

    fn answered(&mut self, (tickets, answers): (Vec<Ticket>, Vec<Appended>)) {
        for (ticket, answer) in tickets.into_iter().zip(answers) {
            let stream = ticket.mark.stream.clone();
            let Some(progress) = self.streams.get_mut(&stream) else { continue };
            if ticket.epoch != progress.epoch() {
                continue;
            }
            match answer {
                Appended::Done => {
                    let delivered = progress.delivered();
                    progress.arrived(ticket.epoch, ticket.last);
                    self.note(Note::Arrived(ticket.mark));
                    self.count(&stream, delivered, ticket.last.n, &ticket.created_us);
                }
                other => self.not_appended(&stream, other),
            }
        }
    }

    /// The stream is not where it should be, or Redis cannot take it now.
    pub(super) fn not_appended(&mut self, stream: &Arc<str>, answer: Appended) {
        match answer {
            // Where it was then is not where it is now: calls whose script was missing are sent
            // again, so one that came after them may have been answered before them.
            Appended::Elsewhere(_) | Appended::WrongType(_) => {
                self.work.refused.remove(stream);
                self.look(vec![stream.clone()]);
            }
            Appended::Full(full) => self.full(stream, &full),
            Appended::Refused(why) => self.refuse(stream, &why),
            Appended::Done => {}
        }
    }

    // ---- audits ----

    fn take_pulse(&mut self) {
        let redis = self.redis.clone();
        self.work.tasks.spawn(async move {
            Ok(match redis.life().await {
                Err(busy) if busy.kind() == Kind::Busy => Report::Busy { audit: false },
                lives => Report::Pulse(lives?),
            })
        });
    }

    pub(super) fn audit(&mut self) {
        if self.work.auditing {
            return;
        }
        self.work.auditing = true;
        let asked = self
            .streams
            .iter()
            .filter(|(_, progress)| {
                matches!(progress.mode(), Mode::Live | Mode::Held) && !progress.is_paused()
            })
            .map(|(stream, p)| audit::Asked::new(stream, p))
            .collect();
        let (redis, owner) = (self.redis.clone(), self.owner.clone());
        self.work.tasks.spawn(async move {
            Ok(match audit::audit(&*redis, &owner, asked).await {
                Err(busy) if busy.kind() == Kind::Busy => Report::Busy { audit: true },
                audit => Report::Audited(audit?),
            })
        });
    }

    fn audited(&mut self, audit: Audit) {
        self.work.auditing = false;
        for (shard, claim) in audit.claims {
            match claim {
                Claim::Fresh => self.emptied(shard),
                // Whoever made it.
                Claim::Ours => self.primaries.of(shard).nameless = false,
            }
        }
        let mut losses = report::Losses::default();
        let mut astray = Vec::new();
        for (asked, place) in audit.places {
            let Some(progress) = self.streams.get(&asked.stream) else { continue };
            let held = matches!(progress.mode(), Mode::Held);
            let refused = self.work.refused.contains_key(&asked.stream);
            if progress.epoch() != asked.epoch || refused && progress.is_sound() {
                continue;
            }
            if held && !refused {
                self.examine_into(&asked.stream, place, &mut losses);
            } else if !asked.expects(&place, progress.sent()) || !progress.is_sound() {
                astray.push(asked.stream);
            } else {
                self.work.looked_at(&asked.stream, audit.begun);
            }
        }
        losses.end(&self.metrics, &mut self.work.all_told);
        if !astray.is_empty() {
            self.look(astray);
        }
    }

    fn reported(&mut self, report: Result<Result<Report>, tokio::task::JoinError>) -> Result<()> {
        let report = report.map_err(|error| {
            Error::caused_by(Kind::Internal, "a task of the relay failed", error)
        })??;
        match report {
            Report::Examined { stream, epoch, place, in_log, purged } => {
                if let Some(progress) = self.streams.get_mut(&stream)
                    && progress.epoch() == epoch
                {
                    progress.set_purged(purged);
                    let mut losses = report::Losses::default();
                    self.act(&stream, place, in_log, &mut losses);
                    losses.end(&self.metrics, &mut self.work.all_told);
                }
            }
            Report::Replayed { stream, epoch, from, chunk } => {
                self.replayed(stream, epoch, from, chunk);
            }
            Report::Restored { stream, epoch, answer, groups } => {
                if self.streams.get(&stream).is_some_and(|p| p.epoch() == epoch) {
                    self.placed(stream, answer, groups);
                }
            }
            Report::Pended { stream, epoch, end, answer } => {
                if self.streams.get(&stream).is_some_and(|p| p.epoch() == epoch) {
                    self.pended(stream, end, answer);
                }
            }
            Report::Checkpointed { checkpoints, rounds } => {
                self.checkpoints = Some(checkpoints);
                self.checkpointed(rounds);
            }
            Report::Lost { shard, known, canary } => self.lost(shard, known, canary),
            Report::NotLost(shard) => self.primaries.of(shard).asking = false,
            Report::Looked { fresh, places } => self.looked(places, &fresh),
            Report::Audited(audit) => self.audited(audit),
            Report::Busy { audit } => self.work.auditing &= !audit,
            Report::Pulse(lives) => {
                if lives != self.lives {
                    report::new_life();
                    self.lives = lives;
                    self.audit();
                }
            }
        }
        Ok(())
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
