//! Checkpoints: what consumer groups need, looked at in Redis, stored in Postgres, and only then trimmed.
//!
//! What is seen is believed only if the canary says the same life of Redis before and after, so that
//! nothing is stored of a Redis that has just lost its groups.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use super::appender::Appender;
use super::audit::Asked;
use super::progress::Mode;
use super::report;
use super::rota::Due;
use super::servers::{Checkpoints, Redis};
use super::work::Report;
use crate::error::{Kind, Result};
use crate::failpoint::failpoint;
use crate::outbox::Checkpoint;
use crate::position::Position;
use crate::stream::{Canary, Limits, Owner, Place, Shard, View};
use crate::telemetry::Cause;

/// Streams looked at between two raises of the canary.
const PIECE: usize = 100;

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
    pub(super) print: Option<u64>,
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

/// What was seen between two raises of the canary.
struct Seen<'a> {
    views: Vec<View>,
    canary: &'a Canary,
    /// It was raised: Redis had memory for it.
    raised: bool,
}

/// What a round is made with.
#[derive(Debug)]
struct Means {
    redis: Arc<dyn Redis>,
    owner: Owner,
    limits: Limits,
    retention: Duration,
}

impl Appender {
    /// Looks at groups, stores and trims; of one stream that cannot wait, or of those whose turn it is.
    /// While a round is under way, one waits for its end, and a turn for the next tick.
    pub(super) fn checkpoint(&mut self, one: Option<&Arc<str>>) {
        self.work.urgent.extend(one.cloned());
        let Some(mut checkpoints) = self.checkpoints.take() else { return };
        let urgent = std::mem::take(&mut self.work.urgent);
        let mut due: Vec<Due> = match one {
            Some(_) => Vec::new(),
            None => self.rota.next(&self.streams),
        };
        due.extend(urgent.iter().filter_map(|stream| {
            self.streams.get(stream).and_then(|progress| self.rota.one(stream, progress))
        }));
        // Also where nothing is due: the canary is how it is seen that a primary has gone back.
        let shards = if one.is_some() { Vec::new() } else { self.primaries.shards() };
        // What is stored of new partitions are the groups that they are to have.
        due.retain(|due| !self.held.gated.contains(&due.asked.stream));
        let mut parts: BTreeMap<Shard, Vec<Due>> =
            shards.into_iter().map(|shard| (shard, Vec::new())).collect();
        for due in due {
            parts.entry(self.redis.shard(&due.asked.stream)).or_default().push(due);
        }
        let parts: Vec<_> = parts
            .into_iter()
            .map(|(shard, due)| (shard, due, self.primaries.canary(shard).cloned()))
            .collect();
        let means = Means {
            redis: self.redis.clone(),
            owner: self.owner.clone(),
            limits: self.limits,
            retention: self.retention,
        };
        let now_ms = self.clock.now_us().unsigned_abs() / 1_000;
        self.work.tasks.spawn(async move {
            let mut rounds = Vec::with_capacity(parts.len());
            for (shard, due, known) in parts {
                let part = Part { shard, due, known: known.clone() };
                let round = round(&means, &mut *checkpoints, part, now_ms).await?;
                rounds.push((shard, known, round));
            }
            Ok(Report::Checkpointed { checkpoints, rounds })
        });
    }

    pub(super) fn checkpointed(&mut self, rounds: Vec<(Shard, Option<Canary>, Round)>) {
        let is_same = |(_, _, round): &(_, _, Round)| matches!(round, Round::Same(..));
        let all_same = rounds.iter().all(is_same);
        for (shard, known, round) in rounds {
            match round {
                Round::Nothing => {}
                // Somebody else has noticed meanwhile.
                _ if known.as_ref() != self.primaries.canary(shard) => {}
                Round::Lost => self.ask_what_is_lost(shard, known),
                Round::Same(canary, looked) => {
                    self.primaries.of(shard).canary = Some(canary);
                    looked.into_iter().for_each(|looked| self.saw(looked));
                }
            }
        }
        if all_same {
            self.metrics.checkpointed();
            if self.rota.is_to_be_told() {
                self.metrics.lags(self.rota.lags());
            }
        }
        self.restore_waiting();
        let urgent = self.work.urgent.iter().next().cloned();
        if let Some(stream) = urgent {
            self.checkpoint(Some(&stream));
        }
    }

