//! Puts the consumer groups of a stream back where they were, after Redis has lost them or gone back.
//!
//! Two steps, with the entries between them: groups that are there go to their positions before any entry
//! follows; once the entries are there, those that are gone are made, and all get back what they had not
//! acknowledged. Until both are done nothing that the groups say is stored or trimmed by, and whoever dies
//! in between is followed by one who begins anew.

use std::sync::Arc;

use super::appender::Appender;
use super::progress::{Mode, Progress};
use super::report;
use super::servers::LogReader;
use super::work::{Comeback, Report, Rescue};
use crate::error::{Kind, Result};
use crate::failpoint::failpoint;
use crate::group::Group;
use crate::position::Position;
use crate::stream::{Appended, Canary, Claim, Place, Restored, Shard};
use crate::telemetry::Loss;

impl Appender {
    // ---- Redis is not the one that it was ----

    pub(super) fn ask_what_is_lost(&mut self, shard: Shard, known: Option<Canary>) {
        if std::mem::replace(&mut self.primaries.of(shard).asking, true) {
            return;
        }
        let (redis, owner) = (self.redis.clone(), self.owner.clone());
        self.work.tasks.spawn(async move {
            let asked = async {
                match redis.claim(shard, &owner).await? {
                    Claim::Fresh => Ok(None),
                    Claim::Ours => redis.renew_canary(shard).await.map(Some),
                }
            };
            Ok(match asked.await {
                // No memory for a new life: the next round asks again.
                Err(busy) if busy.kind() == Kind::Busy => Report::NotLost(shard),
                canary => Report::Lost { shard, known, canary: canary? },
            })
        });
    }

    /// A primary has lost its identity, or, if it has a new canary, gone back to an older state.
    pub(super) fn lost(&mut self, shard: Shard, known: Option<Canary>, canary: Option<Canary>) {
        self.primaries.of(shard).asking = false;
        if known.as_ref() != self.primaries.canary(shard) {
            return;
        }
        match canary {
            None => self.emptied(shard),
            Some(canary) => {
                report::gone_back(&self.redis.shard_name(shard));
                self.distrust(shard, Some(canary));
                self.look(self.streams_of(shard));
            }
        }
    }

    /// The streams that a primary has.
    pub(super) fn streams_of(&self, shard: Shard) -> Vec<Arc<str>> {
        let is_there = |stream: &&Arc<str>| self.redis.shard(stream) == shard;
        self.streams.keys().filter(is_there).cloned().collect()
    }

    /// Nothing that a primary says of groups is believed until they have been put back.
    pub(super) fn distrust(&mut self, shard: Shard, canary: Option<Canary>) {
        self.primaries.of(shard).canary = canary;
        self.rota.forget();
        self.work.groups_told = false;
        for (_, progress) in
            self.streams.iter_mut().filter(|(stream, _)| self.redis.shard(stream) == shard)
        {
            progress.lose_groups();
        }
    }

    // ---- putting groups back ----

    /// Puts the groups of a stream at their positions, and the stream behind `floor`; the replay follows.
    pub(super) fn restore(&mut self, stream: &Arc<str>, place: &Place, floor: Position) {
        let Some(progress) = self.streams.get_mut(stream) else { return };
        self.work.to_replay.retain(|waiting| waiting != stream);
        let from = match place {
            Place::At(at) => *at,
            _ => Position::START,
        };
        let rescue = Rescue { from, floor, epoch: progress.epoch() };
        if self.checkpoints.is_none() {
            // What was seen before the loss is on its way to be stored, as if nothing were lost.
            self.work.to_restore.insert(stream.clone(), rescue);
        } else {
            self.begin(stream.clone(), rescue);
        }
    }

    /// Puts back what waited for the end of a round of checkpoints.
    pub(super) fn restore_waiting(&mut self) {
        for (stream, rescue) in std::mem::take(&mut self.work.to_restore) {
            let progress = self.streams.get(&stream);
            if progress.is_some_and(|progress| progress.epoch() == rescue.epoch) {
                self.begin(stream, rescue);
            }
        }
    }

