//! Carries sealed batches into Redis, several requests in flight, and looks after each stream.
//!
//! One task owns all [`Progress`]. Requests, lookups and replays run beside it and report back, so
//! no stream waits for another one.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesOrdered, StreamExt as _};
use tokio::sync::mpsc::{Receiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

use super::audit::{self, Audit};
use super::decide::{Finding, Verdict, decide};
use super::progress::{Mode, Outgoing, Progress};
use super::replay::{self, Chunk};
use super::sealer::Note;
use super::{Bounds, report};
use crate::batch::{Batch, Mark};
use crate::error::{Error, Kind, Result};
use crate::failpoint::failpoint;
use crate::outbox::{LogReader, Reached, State, StateChange};
use crate::position::Position;
use crate::retry::Waits;
use crate::stream::{Append, Appended, Life, Place, Redis};

/// Pipelines of appends in flight: enough to hide a round trip, few enough to bound memory.
const IN_FLIGHT: usize = 4;
/// Streams replayed at once.
const REPLAYS: usize = 4;
/// How often the server is asked whether it is still the same life.
const PULSE: Duration = Duration::from_secs(1);

/// One request in flight: which stream, in which epoch, up to where.
#[derive(Debug)]
struct Ticket {
    epoch: u64,
    last: Position,
    mark: Mark,
}

type Answers = Result<(Vec<Ticket>, Vec<Appended>)>;

/// What tasks beside the loop report.
#[derive(Debug)]
enum Report {
    /// Whether the log knows a place.
    Examined { stream: Arc<str>, epoch: u64, place: Place, in_log: bool },
    /// A chunk of a replay.
    Replayed { stream: Arc<str>, epoch: u64, from: Position, chunk: Chunk },
    /// A stream moved on to its floor.
    Moved { stream: Arc<str>, epoch: u64, answer: Appended },
    /// An audit of all streams.
    Audited(Audit),
    /// The life of the server.
    Pulse(Life),
}

pub(super) struct Appender {
    pub(super) redis: Redis,
    pub(super) log: LogReader,
    pub(super) bounds: Bounds,
    pub(super) audit_every: Duration,
    pub(super) identity: crate::outbox::Identity,
    pub(super) sealed: Receiver<Vec<Batch>>,
    pub(super) notes: UnboundedSender<Note>,
    pub(super) streams: HashMap<Arc<str>, Progress>,
    pub(super) life: Life,
    pub(super) work: Work,
}

/// What is going on beside the loop; nothing at first.
#[derive(Default)]
pub(super) struct Work {
    in_flight: FuturesOrdered<BoxFuture<'static, Answers>>,
    tasks: JoinSet<Result<Report>>,
    to_replay: VecDeque<Arc<str>>,
    replaying: usize,
    auditing: bool,
    /// Streams that Redis refused for now, and when to try again.
    refused: HashMap<Arc<str>, Refused>,
}

/// A stream that Redis refused for now.
struct Refused {
    /// When to try again; None while it is being tried.
    at: Option<Instant>,
    waits: Waits,
}

impl Appender {
    /// Appends until sealing has ended and nothing is in flight.
    ///
    /// `found` is where Redis had the streams before the first seal.
    pub(super) async fn run(mut self, found: Vec<(Arc<str>, Place)>) -> Result<()> {
        self.examine_all(found);
        let mut sealing = true;
        let mut audits = every(self.audit_every);
        let mut pulse = every(PULSE);
        while sealing || !self.work.in_flight.is_empty() {
            self.replay_next();
            let retry_at = self.work.refused.values().filter_map(|refused| refused.at).min();
            tokio::select! {
                biased;
                // First, for under load something else is always ready.
                _ = audits.tick() => self.audit(),
                _ = pulse.tick() => self.take_pulse(),
                Some(answers) = self.work.in_flight.next() => self.answered(answers?),
                Some(report) = self.work.tasks.join_next() => self.reported(report)?,
                batches = self.sealed.recv(), if sealing && self.work.in_flight.len() < IN_FLIGHT => {
                    match batches {
                        Some(batches) => self.carry(batches),
                        None => sealing = false,
                    }
                }
                () = tokio::time::sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => {
                    self.retry();
                }
            }
        }
        Ok(())
    }

    /// Appends what was sealed, stream by stream, in one pipeline.
    fn carry(&mut self, batches: Vec<Batch>) {
        let (mut tickets, mut appends) = (Vec::new(), Vec::new());
        for batch in batches {
            let stream = batch.stream.clone();
            let progress = self.streams.entry(stream).or_insert_with(Progress::fresh);
            if let Some(Outgoing { append, mark }) = progress.seal(batch) {
                tickets.push(Ticket { epoch: progress.epoch(), last: append.last(), mark });
                appends.push(append);
            }
        }
        self.send(tickets, appends);
    }

    fn send(&mut self, tickets: Vec<Ticket>, appends: Vec<Append>) {
        if appends.is_empty() {
            return;
        }
        let redis = self.redis.clone();
        // Requests leave in the order in which their futures are first polled; a task of its own
        // would let a later one overtake. That would cost a replay, not the order.
        self.work.in_flight.push_back(Box::pin(async move {
            failpoint("before_append");
            let answers = redis.append(&appends).await?;
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
                    progress.arrived(ticket.epoch, ticket.last);
                    self.note(Note::Arrived(ticket.mark));
                }
                other => self.not_appended(&stream, other),
            }
        }
    }

    /// The stream is not where it should be, or Redis cannot take it now.
    fn not_appended(&mut self, stream: &Arc<str>, answer: Appended) {
        match answer {
            Appended::Elsewhere(at) => self.examine(stream, Place::At(at)),
            Appended::WrongType(kind) => self.examine(stream, Place::WrongType(kind)),
            Appended::Refused(why) => self.refuse(stream, &why),
            Appended::Done => {}
        }
    }

    // ---- looking where a stream is, and deciding ----

    fn examine_all(&mut self, found: Vec<(Arc<str>, Place)>) {
        let mut losses = report::Losses::default();
        for (stream, place) in found {
            self.examine_into(&stream, place, &mut losses);
        }
        losses.end();
    }

    fn examine(&mut self, stream: &Arc<str>, place: Place) {
        self.examine_into(stream, place, &mut report::Losses::default());
    }

    fn examine_into(&mut self, stream: &Arc<str>, place: Place, losses: &mut report::Losses) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        progress.examine();
        let known = match &place {
            Place::Missing | Place::WrongType(_) => true,
            Place::At(at) => {
                *at == progress.sealed() || *at == Position::START || *at > progress.sealed()
            }
        };
        if known {
            let in_log = matches!(&place, Place::At(at) if *at == progress.sealed());
            return self.act(stream, place, in_log, losses);
        }
        let (log, stream, epoch) = (self.log.clone(), stream.clone(), progress.epoch());
        self.work.tasks.spawn(async move {
            let in_log = match &place {
                Place::At(at) => log.locate(&stream, at.n).await? == Some(*at),
                _ => false,
            };
            Ok(Report::Examined { stream, epoch, place, in_log })
        });
    }

    fn act(&mut self, stream: &Arc<str>, place: Place, in_log: bool, losses: &mut report::Losses) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        let finding = Finding {
            place,
            in_log,
            sealed: progress.sealed(),
            confirmed: progress.confirmed(),
            floor: progress.floor(),
        };
        match decide(&finding) {
            Verdict::InStep => {
                let (confirmed, at) = (progress.confirmed(), progress.sealed());
                progress.in_step(at);
                if at.n > confirmed {
                    let (stream, after, through) = (stream.clone(), confirmed, at.n);
                    self.note(Note::Reached(Reached { stream, after, through }));
                }
                self.tell(stream, State::Active, None);
            }
            Verdict::Replay { after, lost } => {
                self.replay(stream, &finding.place, after, lost, losses);
            }
            Verdict::Bootstrap { floor, lost } | Verdict::Forward { floor, lost } => {
                self.replay(stream, &finding.place, floor, lost, losses);
                self.move_to(stream, &finding.place, floor);
            }
            Verdict::Ahead { at } | Verdict::Foreign { at } => {
                progress.hold();
                self.tell(
                    stream,
                    State::Halted,
                    Some(report::foreign(&self.redis.key(stream), at)),
                );
            }
            Verdict::WrongType { kind } => {
                progress.hold();
                self.tell(
                    stream,
                    State::Halted,
                    Some(report::wrong_type(&self.redis.key(stream), &kind)),
                );
            }
        }
    }

    fn replay(
        &mut self,
        stream: &Arc<str>,
        place: &Place,
        after: Position,
        lost: Option<RangeInclusive<u64>>,
        losses: &mut report::Losses,
    ) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        let confirmed = progress.confirmed();
        progress.replay(after);
        if after.n > confirmed {
            let (stream, through) = (stream.clone(), after.n);
            self.note(Note::Reached(Reached { stream, after: confirmed, through }));
        }
        if let Some(range) = lost {
            losses.add(stream, place, range);
            self.note(Note::Lost(stream.clone(), after.n));
            let reason = "Redis lost entries; they are being put back";
            self.tell(stream, State::Rebuilding, Some(reason.to_owned()));
        }
        self.work.to_replay.push_back(stream.clone());
    }

    /// Moves a stream that is gone or older than its floor on to the floor; the replay follows.
    fn move_to(&mut self, stream: &Arc<str>, place: &Place, floor: Position) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        self.work.to_replay.retain(|waiting| waiting != stream);
        let from = match place {
            Place::At(at) => *at,
            _ => Position::START,
        };
        let (redis, stream, epoch) = (self.redis.clone(), stream.clone(), progress.epoch());
        self.work.tasks.spawn(async move {
            let answer = redis.move_to(&stream, from, floor).await?;
            Ok(Report::Moved { stream, epoch, answer })
        });
    }

    // ---- replaying the log ----

    fn replay_next(&mut self) {
        while self.work.replaying < REPLAYS {
            let Some(stream) = self.work.to_replay.pop_front() else { return };
            let Some(progress) = self.streams.get_mut(&stream) else { continue };
            if !matches!(progress.mode(), Mode::Replaying) {
                continue;
            }
            let (from, through) = (progress.at(), progress.sealed().n);
            if through.saturating_sub(from.n) <= self.bounds.rows as u64 {
                progress.join();
            }
            self.work.replaying += 1;
            let (log, redis, bounds) = (self.log.clone(), self.redis.clone(), self.bounds);
            let epoch = progress.epoch();
            self.work.tasks.spawn(async move {
                let chunk = replay::chunk(&log, &redis, &stream, from, through, bounds).await?;
                failpoint("after_replay");
                Ok(Report::Replayed { stream, epoch, from, chunk })
            });
        }
    }

    fn replayed(&mut self, stream: Arc<str>, epoch: u64, from: Position, chunk: Chunk) {
        self.work.replaying -= 1;
        let Some(progress) = self.streams.get_mut(&stream) else { return };
        if epoch != progress.epoch() {
            return;
        }
        match chunk {
            Chunk::Reached(last) => {
                progress.arrived(epoch, last);
                let sealed = progress.sealed();
                let reached = Reached { stream: stream.clone(), after: from.n, through: last.n };
                self.note(Note::Reached(reached));
                self.work.refused.remove(&stream);
                if last == sealed || self.joined(&stream, last) {
                    self.go_live(&stream);
                } else {
                    self.again(stream);
                }
            }
            Chunk::End => self.go_live(&stream),
            Chunk::Gone(n) => {
                progress.hold();
                self.tell(&stream, State::Halted, Some(report::gone(&stream, n)));
            }
            Chunk::Not(answer) => self.not_appended(&stream, answer),
        }
    }

    /// Whether the chunk that ends at `last` leads up to what waits in memory.
    fn joined(&self, stream: &Arc<str>, last: Position) -> bool {
        self.streams.get(stream).is_some_and(|progress| match progress.mode() {
            Mode::Joining(waiting) => waiting.first_n() == Some(last.n + 1),
            _ => false,
        })
    }

    /// Reads on: the chunk was cut short by its bounds.
    fn again(&mut self, stream: Arc<str>) {
        if let Some(progress) = self.streams.get_mut(&stream) {
            let at = progress.at();
            progress.replay(at);
            self.work.to_replay.push_back(stream);
        }
    }

    fn go_live(&mut self, stream: &Arc<str>) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        let epoch = progress.epoch();
        for Outgoing { append, mark } in progress.go_live() {
            let ticket = Ticket { epoch, last: append.last(), mark };
            self.send(vec![ticket], vec![append]);
        }
        self.work.refused.remove(stream);
        self.tell(stream, State::Active, None);
    }

    // ---- Redis has no room ----

    fn refuse(&mut self, stream: &Arc<str>, why: &str) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        progress.hold();
        let refused = self.work.refused.entry(stream.clone());
        let refused = refused.or_insert_with(|| Refused { at: None, waits: Waits::new() });
        refused.at = Some(Instant::now() + refused.waits.next_wait());
        self.tell(stream, State::Full, Some(report::refused(why)));
    }

    fn retry(&mut self) {
        let now = Instant::now();
        for (stream, refused) in &mut self.work.refused {
            let Some(progress) = self.streams.get_mut(stream) else { continue };
            if refused.at.is_some_and(|at| at <= now) {
                refused.at = None;
                let at = progress.at();
                progress.replay(at);
                self.work.to_replay.push_back(stream.clone());
            }
        }
    }

    // ---- audits ----

    fn take_pulse(&mut self) {
        let redis = self.redis.clone();
        self.work.tasks.spawn(async move { Ok(Report::Pulse(redis.life().await?)) });
    }

    fn audit(&mut self) {
        if self.work.auditing {
            return;
        }
        self.work.auditing = true;
        let asked = self
            .streams
            .iter()
            .filter(|(_, progress)| matches!(progress.mode(), Mode::Live | Mode::Held))
            .map(|(stream, p)| audit::Asked::new(stream, p))
            .collect();
        let (redis, identity) = (self.redis.clone(), self.identity.clone());
        self.work.tasks.spawn(async move {
            Ok(Report::Audited(audit::audit(&redis, &identity, asked).await?))
        });
    }

    fn audited(&mut self, audit: Audit) {
        self.work.auditing = false;
        if audit.fresh {
            report::identity_lost();
        }
        let mut losses = report::Losses::new(audit.fresh);
        for (asked, place) in audit.places {
            let Some(progress) = self.streams.get(&asked.stream) else { continue };
            let held = matches!(progress.mode(), Mode::Held);
            let refused = self.work.refused.contains_key(&asked.stream);
            if progress.epoch() == asked.epoch && !refused && (held || !asked.expects(&place)) {
                self.examine_into(&asked.stream, place, &mut losses);
            }
        }
        losses.end();
    }

    fn reported(&mut self, report: Result<Result<Report>, tokio::task::JoinError>) -> Result<()> {
        let report = report.map_err(|error| {
            Error::caused_by(Kind::Internal, "a task of the relay failed", error)
        })??;
        match report {
            Report::Examined { stream, epoch, place, in_log } => {
                if self.streams.get(&stream).is_some_and(|p| p.epoch() == epoch) {
                    let mut losses = report::Losses::default();
                    self.act(&stream, place, in_log, &mut losses);
                    losses.end();
                }
            }
            Report::Replayed { stream, epoch, from, chunk } => {
                self.replayed(stream, epoch, from, chunk);
            }
            Report::Moved { stream, epoch, answer } => {
                if self.streams.get(&stream).is_some_and(|p| p.epoch() == epoch) {
                    match answer {
                        Appended::Done => self.work.to_replay.push_back(stream),
                        other => self.not_appended(&stream, other),
                    }
                }
            }
            Report::Audited(audit) => self.audited(audit),
            Report::Pulse(life) => {
                if life != self.life {
                    report::new_life();
                    self.life = life;
                    self.audit();
                }
            }
        }
        Ok(())
    }

    // ---- telling ----

    fn note(&self, note: Note) {
        // The sealer outlives us unless it failed; then this session ends anyway.
        let _ = self.notes.send(note);
    }

    /// Tells people the state of a stream, once per change.
    fn tell(&mut self, stream: &Arc<str>, state: State, reason: Option<String>) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        if progress.told.0 == state && (progress.told.1 == reason || state == State::Full) {
            return;
        }
        report::state(stream, state.as_str(), reason.as_deref());
        progress.told = (state, reason.clone());
        self.note(Note::State(StateChange { stream: stream.clone(), state, reason }));
    }
}

fn every(period: Duration) -> tokio::time::Interval {
    let mut interval = tokio::time::interval_at(Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}
