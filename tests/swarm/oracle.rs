//! What must hold, whatever happened: the invariants I1 to I11, each as a sentence when it is broken.

mod groups;
mod log;

use std::time::Duration;

use super::kind::Kind;
use super::losses::{self, Sayings};
use super::moment::{Micros, SECOND};
use super::stage::Stage;
use super::watcher::Sight;

/// Resident memory of a relay.
const MEMORY: u64 = 64 << 20;
/// A commit takes no longer, whatever the relay does, but for a machine that is busy with other things.
const COMMIT: Duration = Duration::from_secs(1);

/// What came out.
#[derive(Default)]
pub(crate) struct Verdict {
    pub(crate) broken: Vec<String>,
    pub(crate) written: u64,
    pub(crate) missing: u64,
    pub(crate) doubled: u64,
    pub(crate) disordered: u64,
    pub(crate) needless: u64,
    /// Entries that Redis lost.
    pub(crate) lost: u64,
}

impl Verdict {
    pub(super) fn broken(&mut self, invariant: u8, sentence: impl std::fmt::Display) {
        self.broken.push(format!("I{invariant} broken: {sentence}"));
    }

    /// All of it, of a run that has come to rest.
    pub(crate) async fn judge(&mut self, stage: &Stage) {
        self.log_and_streams(stage).await;
        self.prefix(stage);
        self.groups(stage);
        self.reports(stage);
        self.bystanders(stage);
        self.memory(stage);
    }

    /// I6: at every moment a stream was a prefix of the log.
    pub(crate) fn prefix(&mut self, stage: &Stage) {
        let seen = stage.watcher.seen.lock().unwrap();
        for (stream, at, sentence) in &seen.broken {
            if !is_tampered(stage, stream, *at, *at) {
                self.broken(6, sentence);
                break;
            }
        }
        for (stream, sights) in &seen.sights {
            let sentence = sights.iter().find_map(|sight| cut_short(stage, stream, sight));
            let back = sights.windows(2).find_map(|pair| goes_back(stage, stream, pair));
            for sentence in sentence.into_iter().chain(back) {
                self.broken(6, sentence);
            }
        }
    }

    /// I8: what was lost is told, and nothing else.
    fn reports(&mut self, stage: &Stage) {
        let sayings = Sayings::read(&stage.logs());
        // Whoever is late may have put something back before anybody looked.
        let late = [
            Kind::RedisHold,
            Kind::RelayFreeze,
            Kind::RedisBlackHole,
            Kind::RedisFreeze,
            Kind::RedisDelay,
            Kind::RedisJitter,
            Kind::RedisSleep,
            Kind::ClientPause,
        ];
        let late = late.iter().any(|kind| stage.schedule.has(*kind)) || stage.relays.len() > 1;
        for sentence in losses::compare(&stage.losses, &sayings, late) {
            self.broken(8, sentence);
        }
        self.lost = stage.losses.iter().map(|loss| loss.had.saturating_sub(loss.has)).sum();
        self.takeovers(stage, &sayings);
    }

    /// I9: whoever leads is followed soon, where nothing else is wrong.
    fn takeovers(&mut self, stage: &Stage, sayings: &Sayings) {
        let bound = (stage.schedule.settings.lease as Micros) * 1_000 + 5 * SECOND;
        let ends = stage.windows.iter().filter(|window| window.kind == Kind::RelayKill);
        for end in ends {
            let until = end.ended + bound;
            let disturbs = |other: &super::stage::Window| {
                !std::ptr::eq(other, end) && other.began < until && other.ended > end.began - SECOND
            };
            let calm = !stage.windows.iter().any(disturbs);
            // Where there is another relay, it may have led before.
            let since = if stage.relays.len() > 1 { end.began - bound } else { end.began };
            if calm && !sayings.led.iter().any(|led| (since..until).contains(led)) {
                let seconds = (until - end.ended) / SECOND;
                self.broken(9, format!("no relay led within {seconds} s after one was killed"));
            }
        }
    }

    /// I10: applications met no error and no wait because of the relay.
    fn bystanders(&mut self, stage: &Stage) {
        let explained = |at: Micros, slack: Micros| {
            stage.windows.iter().any(|window| {
                let crash = window.kind == Kind::PostgresCrash;
                let wait = window.kind == Kind::TableLock;
                (crash || wait && slack > 0)
                    && (window.began - SECOND..window.ended + 2 * SECOND).contains(&at)
            })
        };
        for (at, error) in stage.desk.errors.lock().unwrap().iter() {
            if !explained(*at, 0) {
                self.broken(10, format!("an application met an error: {error}"));
            }
        }
        let mut commits: Vec<Duration> = {
            let commits = stage.desk.commits.lock().unwrap();
            commits.iter().filter(|(at, _)| !explained(*at, 1)).map(|(_, took)| *took).collect()
        };
        commits.sort_unstable();
        let p99 = commits.get(commits.len().saturating_sub(1 + commits.len() / 100));
        if let Some(p99) = p99.filter(|p99| **p99 > COMMIT) {
            self.broken(10, format!("of {} commits, one in a hundred took {p99:?}", commits.len()));
        }
    }

    /// I11: memory is bounded, of relays and of streams.
    fn memory(&mut self, stage: &Stage) {
        if stage.resident > MEMORY {
            self.broken(11, format!("a relay held {} bytes", stage.resident));
        }
        let limit = stage.schedule.settings.limit;
        let seen = stage.watcher.seen.lock().unwrap();
        for (stream, sights) in seen.sights.iter().filter(|_| limit > 0) {
            // What groups were given comes back without a limit, behind what an old state still had.
            let went_back = |sight: &Sight| {
                let mut losses = stage.losses.iter().filter(|loss| loss.stream == *stream);
                losses.any(|loss| loss.kind.goes_back() && loss.began <= sight.ended)
            };
            let bound = |sight: &Sight| if went_back(sight) { 2 * limit } else { limit };
            if let Some(sight) = sights.iter().find(|sight| sight.length > bound(sight)) {
                let length = sight.length;
                self.broken(
                    11,
                    format!("stream {stream} had {length} entries, its limit is {limit}"),
                );
            }
        }
    }
}

/// Somebody had removed entries from the stream.
fn is_tampered(stage: &Stage, stream: &str, began: Micros, ended: Micros) -> bool {
    let mut times = stage.tampered.iter().filter(|(name, ..)| name == stream);
    times.any(|(_, from, until)| *from <= ended && began <= until.saturating_add(SECOND))
}

/// That something above the floor is missing at the beginning of a stream.
fn cut_short(stage: &Stage, stream: &str, sight: &Sight) -> Option<String> {
    let missing = sight.last > 0 && sight.first > sight.floor + 1;
    (missing && !is_tampered(stage, stream, sight.begun, sight.ended)).then(|| {
        let Sight { first, last, floor, .. } = sight;
        format!("stream {stream} began at {first} of {last}, its floor was {floor}")
    })
}

/// That a stream went back although nothing was lost.
fn goes_back(stage: &Stage, stream: &str, pair: &[Sight]) -> Option<String> {
    let [before, after] = pair else { return None };
    let lost = stage.losses.iter().any(|loss| {
        loss.stream == stream && loss.began <= after.ended && loss.ended >= before.begun
    });
    (after.last < before.last && !lost).then(|| {
        format!(
            "stream {stream} went back from {} to {} and nothing was lost",
            before.last, after.last
        )
    })
}