    fn begin(&mut self, stream: Arc<str>, Rescue { from, floor, epoch }: Rescue) {
        let (redis, log) = (self.redis.clone(), self.log.clone());
        self.work.tasks.spawn(async move {
            // First, so that whoever follows us begins with the groups again.
            log.lose_groups(&stream).await?;
            let groups = stored(&*log, &stream).await?;
            failpoint("before_restore");
            let answer = match groups.is_empty() && floor <= from {
                true => Restored::Done { changed: 0, gone: Vec::new() },
                false => redis.restore(&stream, from, floor, &groups).await?,
            };
            failpoint("after_restore");
            Ok(Report::Restored { stream, epoch, answer, groups })
        });
    }

    pub(super) fn placed(&mut self, stream: Arc<str>, answer: Restored, groups: Vec<Group>) {
        match answer {
            Restored::Done { changed, gone } => {
                let only_groups = self.streams.get(&stream).is_some_and(Progress::is_in_step);
                let is_new = self.work.opened.remove(&stream);
                if changed > 0 && only_groups && !is_new {
                    report::groups_lost(&stream, changed);
                    if !std::mem::replace(&mut self.work.groups_told, true) {
                        self.metrics.lost(Loss::Groups);
                    }
                }
                let progress = self.streams.get_mut(&stream);
                match progress.filter(|_| groups.is_empty()) {
                    Some(progress) => {
                        progress.restored();
                        self.rota.forget_one(&stream);
                    }
                    None => {
                        let comeback = Comeback { groups, gone };
                        self.work.pending.insert(stream.clone(), comeback);
                    }
                }
                // Groups that were not given more than is there come back before anything follows, for
                // there may be no room until they acknowledge.
                self.advance(stream, false);
            }
            Restored::Not(answer) => self.not_appended(&stream, answer),
        }
    }

    /// A chunk of the replay is in Redis; `end` if the log has no more. Goes on with the next one, or with
    /// what is sealed from here on; what groups had not acknowledged comes first, once it is there.
    pub(super) fn advance(&mut self, stream: Arc<str>, end: bool) {
        let Some(progress) = self.streams.get(&stream) else { return };
        let (at, epoch) = (progress.at(), progress.epoch());
        let joins = matches!(progress.mode(), Mode::Joining(_));
        let live = at == progress.sealed() || end && joins || self.joined(&stream, at);
        let unsound = !progress.is_sound();
        let comeback = self.work.pending.get(&stream).filter(|_| unsound);
        let is_there =
            |back: &&Comeback| live || end || back.groups.iter().all(|g| g.reach() <= at);
        if let Some(Comeback { groups, gone }) = comeback.filter(is_there).cloned() {
            let redis = self.redis.clone();
            self.work.tasks.spawn(async move {
                failpoint("before_pend");
                let answer = redis.pend(&stream, at, &groups, &gone).await?;
                failpoint("after_pend");
                Ok(Report::Pended { stream, epoch, end, answer })
            });
        } else if live {
            self.go_live(&stream);
        } else {
            self.again(stream);
        }
    }

    /// Number of the last entry that a group of a stream has been given, while its groups are being put
    /// back and the stream has not got that far.
    pub(super) fn given(&self, stream: &str, progress: &Progress) -> Option<u64> {
        let comeback = self.work.pending.get(stream).filter(|_| !progress.is_sound())?;
        let given = comeback.groups.iter().map(|group| group.reach().n).max()?;
        (given > progress.at().n).then_some(given)
    }

    pub(super) fn pended(&mut self, stream: Arc<str>, end: bool, answer: Appended) {
        if answer != Appended::Done {
            return self.not_appended(&stream, answer);
        }
        self.work.pending.remove(&stream);
        if let Some(progress) = self.streams.get_mut(&stream) {
            progress.restored();
        }
        // The next round stores them, and that they are back.
        self.rota.forget_one(&stream);
        self.advance(stream, end);
    }
}

/// The groups of a stream, each with the position that it is put back to.
async fn stored(log: &dyn LogReader, stream: &str) -> Result<Vec<Group>> {
    let saved = log.saved_groups(stream).await?;
    let mut groups = saved.groups;
    for group in groups.iter_mut().filter(|group| group.pending.is_none()) {
        // Too many waited to store them all: it is given again what follows its floor.
        let floor = log.locate(stream, group.floor).await?;
        group.delivered = floor.unwrap_or(saved.floor);
        group.read = group.read.map(|_| group.delivered.n);
    }
    Ok(groups)
}