    fn saw(&mut self, looked: Looked) {
        let stream = looked.asked.stream.clone();
        let Some(progress) = self.streams.get_mut(&stream) else { return };
        let floor = progress.floor().n;
        progress.set_floor(looked.floor);
        if looked.stored {
            progress.set_checkpointed();
        }
        if progress.epoch() != looked.asked.epoch {
            return;
        }
        if !looked.is_placed() {
            if matches!(progress.mode(), Mode::Live) {
                self.look(vec![stream]);
            }
            return;
        }
        if let Some(removed) = self.rota.saw(&looked, floor, self.limits) {
            report::removed(&stream, &removed);
            self.metrics.found(Cause::Removed);
        }
        if looked.trimmed > 0
            && let Some(refused) = self.work.refused.get_mut(&stream)
        {
            refused.hurry();
        }
    }
}

/// Streams of one primary, and its canary as last seen.
struct Part {
    shard: Shard,
    due: Vec<Due>,
    known: Option<Canary>,
}

/// Looks at streams, stores what has changed, and trims them. `now_ms` is the clock of Postgres before that.
async fn round(
    means: &Means,
    checkpoints: &mut dyn Checkpoints,
    Part { shard, due, known }: Part,
    now_ms: u64,
) -> Result<Round> {
    let (mut canary, mut looked) = (known, Vec::with_capacity(due.len()));
    let mut due = due.into_iter().peekable();
    loop {
        // A piece at a time, for a group may have thousands of pending entries.
        let piece = Part { shard, due: due.by_ref().take(PIECE).collect(), known: canary };
        match look(means, checkpoints, piece, now_ms).await? {
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
    checkpoints: &mut dyn Checkpoints,
    Part { shard, due, known }: Part,
    now_ms: u64,
) -> Result<Round> {
    let redis = &*means.redis;
    // A Redis without memory takes no raise, and is trimmed all the same: that is how it gets some. Of its
    // groups nothing is stored then: if it went back to a time after the last raise, those that are new
    // would be missing, and nobody would see it.
    let (before, least) = match redis.canary(shard, &means.owner, 1).await {
        Err(busy) if busy.kind() == Kind::Busy => (redis.canary(shard, &means.owner, 0).await?, 0),
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
    let after = match redis.canary(shard, &means.owner, least).await {
        Err(busy) if busy.kind() == Kind::Busy => return Ok(Round::Nothing),
        after => after?,
    };
    let Some(after) = after.filter(|after| goes_on(after, &before)) else {
        return Ok(Round::Nothing);
    };
    let seen = Seen { views, canary: &after, raised: least > 0 };
    let mut looked = store(means, checkpoints, due, seen, now_ms).await?;
    trim(redis, &mut looked).await?;
    for group in looked.iter_mut().flat_map(|looked| &mut looked.view.groups) {
        group.pending = None;
    }
    Ok(Round::Same(after, looked))
}

/// Stores what has changed since the last checkpoint of each stream.
async fn store(
    means: &Means,
    checkpoints: &mut dyn Checkpoints,
    due: Vec<Due>,
    seen: Seen<'_>,
    now_ms: u64,
) -> Result<Vec<Looked>> {
    let Seen { views, canary, raised } = seen;
    let (mut changed, mut looked) = (Vec::new(), Vec::with_capacity(due.len()));
    for (due, view) in due.into_iter().zip(views) {
        let is_there = matches!(view.place, Place::At(at) if at >= due.asked.at);
        if is_there {
            let floor = floor(means, &due, &view, now_ms).await?;
            let groups = view.groups.iter().map(|group| group.clone().within(due.asked.sent));
            let stream = due.asked.stream.clone();
            let restored = due.losses.now() == due.lost;
            let groups = raised.then(|| groups.collect());
            let looked_ms = now_ms;
            let checkpoint = Checkpoint { stream, floor, groups, restored, looked_ms };
            let print = fingerprint(&checkpoint);
            let is_new = floor > 0 || !view.groups.is_empty() || due.checkpointed;
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
async fn trim(redis: &dyn Redis, looked: &mut [Looked]) -> Result<()> {
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
    (checkpoint.floor, checkpoint.groups.is_some()).hash(&mut hasher);
    checkpoint.groups.iter().flatten().for_each(|group| group.hash_into(&mut hasher));
    hasher.finish()
}
