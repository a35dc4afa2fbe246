//! Whose turn it is to be looked at, and what was seen of each stream the last time. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::RangeInclusive;
use std::sync::Arc;

use super::audit::Asked;
use super::checkpoint::Looked;
use super::progress::{Losses, Mode, Progress};
use crate::group::Group;
use crate::outbox::State;
use crate::position::Position;
use crate::stream::{Limits, Place};
use crate::telemetry::StreamLag;

/// Streams looked at in one round at most; where more have something to do, each has its turn.
const MOST: usize = 1_000;
/// A stream with nothing to do is looked at once in so many rounds.
const SELDOM: u64 = 30;
/// Metrics are told once in so many rounds.
const TOLD: u64 = 5;

/// A stream to look at, and what was last stored of it.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) asked: Asked,
    pub(super) floor: Position,
    pub(super) stored: Option<u64>,
    /// Postgres has a checkpoint of it.
    pub(super) checkpointed: bool,
    /// How often its groups had been lost when it was asked about.
    pub(super) lost: u64,
    pub(super) losses: Losses,
}

/// Which streams are looked at, and what was seen of each the last time. Pure.
#[derive(Debug, Default)]
pub(super) struct Rota {
    seen: BTreeMap<Arc<str>, Seen>,
    round: u64,
}

#[derive(Debug)]
struct Seen {
    at: Position,
    /// No group needs anything.
    quiet: bool,
    stored: Option<u64>,
    lags: Vec<(String, u64)>,
    /// Entries that somebody removed were told up to this number.
    removed: u64,
    ratio: f64,
}

impl Rota {
    /// The streams for the next round: those where something may have changed, and a few of the rest.
    pub(super) fn next(&mut self, streams: &BTreeMap<Arc<str>, Progress>) -> Vec<Due> {
        self.round += 1;
        let (mut busy, mut due) = (Vec::new(), Vec::new());
        for (stream, progress) in streams.iter().filter(|(_, progress)| is_due(progress)) {
            let idle = self.seen.get(stream).is_some_and(|s| s.quiet && s.at == progress.at());
            match idle {
                true if turn(stream, SELDOM) == self.round % SELDOM => due.push((stream, progress)),
                true => {}
                false => busy.push((stream, progress)),
            }
        }
        let turns = busy.len().div_ceil(MOST).max(1) as u64;
        busy.retain(|(stream, _)| turn(stream, turns) == self.round % turns);
        due.extend(busy);
        due.into_iter().map(|(stream, progress)| self.due(stream, progress)).collect()
    }

    /// One stream, out of its turn.
    pub(super) fn one(&self, stream: &Arc<str>, progress: &Progress) -> Option<Due> {
        is_due(progress).then(|| self.due(stream, progress))
    }

    fn due(&self, stream: &Arc<str>, progress: &Progress) -> Due {
        let stored = self.seen.get(stream).and_then(|seen| seen.stored);
        Due {
            asked: Asked::new(stream, progress),
            floor: progress.floor(),
            stored,
            checkpointed: progress.is_checkpointed(),
            lost: progress.losses().now(),
            losses: progress.losses().clone(),
        }
    }

    /// Another life of Redis: everything is stored again.
    pub(super) fn forget(&mut self) {
        self.seen.values_mut().for_each(|seen| (seen.stored, seen.quiet) = (None, false));
    }

    /// The groups of a stream have been put back: they are stored again.
    pub(super) fn forget_one(&mut self, stream: &Arc<str>) {
        if let Some(seen) = self.seen.get_mut(stream) {
            (seen.stored, seen.quiet) = (None, false);
        }
    }

    /// A stream was looked at. Returns the numbers of entries that somebody removed although a group
    /// needs them, if there are more than were told before; `floor` is what was known to be needless.
    pub(super) fn saw(
        &mut self,
        looked: &Looked,
        floor: u64,
        limits: Limits,
    ) -> Option<RangeInclusive<u64>> {
        let (view, print) = (&looked.view, looked.print?);
        let Place::At(last) = view.place else { return None };
        let trimmed = view.trimmed();
        let misses = |group: &Group| group.delivered.n < trimmed || group.dangling > 0;
        let needed = view.groups.is_empty() || view.groups.iter().any(misses);
        let told = self.seen.get(&looked.asked.stream).map_or(0, |seen| seen.removed);
        let removed = if needed && !limits.trim_ungrouped && trimmed > floor { trimmed } else { 0 };
        let share = |used: u64, limit: u64| match limit {
            0 => 0.0,
            limit => used as f64 / limit as f64,
        };
        let left = view.entries.saturating_sub(looked.trimmed);
        let seen = Seen {
            at: last,
            quiet: view.groups.iter().all(|group| group.lag(last.n) == 0) && looked.trimmed == 0,
            stored: Some(print),
            lags: view.groups.iter().map(|g| (g.name.clone(), g.lag(last.n))).collect(),
            removed: if trimmed > floor { removed.max(told) } else { 0 },
            ratio: share(left, limits.entries).max(share(view.bytes, limits.bytes)),
        };
        self.seen.insert(looked.asked.stream.clone(), seen);
        (removed > told).then(|| floor.max(told) + 1..=removed)
    }

    /// Metrics follow once in a few rounds: they are about all streams, and read less often.
    pub(super) fn is_to_be_told(&self) -> bool {
        self.round.is_multiple_of(TOLD)
    }

    /// Lags and fill of all streams as last seen, for metrics.
    pub(super) fn lags(&self) -> impl Iterator<Item = StreamLag<'_>> {
        self.seen.iter().map(|(stream, seen)| StreamLag {
            stream,
            ratio: seen.ratio,
            groups: &seen.lags,
        })
    }
}

/// Only a stream that is where it should be, with groups that are sound, says something true.
fn is_due(progress: &Progress) -> bool {
    let is_placed = matches!(progress.mode(), Mode::Live | Mode::Held);
    let is_halted = progress.told.0 == State::Halted;
    is_placed && !is_halted && progress.is_sound() && progress.at() != Position::START
}

/// The turn of a stream, out of `turns`.
fn turn(stream: &str, turns: u64) -> u64 {
    let mut hasher = DefaultHasher::new();
    stream.hash(&mut hasher);
    hasher.finish() % turns
}
