//! Checkpoints: what consumer groups need, looked at in Redis, stored in Postgres, and only then trimmed.
//!
//! What is seen is believed only if the canary says the same life of Redis before and after, so that
//! nothing is stored of a Redis that has just lost its groups.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use super::audit::Asked;
use super::progress::{Losses, Mode, Progress};
use crate::error::{Kind, Result};
use crate::failpoint::failpoint;
use crate::group::Group;
use crate::outbox::{Checkpoint, Checkpoints, State};
use crate::position::Position;
use crate::stream::{Canary, Limits, Owner, Place, Redis, View};
use crate::telemetry::StreamLag;

/// Streams looked at in one round at most; where more have something to do, each has its turn.
const MOST: usize = 1_000;
/// Streams looked at between two raises of the canary.
const PIECE: usize = 100;
/// A stream with nothing to do is looked at once in so many rounds.
const SELDOM: u64 = 30;
/// Metrics are told once in so many rounds.
const TOLD: u64 = 5;

/// What one round found.
#[derive(Debug)]
pub(super) enum Round {
    /// It is the life of Redis that is known; what its streams are like.
    Same(Canary, Vec<Looked>),
    /// Redis has lost its identity, belongs to another life, or has gone back.
    Lost,
    /// Redis has no memory for a raise, or lost something in the middle: nothing was stored.
    Nothing,
}

/// One stream after a round.
#[derive(Debug)]
pub(super) struct Looked {
    pub(super) asked: Asked,
    pub(super) view: View,
    /// What its checkpoint looks like; None if it is not where it should be.
    print: Option<u64>,
    /// Its floor, as stored now or before.
    pub(super) floor: Position,
    /// A checkpoint was stored now.
    pub(super) stored: bool,
    /// Entries that were trimmed.
    pub(super) trimmed: u64,
}

impl Looked {
    fn new(due: Due, view: View, print: Option<u64>) -> Self {
        Self { asked: due.asked, view, print, floor: due.floor, stored: false, trimmed: 0 }
    }

    /// The stream was where it should be.
    pub(super) fn is_placed(&self) -> bool {
        self.print.is_some()
    }
}

/// A stream to look at, and what was last stored of it.
#[derive(Debug)]
pub(super) struct Due {
    asked: Asked,
    floor: Position,
    stored: Option<u64>,
    /// Postgres has a checkpoint of it.
    checkpointed: bool,
    /// How often its groups had been lost when it was asked about.
    lost: u64,
    losses: Losses,
}

/// What a round is made with.
#[derive(Clone, Debug)]
pub(super) struct Means {
    pub(super) redis: Redis,
    pub(super) owner: Owner,
    pub(super) limits: Limits,
    pub(super) retention: Duration,
}

/// Looks at streams, stores what has changed, and trims them. `known` is the canary as last seen; `now_ms`
/// the clock of Postgres.
pub(super) async fn round(
    means: &Means,
    checkpoints: &mut Checkpoints,
    due: Vec<Due>,
    known: Option<Canary>,
    now_ms: u64,
) -> Result<Round> {
    let (mut canary, mut looked) = (known, Vec::with_capacity(due.len()));
    let mut due = due.into_iter().peekable();
    // Also where nothing is due: the canary is how it is seen that Redis has gone back.
    loop {
        // A piece at a time, for a group may have thousands of pending entries.
        let piece: Vec<Due> = due.by_ref().take(PIECE).collect();
        match look(means, checkpoints, piece, canary, now_ms).await? {
            Round::Same(after, piece) => {
                canary = Some(after);
                looked.extend(piece);
            }
            other => return Ok(other),
        }
        if due.peek().is_none() {
            break;
        }
    }
    Ok(canary.map_or(Round::Nothing, |canary| Round::Same(canary, looked)))
}

async fn look(
    means: &Means,
    checkpoints: &mut Checkpoints,
    due: Vec<Due>,
    known: Option<Canary>,
    now_ms: u64,
) -> Result<Round> {
    let redis = &means.redis;
    // A Redis without memory takes no raise, and is trimmed all the same: that is how it gets some. If it
    // goes back to a time after the last raise, groups go back with it unseen: they are given entries
    // again.
    let (before, least) = match redis.canary(&means.owner, 1).await {
        Err(busy) if busy.kind() == Kind::Busy => (redis.canary(&means.owner, 0).await?, 0),
        before => (before?, 1),
    };
    let goes_on =
        |now: &Canary, then: &Canary| now.nonce == then.nonce && now.count >= then.count + least;
    let Some(before) = before.filter(|now| known.as_ref().is_none_or(|then| goes_on(now, then)))
    else {
        return Ok(Round::Lost);
    };
    let names: Vec<Arc<str>> = due.iter().map(|due| due.asked.stream.clone()).collect();
    let views = redis.views(&names).await?;
    let after = match redis.canary(&means.owner, least).await {
        Err(busy) if busy.kind() == Kind::Busy => return Ok(Round::Nothing),
        after => after?,
    };
    let Some(after) = after.filter(|after| goes_on(after, &before)) else {
        return Ok(Round::Nothing);
    };
    let mut looked = store(means, checkpoints, due, views, &after, now_ms).await?;
    trim(redis, &mut looked).await?;
    for group in looked.iter_mut().flat_map(|looked| &mut looked.view.groups) {
        group.pending = None;
    }
    Ok(Round::Same(after, looked))
}

