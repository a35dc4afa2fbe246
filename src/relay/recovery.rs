//! Brings a stream that is not where it should be back into step: look, decide, replay the log, go
//! live. The same for a crash, a backlog, and any loss.

use std::ops::RangeInclusive;
use std::sync::Arc;

use tokio::time::Instant;

use super::appender::Appender;
use super::decide::{Finding, Verdict, decide};
use super::progress::{Mode, Outgoing};
use super::replay::{self, Chunk};
use super::report;
use super::sealer::Note;
use super::work::{Refused, Report, Ticket};
use crate::failpoint::failpoint;
use crate::outbox::{Reached, State, StateChange};
use crate::position::Position;
use crate::retry::Waits;
use crate::stream::Place;

/// Streams replayed at once.
const REPLAYS: usize = 4;

impl Appender {
    // ---- looking where a stream is, and deciding ----

    pub(super) fn examine_all(&mut self, found: Vec<(Arc<str>, Place)>, fresh: bool) {
        if fresh && !found.is_empty() {
            report::identity_lost();
        }
        let mut losses = report::Losses::new(fresh);
        for (stream, place) in found {
            self.examine_into(&stream, place, &mut losses);
        }
        losses.end();
    }

    /// Asks where streams are, after ceasing to believe what is on its way to them. Only a place
    /// that was asked for then can tell a loss: any other may be older than what is confirmed.
    pub(super) fn look(&mut self, streams: Vec<Arc<str>>, everything: bool) {
        let mut asked = Vec::with_capacity(streams.len());
        for stream in &streams {
            let Some(progress) = self.streams.get_mut(stream) else { continue };
            progress.examine();
            asked.push((stream.clone(), progress.epoch()));
        }
        let redis = self.redis.clone();
        self.work.tasks.spawn(async move {
            let names: Vec<_> = asked.iter().map(|(stream, _)| stream.clone()).collect();
            let places = asked.into_iter().zip(redis.positions(&names).await?);
            let places = places.map(|((stream, epoch), place)| (stream, epoch, place)).collect();
            Ok(Report::Looked { everything, places })
        });
    }

    pub(super) fn looked(&mut self, places: Vec<(Arc<str>, u64, Place)>, everything: bool) {
        let mut losses = report::Losses::new(everything);
        for (stream, epoch, place) in places {
            if self.streams.get(&stream).is_some_and(|progress| progress.epoch() == epoch) {
                self.examine_into(&stream, place, &mut losses);
            }
        }
        losses.end();
    }

    pub(super) fn examine_into(
        &mut self,
        stream: &Arc<str>,
        place: Place,
        losses: &mut report::Losses,
    ) {
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

    pub(super) fn act(
        &mut self,
        stream: &Arc<str>,
        place: Place,
        in_log: bool,
        losses: &mut report::Losses,
    ) {
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
            Verdict::Ahead { at } => {
                let sealed = progress.sealed();
                self.halt(stream, report::ahead(&self.redis.key(stream), at, sealed));
            }
            Verdict::Foreign { at } => {
                self.halt(stream, report::foreign(&self.redis.key(stream), at));
            }
            Verdict::WrongType { kind } => {
                self.halt(stream, report::wrong_type(&self.redis.key(stream), &kind));
            }
        }
    }

    /// Does nothing with the stream until a person has acted; audits go on looking at it.
    fn halt(&mut self, stream: &Arc<str>, reason: String) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        progress.hold();
        self.tell(stream, State::Halted, Some(reason));
    }

    pub(super) fn replay(
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
    pub(super) fn move_to(&mut self, stream: &Arc<str>, place: &Place, floor: Position) {
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

    pub(super) fn replay_next(&mut self) {
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

    pub(super) fn replayed(&mut self, stream: Arc<str>, epoch: u64, from: Position, chunk: Chunk) {
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
            // Whoever waits in memory follows; if it was too much to keep, the log has it by now.
            Chunk::End if matches!(progress.mode(), Mode::Joining(_)) => self.go_live(&stream),
            Chunk::End => self.again(stream),
            Chunk::Gone(n) => self.halt(&stream, report::gone(&stream, n)),
            Chunk::Not(answer) => self.not_appended(&stream, answer),
        }
    }

    /// Whether the chunk that ends at `last` leads up to what waits in memory.
    pub(super) fn joined(&self, stream: &Arc<str>, last: Position) -> bool {
        self.streams.get(stream).is_some_and(|progress| match progress.mode() {
            Mode::Joining(waiting) => waiting.first_n() == Some(last.n + 1),
            _ => false,
        })
    }

    /// Reads on: the chunk was cut short by its bounds.
    pub(super) fn again(&mut self, stream: Arc<str>) {
        if let Some(progress) = self.streams.get_mut(&stream) {
            let at = progress.at();
            progress.replay(at);
            self.work.to_replay.push_back(stream);
        }
    }

    pub(super) fn go_live(&mut self, stream: &Arc<str>) {
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

    pub(super) fn refuse(&mut self, stream: &Arc<str>, why: &str) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        progress.hold();
        let refused = self.work.refused.entry(stream.clone());
        let refused = refused.or_insert_with(|| Refused { at: None, waits: Waits::new() });
        refused.at = Some(Instant::now() + refused.waits.next_wait());
        self.tell(stream, State::Full, Some(report::refused(why)));
    }

    pub(super) fn retry(&mut self) {
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

    // ---- telling ----

    pub(super) fn note(&self, note: Note) {
        // The sealer outlives us unless it failed; then this session ends anyway.
        let _ = self.notes.send(note);
    }

    /// Tells people the state of a stream, once per change.
    pub(super) fn tell(&mut self, stream: &Arc<str>, state: State, reason: Option<String>) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        if progress.told.0 == state && (progress.told.1 == reason || state == State::Full) {
            return;
        }
        report::state(stream, state.as_str(), reason.as_deref());
        progress.told = (state, reason.clone());
        self.note(Note::State(StateChange { stream: stream.clone(), state, reason }));
    }
}
