//! Brings a stream that is not where it should be back into step: look, decide, replay the log, go
//! live. The same for a crash, a backlog, and any loss.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::appender::Appender;
use super::decide::{Finding, Verdict, decide};
use super::progress::{Mode, Outgoing, Progress};
use super::replay::{self, Chunk};
use super::sealer::Note;
use super::work::{Refused, Report, Ticket};
use super::{Bounds, audit, report};
use crate::error::{Kind, Target};
use crate::failpoint::failpoint;
use crate::outbox::{Holds, Reached, State, StateChange};
use crate::position::Position;
use crate::stream::{Claim, Full, Limits, Place, Shard};
use crate::telemetry::Cause;

/// Streams replayed at once.
const REPLAYS: usize = 4;

impl Appender {
    // ---- looking where a stream is, and deciding ----

    pub(super) fn examine_all(&mut self, found: Vec<(Arc<str>, Place)>, fresh: &[Shard]) {
        for shard in fresh {
            // One that was never given anything has lost nothing, nor has a primary that got its streams,
            // with their groups, from another one.
            let lost = found.iter().any(|(stream, place)| {
                let is_lost = |progress: &Progress| {
                    let gone = *place == Place::Missing || !progress.is_sound();
                    progress.delivered() > 0 && gone
                };
                self.redis.shard(stream) == *shard && self.streams.get(stream).is_some_and(is_lost)
            });
            if lost {
                self.identity_lost(*shard);
            }
        }
        let mut losses = report::Losses::default();
        for (stream, place) in found {
            match self.streams.get(&stream).is_some_and(Progress::is_paused) {
                true => report::held(&stream, &self.held),
                false => self.examine_into(&stream, place, &mut losses),
            }
        }
        losses.end(&self.metrics, &mut self.work.all_told);
    }

    /// Asks where streams are, after ceasing to believe what is on its way to them. Only a place
    /// that was asked for then can tell a loss: any other may be older than what is confirmed.
    pub(super) fn look(&mut self, streams: Vec<Arc<str>>) {
        // What they were refused is asked for again from where they are.
        for stream in &streams {
            self.work.refused.remove(stream);
        }
        self.look_again(streams);
    }

    /// As [`Appender::look`]; of streams that were refused, the waits go on growing.
    fn look_again(&mut self, streams: Vec<Arc<str>>) {
        let mut asked = Vec::with_capacity(streams.len());
        for stream in &streams {
            let Some(progress) = self.streams.get_mut(stream) else { continue };
            if progress.is_paused() {
                continue;
            }
            progress.examine();
            asked.push((stream.clone(), progress.epoch()));
        }
        let (redis, owner) = (self.redis.clone(), self.owner.clone());
        self.work.tasks.spawn(async move {
            let names: Vec<_> = asked.iter().map(|(stream, _)| stream.clone()).collect();
            let places = redis.positions(&names).await?;
            // A stream that is gone may have gone with everything else.
            let gone = names.iter().zip(&places).filter(|(_, place)| **place == Place::Missing);
            let gone: BTreeSet<Shard> = gone.map(|(stream, _)| redis.shard(stream)).collect();
            let claims = match audit::claim(&*redis, &owner, gone).await {
                // No memory for an identity: an audit makes it later.
                Err(busy) if busy.kind() == Kind::Busy => Vec::new(),
                claims => claims?,
            };
            let fresh = claims.into_iter().filter(|(_, claim)| *claim == Claim::Fresh);
            let fresh = fresh.map(|(shard, _)| shard).collect();
            let places = asked.into_iter().zip(places);
            let places = places.map(|((stream, epoch), place)| (stream, epoch, place)).collect();
            Ok(Report::Looked { fresh, places })
        });
    }

    pub(super) fn looked(&mut self, places: Vec<(Arc<str>, u64, Place)>, fresh: &[Shard]) {
        fresh.iter().for_each(|shard| self.emptied(*shard));
        let mut losses = report::Losses::default();
        for (stream, epoch, place) in places {
            if self.streams.get(&stream).is_some_and(|progress| progress.epoch() == epoch) {
                self.examine_into(&stream, place, &mut losses);
            }
        }
        losses.end(&self.metrics, &mut self.work.all_told);
    }

    /// A primary has lost its identity: all streams are looked at, and what is lost went with it.
    pub(super) fn emptied(&mut self, shard: Shard) {
        if std::mem::take(&mut self.primaries.of(shard).nameless) {
            return;
        }
        self.identity_lost(shard);
        self.distrust(shard, None);
        self.audit();
    }

    fn identity_lost(&mut self, shard: Shard) {
        report::identity_lost(&self.redis.shard_name(shard));
        // Of a cluster, others have not lost anything.
        if self.primaries.is_one() {
            self.work.empty(self.streams.keys().cloned().collect());
        }
    }