/// Stores what has changed since the last checkpoint of each stream.
async fn store(
    means: &Means,
    checkpoints: &mut Checkpoints,
    due: Vec<Due>,
    views: Vec<View>,
    canary: &Canary,
    now_ms: u64,
) -> Result<Vec<Looked>> {
    let (mut changed, mut looked) = (Vec::new(), Vec::with_capacity(due.len()));
    for (due, view) in due.into_iter().zip(views) {
        let is_there = matches!(view.place, Place::At(at) if at >= due.asked.at);
        if is_there {
            let floor = floor(means, &due, &view, now_ms).await?;
            let groups = view.groups.iter().map(|group| group.clone().within(due.asked.sent));
            let stream = due.asked.stream.clone();
            let restored = due.losses.now() == due.lost;
            let checkpoint = Checkpoint { stream, floor, groups: groups.collect(), restored };
            let print = fingerprint(&checkpoint);
            let is_new = floor > 0 || !checkpoint.groups.is_empty() || due.checkpointed;
            if due.stored != Some(print) && (is_new || due.stored.is_some()) {
                changed.push((looked.len(), checkpoint));
            }
            looked.push(Looked::new(due, view, Some(print)));
        } else {
            looked.push(Looked::new(due, view, None));
        }
    }
    let (places, changed): (Vec<usize>, Vec<Checkpoint>) = changed.into_iter().unzip();
    failpoint("before_checkpoint");
    let floors = checkpoints.save(&canary.nonce, canary.count, &changed).await?;
    failpoint("after_checkpoint");
    let mut floors: HashMap<Arc<str>, Position> = floors.into_iter().collect();
    for place in places {
        let one: &mut Looked = &mut looked[place];
        match floors.remove(&one.asked.stream) {
            Some(floor) => (one.floor, one.stored) = (floor, true),
            // Its groups were lost meanwhile, and what was seen is not to be believed.
            None => one.print = None,
        }
    }
    Ok(looked)
}

/// Number up to which nobody needs an entry.
async fn floor(means: &Means, due: &Due, view: &View, now_ms: u64) -> Result<u64> {
    if let Some(floor) = view.floor() {
        // A group that is new or was set back does not bring back what had been trimmed.
        let trimmed = due.floor.n.min(view.trimmed());
        return Ok(floor.min(due.asked.sent.n).max(trimmed));
    }
    if !means.limits.trim_ungrouped {
        return Ok(due.floor.n);
    }
    let trimmed = view.trimmed().min(due.asked.sent.n);
    let cutoff = now_ms.saturating_sub(means.retention.as_millis() as u64);
    let old = match view.first {
        Some(first) if first.ms < cutoff => {
            let cutoff = Position { ms: cutoff, n: 0 };
            means.redis.last_before(&due.asked.stream, cutoff).await?
        }
        _ => None,
    };
    Ok(trimmed.max(old.map_or(0, |old| old.n.min(due.asked.sent.n))))
}

/// Trims streams whose floor, as stored, has passed their first entry.
async fn trim(redis: &Redis, looked: &mut [Looked]) -> Result<()> {
    let (mut places, mut due) = (Vec::new(), Vec::new());
    for (place, one) in looked.iter().enumerate() {
        if one.print.is_some() && one.floor.n > one.view.trimmed() {
            places.push(place);
            due.push((one.asked.stream.clone(), one.floor, !one.view.groups.is_empty()));
        }
    }
    failpoint("before_trim");
    for (place, trimmed) in places.into_iter().zip(redis.trim(&due).await?) {
        looked[place].trimmed = trimmed;
    }
    failpoint("after_trim");
    Ok(())
}

fn fingerprint(checkpoint: &Checkpoint) -> u64 {
    let mut hasher = DefaultHasher::new();
    checkpoint.floor.hash(&mut hasher);
    checkpoint.groups.iter().for_each(|group| group.hash_into(&mut hasher));
    hasher.finish()
}

/// Which streams are looked at, and what was seen of each the last time. Pure.
#[derive(Debug, Default)]
pub(super) struct Rota {
    seen: HashMap<Arc<str>, Seen>,
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
    pub(super) fn next(&mut self, streams: &HashMap<Arc<str>, Progress>) -> Vec<Due> {
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
