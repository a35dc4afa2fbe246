//! What happens in one run: drawn from a seed, printed, and cut down to what a failure needs.

use std::fmt;
use std::time::Duration;

use super::dice::Dice;

/// Streams of every run.
pub(super) const STREAMS: [&str; 3] = ["orders", "mail", "audit"];

/// One run.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) choices: Choices,
    /// What happens, and when, in milliseconds after the beginning.
    pub(super) faults: Vec<(u64, Fault)>,
}

/// How the relay is set, and what writers and consumers are like.
#[derive(Clone, Debug)]
pub(super) struct Choices {
    pub(super) relays: usize,
    pub(super) rows: usize,
    pub(super) poll: Duration,
    pub(super) wake: bool,
    pub(super) checkpoint: Duration,
    pub(super) limit: u64,
    pub(super) writers: u64,
    /// One in so many transactions does not wait for the disk; none if zero.
    pub(super) hasty: u64,
    pub(super) busy_ms: u64,
}

/// Which server a network fault is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Postgres,
    Redis,
}

/// Something that goes wrong. Lengths are in milliseconds, streams and relays are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// SIGKILL; another process takes its place.
    Kill(usize),
    /// SIGTERM; another process takes its place.
    Stop(usize),
    /// Both of its connections stand still, and what it had sent arrives afterwards.
    Freeze(usize, u64),
    /// Requests to one server arrive late.
    Hold(usize, Side, u64),
    /// Replies of one server are lost.
    Deafen(usize, Side, u64),
    /// Connections to one server are reset.
    Cut(usize, Side),
    /// One server cannot be reached.
    Down(usize, Side, u64),
    /// Messages take up to so long.
    Slow(usize, Side, u64),
    /// FLUSHALL.
    Flush,
    /// A restart without persistence.
    RestartEmpty,
    /// A restart from an older state, or a replica that lagged, promoted.
    RestartOlder,
    /// The same behind a proxy that hides it.
    GoBack,
    /// DEL of one stream.
    Delete(usize),
    /// DEL, and a consumer makes its group again at the end.
    DeleteAndJoin(usize),
    /// One stream as it was earlier.
    GoBackOne(usize),
    /// No memory for writes.
    Full(u64),
    /// Postgres stops at once and recovers: commits that did not wait for the disk are gone.
    Crash,
    /// A standby takes over that lacks so many commits.
    FailOver(usize),
    /// The clock of Postgres jumps by so many milliseconds.
    Jump(i64),
}

impl Fault {
    /// Postgres loses what it had committed.
    pub(super) fn loses_commits(self) -> bool {
        matches!(self, Self::Crash | Self::FailOver(_))
    }

    /// Redis or Postgres loses something.
    pub(super) fn loses(self) -> bool {
        let redis = matches!(
            self,
            Self::Flush
                | Self::RestartEmpty
                | Self::RestartOlder
                | Self::GoBack
                | Self::Delete(_)
                | Self::DeleteAndJoin(_)
                | Self::GoBackOne(_)
        );
        redis || self.loses_commits()
    }

    /// Milliseconds for which it lasts.
    pub(super) fn lasts(self) -> u64 {
        match self {
            Self::Freeze(_, length)
            | Self::Hold(_, _, length)
            | Self::Deafen(_, _, length)
            | Self::Down(_, _, length)
            | Self::Full(length) => length,
            _ => 0,
        }
    }

    fn draw(kind: u64, relays: usize, dice: &mut Dice) -> Self {
        let relay = dice.below(relays as u64) as usize;
        let stream = dice.below(STREAMS.len() as u64) as usize;
        let side = if dice.one_in(2) { Side::Postgres } else { Side::Redis };
        let length = dice.within(200..=8_000);
        match kind {
            0 => Self::Kill(relay),
            1 => Self::Stop(relay),
            2 => Self::Freeze(relay, length),
            3 => Self::Hold(relay, side, length),
            4 => Self::Deafen(relay, side, length),
            5 => Self::Cut(relay, side),
            6 => Self::Down(relay, side, length),
            7 => Self::Slow(relay, side, dice.within(10..=300)),
            8 => Self::Flush,
            9 => Self::RestartEmpty,
            10 => Self::RestartOlder,
            11 => Self::GoBack,
            12 => Self::Delete(stream),
            13 => Self::DeleteAndJoin(stream),
            14 => Self::GoBackOne(stream),
            15 => Self::Full(length),
            16 => Self::Crash,
            17 => Self::FailOver(dice.within(1..=20) as usize),
            _ => Self::Jump(dice.within(0..=20_000) as i64 - 10_000),
        }
    }

    const KINDS: u64 = 19;
}

impl Plan {
    pub(super) fn draw(seed: u64) -> Self {
        let mut dice = Dice::seeded(seed);
        let choices = Choices::draw(&mut dice);
        // A random part of all kinds, so that each run is about something.
        let kinds: Vec<u64> = (0..Fault::KINDS).filter(|_| dice.one_in(4)).collect();
        let mut faults = Vec::new();
        let mut at = 500;
        for _ in 0..dice.below(10) {
            // Some soon after one another, some after everything has come to rest.
            at += match dice.one_in(3) {
                true => dice.within(0..=200),
                false => dice.within(200..=4_000),
            };
            if !kinds.is_empty() {
                faults.push((at, Fault::draw(*dice.pick(&kinds), choices.relays, &mut dice)));
            }
        }
        Self { seed, choices, faults }
    }

    /// The same without the fault at `index`.
    pub(super) fn without(&self, index: usize) -> Self {
        let mut plan = self.clone();
        plan.faults.remove(index);
        plan
    }

    /// The same with these faults alone, by their places in what the seed draws.
    pub(super) fn only(mut self, kept: &[usize]) -> Self {
        self.faults = kept.iter().filter_map(|at| self.faults.get(*at).copied()).collect();
        self
    }

    /// Stands for the plan and for no other.
    pub(super) fn print(&self) -> String {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        self.to_string().hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    }

    /// The places of its faults in what the seed draws.
    pub(super) fn kept(&self) -> Vec<usize> {
        let drawn = Self::draw(self.seed).faults;
        let mut from = 0;
        let place = |fault: &(u64, Fault)| {
            let found = drawn[from..].iter().position(|drawn| drawn == fault)? + from;
            from = found + 1;
            Some(found)
        };
        self.faults.iter().filter_map(place).collect()
    }
}

impl Choices {
    fn draw(dice: &mut Dice) -> Self {
        let wake = dice.one_in(2);
        Self {
            relays: if dice.one_in(3) { 2 } else { 1 },
            rows: *dice.pick(&[1, 3, 10, 50]),
            // Where wake-ups are asked for, a poll that never comes shows whether one was lost.
            poll: match wake && dice.one_in(2) {
                true => Duration::from_secs(3_600),
                false => Duration::from_millis(dice.within(50..=1_000)),
            },
            wake,
            checkpoint: Duration::from_millis(dice.within(100..=1_000)),
            limit: *dice.pick(&[0, 0, 0, 25]),
            writers: dice.within(1..=3),
            hasty: *dice.pick(&[0, 0, 2]),
            busy_ms: dice.within(2_000..=20_000),
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} with {:?}", self.seed, self.choices)?;
        for (at, fault) in &self.faults {
            writeln!(f, "  {at:>6} ms  {fault:?}")?;
        }
        Ok(())
    }
}
