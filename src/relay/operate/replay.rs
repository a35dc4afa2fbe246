//! A part of the log copied into a stream of its own, which expires: for a consumer that is to see old
//! entries again, while nobody else notices.
//!
//! It reads the log and writes to a key that no relay knows, so a running relay goes on undisturbed.

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::hold::unknown;
use crate::error::{Error, Kind, Result, Target};
use crate::outbox::{Database, Head, LogReader, Logged};
use crate::position::Position;
use crate::stream::{Append, Appended, Limits, Place, Redis, Server};

/// Rows and bytes of the log copied at a time.
const ROWS: usize = 2_000;
const BYTES: usize = 1 << 20;
/// Numbers of the log looked at at a time, without their rows.
const NUMBERS: usize = 20_000;
/// Ranges shown to people; more are only counted.
const SHOWN: usize = 5;

/// Where a part of the log begins or ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// At this number.
    Number(u64),
    /// At the first entry that was sealed at or after this time, or the last at or before it.
    Time(Timestamp),
}

/// What is to be copied.
#[derive(Clone, Debug)]
pub struct Wish {
    /// Of which stream.
    pub stream: String,
    /// From here.
    pub from: Edge,
    /// Up to here; None for all that is sealed.
    pub to: Option<Edge>,
    /// Into this stream, which must not exist.
    pub into: String,
}

/// A part of the log that was looked at, to be copied.
pub struct Replay {
    log: LogReader,
    redis: Redis,
    stream: Arc<str>,
    into: Arc<str>,
    first: Position,
    last: Position,
}

impl FromStr for Edge {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "{text:?} is neither a number of an entry, 1 or more, nor a time like 2026-11-22T19:00:00Z"
            )
        };
        match text.parse::<u64>() {
            Ok(n) if (1..=i64::MAX as u64).contains(&n) => Ok(Self::Number(n)),
            Ok(_) => Err(wrong()),
            Err(_) => text.parse().map(Self::Time).map_err(|_| wrong()),
        }
    }
}

/// Whether rows could name a stream so; the rule is the trigger's, `outbox.refuse_entry`.
///
/// # Errors
/// What is allowed.
pub fn check_name(stream: &str) -> Result<(), String> {
    let begins = stream.starts_with(|c: char| c.is_ascii_alphanumeric());
    let goes_on = stream.chars().all(|c| c.is_ascii_alphanumeric() || "._:{}-".contains(c));
    if !begins || !goes_on || stream.len() > 128 {
        return Err(format!(
            "{stream:?} is not 1 to 128 of A-Z a-z 0-9 . _ : {{ }} - with a letter or digit first"
        ));
    }
    match stream.starts_with("outbox:") {
        true => {
            Err(format!("{stream:?} begins with \"outbox:\", as only keys of the relay's own do"))
        }
        false => Ok(()),
    }
}

impl Replay {
    /// Looks at the part of the log, whether all of it is there and the target is free; changes nothing.
    /// `progress` is told how many numbers have been looked at, and how many there are.
    ///
    /// # Errors
    /// `Refused` with what is not as it has to be, and what could be asked for instead.
    pub async fn look(
        database: &Database,
        server: &Server,
        wish: &Wish,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let (connection, identity) = database.connect_checked("replay").await?;
        database.settle_on(&connection);
        let redis = server.connect().await?;
        redis.refuse_other(&identity.outbox.to_string()).await?;
        let log = LogReader::new(database.pool(1)?);
        let (stream, into) = (wish.stream.as_str().into(), wish.into.as_str().into());
        let (first, last) = (Position::START, Position::START);
        let mut replay = Self { log, redis, stream, into, first, last };
        let head = replay.head().await?;
        replay.refuse_taken().await?;
        let (first, last) = replay.range(wish, head.sealed).await?;
        replay.refuse_gone(first, last, progress).await?;
        replay.first = replay.position(first).await?;
        replay.last = replay.position(last).await?;
        Ok(replay)
    }

    /// The first position that is copied.
    pub fn first(&self) -> Position {
        self.first
    }

    /// The last position that is copied.
    pub fn last(&self) -> Position {
        self.last
    }

    /// How many entries are copied.
    pub fn entries(&self) -> u64 {
        self.last.n - self.first.n + 1
    }

    async fn head(&self) -> Result<Head> {
        let stream = &self.stream;
        let heads = self.log.heads().await?;
        if let Some(head) = heads.into_iter().find(|head| head.stream == *stream) {
            return Ok(head);
        }
        match self.log.is_named(stream).await? {
            true => refused(format!(
                "no row of stream {stream} is sealed yet, so there is nothing to copy; a relay seals them"
            )),
            false => Err(unknown(stream)),
        }
    }