    // ---- somebody holds a stream, or lets it go ----

    pub(super) fn obey(&mut self, holds: Holds) {
        for stream in self.held.gated.difference(&holds.gated) {
            // What was stored for it are the groups that it is to have from the beginning.
            let held = || {
                let mut progress = Progress::fresh();
                progress.pause();
                progress
            };
            let progress = self.streams.entry(stream.clone()).or_insert_with(held);
            progress.lose_groups();
            progress.set_checkpointed();
            self.work.opened.insert(stream.clone());
        }
        let mut resumed = Vec::new();
        for (stream, progress) in &mut self.streams {
            match (holds.is_held(stream), progress.is_paused()) {
                (true, false) => {
                    progress.pause();
                    self.work.refused.remove(stream);
                    report::held(stream, &holds);
                }
                (false, true) => {
                    progress.resume();
                    if self.held.paused.contains(stream) {
                        report::resumed(stream);
                    }
                    resumed.push(stream.clone());
                }
                _ => {}
            }
        }
        for stream in &holds.closing {
            // Looked at and stored anew, for it may have a group by now that nobody has seen.
            self.rota.forget_one(stream);
        }
        // Only now, for what is sealed for new partitions has to wait.
        for (stream, partitions) in &holds.wanted {
            self.note(Note::Split(stream.clone(), *partitions));
        }
        self.held = holds;
        if !resumed.is_empty() {
            self.look(resumed);
        }
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
            let purged = log.purged(&stream).await?;
            Ok(Report::Examined { stream, epoch, place, in_log, purged })
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
            purged: progress.purged(),
        };
        match decide(&finding) {
            Verdict::InStep
                if !progress.is_sound()
                    && (finding.sealed != Position::START || progress.is_checkpointed()) =>
            {
                self.replay(stream, &finding.place, finding.sealed, None, losses);
                self.restore(stream, &finding.place, Position::START);
            }
            Verdict::InStep => {
                progress.restored();
                let (confirmed, at) = (progress.confirmed(), progress.sealed());
                progress.in_step(at);
                if at.n > confirmed {
                    let (stream, after, through) = (stream.clone(), confirmed, at.n);
                    self.note(Note::Reached(Reached { stream, after, through }));
                }
                self.tell(stream, State::Active, None);
            }
            Verdict::Replay { after, lost } => {
                if lost.is_some() {
                    progress.lose_groups();
                }
                let is_sound = progress.is_sound();
                self.replay(stream, &finding.place, after, lost, losses);
                if !is_sound {
                    self.restore(stream, &finding.place, Position::START);
                }
            }
            Verdict::Bootstrap { floor, lost } | Verdict::Forward { floor, lost } => {
                progress.lose_groups();
                self.replay(stream, &finding.place, floor, lost, losses);
                self.restore(stream, &finding.place, floor);
            }
            Verdict::Ahead { at } | Verdict::Foreign { at } => {
                let reason = report::foreign(stream, &self.redis.key(stream), at);
                self.halt(stream, Cause::Foreign, reason);
            }
            Verdict::WrongType { kind } => {
                let reason = report::wrong_type(stream, &self.redis.key(stream), &kind);
                self.halt(stream, Cause::WrongType, reason);
            }
        }
    }

    /// Does nothing with the stream until a person has acted; audits go on looking at it.
    fn halt(&mut self, stream: &Arc<str>, cause: Cause, reason: String) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        progress.hold();
        self.work.refused.remove(stream);
        let was_halted = progress.told.0 == State::Halted;
        if self.tell_why(stream, State::Halted, Some(cause), Some(reason)) && !was_halted {
            self.metrics.found(cause);
        }
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
            let everything = self.work.looked_at(stream, Instant::now());
            let sentence = losses.add(stream, place, everything, &range);
            self.note(Note::Lost(stream.clone(), after.n));
            self.tell(stream, State::Rebuilding, Some(sentence));
        }
        self.work.to_replay.push_back(stream.clone());
    }

    // ---- replaying the log ----

    pub(super) fn replay_next(&mut self) {
        while self.work.replaying < REPLAYS {
            let Some(stream) = self.work.to_replay.pop_front() else { return };
            // What groups were given before comes back first, and they with it.
            let given = self.streams.get(&stream).and_then(|p| self.given(&stream, p));
            let Some(progress) = self.streams.get_mut(&stream) else { continue };
            if !matches!(progress.mode(), Mode::Replaying) {
                continue;
            }
            let (from, sealed) = (progress.at(), progress.sealed().n);
            let through = given.unwrap_or(sealed).min(sealed);
            if through == sealed && through.saturating_sub(from.n) <= self.bounds.rows as u64 {
                progress.join();
            }
            self.work.replaying += 1;
            let (log, redis, bounds) = (self.log.clone(), self.redis.clone(), self.bounds);
            let epoch = progress.epoch();
            let room = self.work.refused.get(&stream).and_then(|refused| refused.room);
            let bounds = match room {
                // One tells when there is room again.
                Some(room) => Bounds { rows: bounds.rows.min(room.max(1) as usize), ..bounds },
                None => bounds,
            };
            // It held that much before.
            let limits = if given.is_some() { Limits::NONE } else { self.limits };
            self.work.tasks.spawn(async move {
                let chunk =
                    replay::chunk(&*log, &*redis, &stream, from, through, bounds, limits).await?;
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
            Chunk::Reached(last, created_us) => {
                let delivered = progress.delivered();
                progress.arrived(epoch, last);
                let reached = Reached { stream: stream.clone(), after: from.n, through: last.n };
                self.note(Note::Reached(reached));
                self.count(&stream, delivered, last.n, &created_us);
                self.work.refused.remove(&stream);
                self.advance(stream, false);
            }
            // Whoever waits in memory follows; if it was too much to keep, the log has it by now.
            Chunk::End => self.advance(stream, true),
            Chunk::Gone(n) => self.halt(&stream, Cause::RowGone, report::gone(&stream, n)),
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
            let ticket = Ticket::new(epoch, &append, mark);
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
        let refused = refused.or_insert_with(Refused::new);
        refused.room = None;
        refused.at = Some(Instant::now() + refused.waits.next_wait());
        self.metrics.failed(&Target::Redis.error(Kind::Busy, why));
        self.tell(stream, State::Full, Some(report::refused(why)));
    }

    /// The stream is at its limit: it waits for its groups, and nobody else waits for it.
    pub(super) fn full(&mut self, stream: &Arc<str>, full: &Full) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        progress.hold();
        let refused = self.work.refused.entry(stream.clone()).or_insert_with(Refused::new);
        refused.room = Some(full.room);
        let wait = match full.room {
            0 => refused.waits.next_wait(),
            _ => Duration::ZERO,
        };
        refused.at = Some(Instant::now() + wait);
        if full.room == 0 {
            let reason = report::full(&self.redis.key(stream), full, self.limits);
            self.tell(stream, State::Full, Some(reason));
            self.checkpoint(Some(&stream.clone()));
        }
    }

    pub(super) fn retry(&mut self) {
        let now = Instant::now();
        let mut lost = Vec::new();
        for (stream, refused) in &mut self.work.refused {
            let Some(progress) = self.streams.get_mut(stream) else { continue };
            if refused.at.is_some_and(|at| at <= now) {
                refused.at = None;
                // Its groups come before its entries.
                if !progress.is_sound() {
                    lost.push(stream.clone());
                    continue;
                }
                let at = progress.at();
                progress.replay(at);
                self.work.to_replay.push_back(stream.clone());
            }
        }
        if !lost.is_empty() {
            self.look_again(lost);
        }
    }

    // ---- telling ----

    pub(super) fn note(&self, note: Note) {
        // The sealer outlives us unless it failed; then this session ends anyway.
        let _ = self.notes.send(note);
    }

    /// Tells people the state of a stream, once per change.
    pub(super) fn tell(&mut self, stream: &Arc<str>, state: State, reason: Option<String>) {
        self.tell_why(stream, state, None, reason);
    }

    /// As [`Appender::tell`], with the cause. Returns whether it was a change.
    fn tell_why(
        &mut self,
        stream: &Arc<str>,
        state: State,
        cause: Option<Cause>,
        reason: Option<String>,
    ) -> bool {
        let Some(progress) = self.streams.get_mut(stream) else { return false };
        // Redis has many words for having no room.
        let refused = |told: &Option<String>| told.as_deref().is_some_and(report::is_refused);
        let same = progress.told.1 == reason || refused(&progress.told.1) && refused(&reason);
        if progress.told.0 == state && same {
            return false;
        }
        report::state(stream, state.as_str(), cause, reason.as_deref());
        progress.told = (state, reason.clone());
        self.note(Note::State(StateChange { stream: stream.clone(), state, reason }));
        true
    }

    /// Counts entries that have arrived up to number `last`; what was in Redis before, up to number
    /// `delivered`, was put back.
    pub(super) fn count(&self, stream: &str, delivered: u64, last: u64, created_us: &[i64]) {
        let entries = created_us.len() as u64;
        let new = entries.min(last.saturating_sub(delivered));
        if new < entries {
            self.metrics.replayed(stream, entries - new);
        }
        if new > 0 {
            self.metrics.dispatched(stream, new);
            let now_us = self.clock.now_us();
            for created_us in &created_us[(entries - new) as usize..] {
                let age = now_us.saturating_sub(*created_us);
                self.metrics.delivered_after(Duration::from_micros(age.max(0).unsigned_abs()));
            }
        }
    }
}
