//! What Redis was made to lose, and what the relay says that it lost.

use outbox_relay::group::Group;

use super::kind::Kind;
use super::moment::{self, Micros, SECOND};

/// A stream that was made to lose something.
#[derive(Clone, Debug)]
pub(crate) struct Loss {
    /// Before anything was asked, and after all was answered.
    pub(crate) began: Micros,
    pub(crate) ended: Micros,
    pub(crate) kind: Kind,
    pub(crate) stream: String,
    /// Number of the last entry before and after.
    pub(crate) had: u64,
    pub(crate) has: u64,
    /// Number up to which every group had acknowledged, in Redis itself.
    pub(crate) floor: u64,
    /// What Postgres knew just before; None if it could not be asked.
    pub(crate) known: Option<Known>,
}

/// What Postgres knows of a stream in Redis.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// The last entry that is marked dispatched.
    pub(crate) marked: u64,
    pub(crate) floor: u64,
    pub(crate) groups: Vec<Group>,
}

/// A line of a relay's log that says what a stream has lost.
#[derive(Clone, Debug)]
pub(crate) struct Told {
    pub(crate) at: Micros,
    pub(crate) stream: String,
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// Which relay, and in which of its sessions.
    pub(crate) session: (usize, usize),
}

/// What the logs of all relays say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sayings {
    pub(crate) told: Vec<Told>,
    /// That all of Redis was lost, or went back.
    pub(crate) all: Vec<(Micros, String)>,
    /// That positions of groups were lost.
    pub(crate) groups: Vec<(Micros, String)>,
    /// When sessions began to lead.
    pub(crate) led: Vec<Micros>,
}

impl Sayings {
    pub(crate) fn read(logs: &[String]) -> Self {
        let mut sayings = Self::default();
        for (relay, log) in logs.iter().enumerate() {
            let mut session = 0;
            for line in log.lines() {
                let Some(at) = moment::of_line(line) else { continue };
                if line.contains("leading with token") {
                    session += 1;
                    sayings.led.push(at);
                }
                if let Some((stream, first, last)) = lost(line) {
                    let session = (relay, session);
                    sayings.told.push(Told { at, stream, first, last, session });
                }
                if line.contains("lost its identity key") || line.contains("went back to an older")
                {
                    sayings.all.push((at, line.to_owned()));
                }
                if line.contains("Redis lost the positions of") {
                    sayings.groups.push((at, line.to_owned()));
                }
            }
        }
        sayings.led.sort_unstable();
        sayings.told.sort_by_key(|told| told.at);
        sayings
    }
}

fn lost(line: &str) -> Option<(String, u64, u64)> {
    let (_, rest) = line.split_once("Redis lost entries ")?;
    let (first, rest) = rest.split_once(" to ")?;
    let (last, rest) = rest.split_once(" of stream ")?;
    let (stream, _) = rest.split_once(';')?;
    Some((stream.to_owned(), first.parse().ok()?, last.parse().ok()?))
}

/// What is wrong between losses and reports. `late` if a request of somebody who is gone may have put
/// something back before anybody looked, so that the beginning of a range is not known exactly.
pub(crate) fn compare(losses: &[Loss], sayings: &Sayings, late: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for told in &sayings.told {
        wrong.extend(unexplained(told, losses, sayings, late));
    }
    for loss in losses {
        wrong.extend(untold(loss, losses, sayings));
    }
    for (at, line) in &sayings.all {
        if !losses.iter().any(|loss| loss.kind.loses_all() && loss.began <= *at) {
            wrong.push(format!("nothing had happened to all of Redis, and a relay said: {line}"));
        }
    }
    for (at, line) in &sayings.groups {
        if !losses.iter().any(|loss| loss.began <= *at) {
            wrong.push(format!("no group had been lost, and a relay said: {line}"));
        }
    }
    wrong
}

/// A report that no loss explains.
fn unexplained(told: &Told, losses: &[Loss], sayings: &Sayings, late: bool) -> Option<String> {
    let (stream, first, last) = (&told.stream, told.first, told.last);
    let before = |loss: &&Loss| loss.stream == *stream && loss.began <= told.at;
    let mine: Vec<&Loss> = losses.iter().filter(before).collect();
    let said = format!("a relay said that stream {stream} lost entries {first} to {last}");
    // Several may have come to pass before anybody looked.
    let fits = mine.iter().any(|loss| loss.had >= last) && mine.iter().any(|loss| loss.has < first);
    if !fits {
        let were: Vec<_> =
            mine.iter().map(|l| format!("{}: {} to {}", l.kind, l.has + 1, l.had)).collect();
        return Some(format!("{said}, and what was lost is {were:?}"));
    }
    let same = |other: &&Told| other.session == told.session && other.stream == *stream;
    let times = sayings.told.iter().filter(same).filter(|other| other.at <= told.at).count();
    if times > mine.len() {
        return Some(format!(
            "{said}, the {times}th time in one session, after {} losses",
            mine.len()
        ));
    }
    // The first report of a loss that no other is near tells its beginning exactly.
    let loss = mine.last().filter(|_| !late)?;
    let alone = mine.iter().filter(|other| other.began > loss.began - 10 * SECOND).count() == 1;
    let is_first = !sayings
        .told
        .iter()
        .any(|other| other.stream == *stream && other.at >= loss.began && other.at < told.at);
    let stored = loss.known.as_ref().map_or(0, |known| known.floor);
    let exact = first == loss.has + 1 || (stored..=loss.floor).contains(&(first - 1));
    (alone && is_first && !exact).then(|| {
        let (has, floor) = (loss.has + 1, loss.floor);
        format!("{said}, and it lost them from {has}, the floor being {stored} to {floor}")
    })
}

/// A loss that nobody has told of, although it was known what Redis had.
fn untold(loss: &Loss, losses: &[Loss], sayings: &Sayings) -> Option<String> {
    let known = loss.known.as_ref()?;
    let earlier = losses.iter().filter(|l| l.stream == loss.stream && l.began <= loss.began);
    let floors = earlier.map(|l| l.floor.max(l.known.as_ref().map_or(0, |known| known.floor)));
    if known.marked <= loss.has.max(floors.max().unwrap_or(0)) {
        return None;
    }
    let comes_back = |other: &Loss| {
        let soon = loss.began..loss.began + 10 * SECOND;
        other.stream == loss.stream && soon.contains(&other.began) && other.has >= known.marked
    };
    if losses.iter().any(comes_back) {
        return None;
    }
    // Another one just before may have been told of together with this one.
    let near = losses.iter().filter(|other| other.stream == loss.stream);
    let near = near.filter(|other| other.began > loss.began - 10 * SECOND);
    let since = near.map(|other| other.began).filter(|at| *at <= loss.began).min()?;
    let told = sayings.told.iter().filter(|told| told.stream == loss.stream && told.at >= since);
    let reached = told.map(|told| told.last).max().unwrap_or(0);
    (reached < known.marked).then(|| {
        let (stream, kind) = (&loss.stream, loss.kind);
        let (from, to) = (loss.has + 1, known.marked);
        format!("stream {stream} lost entries {from} to {to} by {kind}, and no relay said so up to there")
    })
}