    /// The target must be nobody's.
    async fn refuse_taken(&self) -> Result<()> {
        let into = &self.into;
        if self.log.is_named(into).await? {
            return refused(format!(
                "rows of outbox.entry name the stream {into}, so it is the relay's to fill; choose another \
                 name for --into"
            ));
        }
        let found = match self.redis.place(into).await? {
            Place::Missing => return Ok(()),
            Place::At(position) => format!("a stream, at {position}"),
            Place::WrongType(kind) => format!("a {kind}"),
        };
        let key = self.redis.key(into);
        let context = format!(
            "the key {key} exists in Redis already ({found}); choose another name for --into, or remove the \
             key with `DEL {key}`"
        );
        Err(Target::Redis.error(Kind::Refused, context))
    }

    /// First and last number of what is wished for.
    async fn range(&self, wish: &Wish, head: Position) -> Result<(u64, u64)> {
        let stream = &self.stream;
        for (flag, edge) in [("--from", Some(wish.from)), ("--to", wish.to)] {
            if let Some(Edge::Number(n)) = edge
                && n > head.n
            {
                return refused(format!(
                    "{flag} {n} is beyond the head of stream {stream}, which is {} (ID {head})",
                    head.n
                ));
            }
        }
        let first = match wish.from {
            Edge::Number(n) => n,
            Edge::Time(time) => self.log.reached(stream, milliseconds(time, true), head.n).await?,
        };
        let last = match wish.to {
            None => head.n,
            Some(Edge::Number(n)) => n,
            Some(Edge::Time(time)) => {
                self.log.reached(stream, milliseconds(time, false) + 1, head.n).await? - 1
            }
        };
        match first <= last {
            true => Ok((first, last)),
            false => refused(format!(
                "no entry of stream {stream} lies between --from and --to; its head is {} (ID {head})",
                head.n
            )),
        }
    }

    /// Nothing is done unless each number from `first` to `last` has its row.
    async fn refuse_gone(
        &self,
        first: u64,
        last: u64,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        let (mut next, mut gone, mut there) = (first, Ranges::default(), Ranges::default());
        while next <= last {
            let numbers = self.log.presence(&self.stream, next - 1, last, NUMBERS).await?;
            if numbers.is_empty() {
                gone.add(next, last);
                break;
            }
            for (n, present) in numbers {
                if n > next {
                    gone.add(next, n - 1);
                }
                match present {
                    true => there.add(n, n),
                    false => gone.add(n, n),
                }
                next = n + 1;
            }
            progress(next - first, last - first + 1);
        }
        if gone.count == 0 {
            return Ok(());
        }
        let (stream, advice) = (
            &self.stream,
            match there.longest() {
                Some((from, to)) => format!("{there} can be copied, like --from {from} --to {to}"),
                None => "none of them can be copied".to_owned(),
            },
        );
        refused(format!(
            "of entries {first} to {last} of stream {stream}, {gone} are no longer in Postgres; {advice}. \
             Nothing was done"
        ))
    }

    async fn position(&self, n: u64) -> Result<Position> {
        let located = self.log.locate(&self.stream, n).await?;
        located.ok_or_else(|| self.removed(n))
    }

    /// Copies, into a stream that expires `time` after its last chunk. `progress` is told how many entries
    /// have been copied, and how many there are.
    ///
    /// # Errors
    /// `Unavailable` if somebody else writes to the target, if rows are removed meanwhile, or if Redis has
    /// no room. What was copied is taken back where it is still what we left; otherwise it expires.
    pub async fn perform(&self, time: Duration, progress: impl FnMut(u64, u64)) -> Result<()> {
        let begun = self.redis.begin_expiring(&self.into, time).await?;
        self.expect(begun, Position::START)?;
        let mut at = Position::START;
        let Err(error) = self.copy(&mut at, time, progress).await else { return Ok(()) };
        let ended = self.redis.end_expiring(&self.into, at).await;
        let left = match ended {
            Ok(Appended::Done) => "what had been copied was removed again",
            Ok(Appended::Elsewhere(Position::START)) => "nothing of it is left",
            _ => "what is there of the copy expires by itself",
        };
        let context = format!("the replay into stream {} has stopped, {left}", self.into);
        Err(Error::caused_by(error.kind(), context, error))
    }

    async fn copy(
        &self,
        at: &mut Position,
        time: Duration,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<()> {
        let mut next = self.first.n;
        while next <= self.last.n {
            let logged = self.log.read(&self.stream, next - 1, self.last.n, ROWS, BYTES).await?;
            let append = self.append(*at, next, logged)?;
            let appended = self.redis.append(std::slice::from_ref(&append), Limits::NONE).await?;
            self.expect(appended.into_iter().next().unwrap_or(Appended::Done), *at)?;
            *at = append.last();
            let kept = self.redis.keep_expiring(&self.into, *at, time).await?;
            self.expect(kept, *at)?;
            next = at.n + 1;
            progress(next - self.first.n, self.entries());
        }
        match self.log.is_named(&self.into).await? {
            false => Ok(()),
            true => refused(format!(
                "an application has written rows that name the stream {}; choose another name for --into",
                self.into
            )),
        }
    }

    /// The next chunk, which begins with the number `first_n` and has no hole.
    fn append(&self, expected: Position, first_n: u64, logged: Vec<Logged>) -> Result<Append> {
        let (mut ms, mut entries) = (Vec::new(), Vec::new());
        for (n, logged) in (first_n..).zip(logged) {
            match logged.entry {
                Some(entry) if logged.position.n == n => entries.push(entry),
                _ => return Err(self.removed(n)),
            }
            ms.push(logged.position.ms);
        }
        match entries.is_empty() {
            false => Ok(Append { stream: self.into.clone(), expected, first_n, ms, entries }),
            true => Err(self.removed(first_n)),
        }
    }

    fn removed(&self, n: u64) -> Error {
        let context = format!(
            "entry {n} of stream {} was removed from Postgres meanwhile; run it again to see what is there",
            self.stream
        );
        Target::Postgres.error(Kind::Unavailable, context)
    }

    /// An answer that is not the one expected of a stream that was left at `at`.
    fn expect(&self, answer: Appended, at: Position) -> Result<()> {
        let into = &self.into;
        let context = match answer {
            Appended::Done => return Ok(()),
            Appended::Elsewhere(Position::START) if at != Position::START => {
                format!("stream {into} was removed while it was filled")
            }
            Appended::Elsewhere(found) => format!(
                "somebody else writes to stream {into}: it is at {found}, and was left at {at}; choose \
                 another name for --into"
            ),
            Appended::WrongType(kind) => format!(
                "somebody else has made the key {} a {kind}; choose another name for --into",
                self.redis.key(into)
            ),
            Appended::Refused(why) => format!("Redis has no room for it ({why})"),
            // It has no limit of its own.
            Appended::Full(_) => format!("stream {into} is full"),
        };
        Err(Target::Redis.error(Kind::Unavailable, context))
    }
}

fn refused<T>(context: String) -> Result<T> {
    Err(Target::Postgres.error(Kind::Refused, context))
}

/// Milliseconds since 1970, a part of one counted as a whole one if `up`.
fn milliseconds(time: Timestamp, up: bool) -> u64 {
    let nanoseconds = time.as_nanosecond() + if up { 999_999 } else { 0 };
    u64::try_from(nanoseconds.div_euclid(1_000_000)).unwrap_or_default()
}

/// Numbers, as ranges; only the first few are kept, all are counted.
#[derive(Debug, Default)]
struct Ranges {
    first: Vec<(u64, u64)>,
    more: bool,
    count: u64,
}

impl Ranges {
    fn add(&mut self, from: u64, to: u64) {
        self.count += to - from + 1;
        let full = self.first.len() == SHOWN;
        match self.first.last_mut() {
            Some(last) if !self.more && last.1 + 1 == from => last.1 = to,
            _ if full => self.more = true,
            _ => self.first.push((from, to)),
        }
    }

    fn longest(&self) -> Option<(u64, u64)> {
        self.first.iter().copied().max_by_key(|(from, to)| to - from)
    }
}

impl std::fmt::Display for Ranges {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (from, to)) in self.first.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            match from == to {
                true => write!(f, "{comma}{from}")?,
                false => write!(f, "{comma}{from} to {to}")?,
            }
        }
        if self.more { f.write_str(" and others") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers_and_times() {
        assert_eq!("42".parse(), Ok(Edge::Number(42)));
        let time = "2026-11-22T19:00:00.000001Z";
        assert_eq!(time.parse(), Ok(Edge::Time(time.parse().expect("a time"))));
        for bad in ["", "0", "-1", "1.5", "yesterday", "2026-11-22", "9223372036854775808"] {
            assert!(bad.parse::<Edge>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_part_of_a_millisecond_is_before_the_next_and_after_the_last() {
        let time = "1970-01-01T00:00:01.0005Z".parse().expect("a time");
        assert_eq!((milliseconds(time, true), milliseconds(time, false)), (1_001, 1_000));
        let whole = "1970-01-01T00:00:01Z".parse().expect("a time");
        assert_eq!((milliseconds(whole, true), milliseconds(whole, false)), (1_000, 1_000));
        let before = "1969-01-01T00:00:00Z".parse().expect("a time");
        assert_eq!(milliseconds(before, true), 0);
    }

    #[test]
    fn names_are_those_that_rows_may_have() {
        for good in ["a", "0", "orders:{eu}.v-2_x", "outbox", &"a".repeat(128)] {
            assert_eq!(check_name(good), Ok(()));
        }
        for bad in ["", "-a", ":a", "a b", "ä", "outbox:x", &"a".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn ranges_are_joined_and_only_the_first_are_shown() {
        let mut ranges = Ranges::default();
        for (from, to) in [(1, 1), (2, 3), (5, 5), (7, 7), (9, 9), (11, 11), (13, 13), (14, 14)] {
            ranges.add(from, to);
        }
        assert_eq!(ranges.to_string(), "1 to 3, 5, 7, 9, 11 and others");
        assert_eq!((ranges.count, ranges.longest()), (9, Some((1, 3))));
    }
}
