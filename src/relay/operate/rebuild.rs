//! A stream filled anew from the log: the way out where somebody else has written to it.
//!
//! The new stream is filled beside the old one, chunk by chunk, and put in its place in one step with
//! the groups of the old one, so that no consumer ever sees a part of it.

use super::hold::unknown;
use crate::error::{Error, Kind, Result, Target};
use crate::outbox::{Database, Head, LogReader, Logged};
use crate::position::Position;
use crate::stream::{
    Append, Appended, OldEnd, Place, Redis, Replaced, Restored, Server, StreamEntry,
};

/// Rows and bytes of the log read at a time.
const ROWS: usize = 2_000;
const BYTES: usize = 1 << 20;
/// Entries that are not ours shown to people; more are only counted.
const SHOWN: usize = 20;
/// Times that the copy follows a stream that goes on meanwhile.
const TRIES: usize = 20;

/// An entry of the stream that the log does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stranger {
    /// Its ID.
    pub id: String,
    /// Its fields, as text.
    pub fields: String,
}

/// A stream that was looked at, to be rebuilt.
pub struct Rebuild {
    log: LogReader,
    redis: Redis,
    head: Head,
    place: Place,
    ours: Position,
    strangers: Vec<Stranger>,
    count: u64,
}

/// What a rebuild did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Entries in the stream now.
    pub entries: u64,
    /// Sealed entries whose rows are gone, so that they were left out.
    pub gone: u64,
    /// Consumer groups kept.
    pub groups: u64,
    /// Their entries that wait for an acknowledgement, kept.
    pub pending: u64,
}

impl Rebuild {
    /// Looks through the stream for entries that the log does not know; changes nothing. `progress`
    /// is told how many numbers of the log have been compared, and how many there are.
    ///
    /// # Errors
    /// `Refused` if there is no such stream.
    pub async fn look(
        database: &Database,
        server: &Server,
        stream: &str,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let (connection, identity) = database.connect_checked("rebuild").await?;
        database.settle_on(&connection);
        let redis = server.connect().await?;
        redis.refuse_other(&identity.outbox.to_string()).await?;
        // Where the stream is first, and only then the log: what Redis has of ours was sealed before,
        // so whatever the log does not know then is a stranger's.
        let place = redis.place(stream).await?;
        let log = LogReader::new(database.pool(1)?);
        let heads = log.heads().await?;
        let head = heads.into_iter().find(|head| &*head.stream == stream);
        let head = head.ok_or_else(|| unknown(stream))?;
        let (ours, strangers, count) = (Position::START, Vec::new(), 0);
        let mut rebuild = Self { log, redis, head, place, ours, strangers, count };
        if let Place::At(end) = rebuild.place {
            rebuild.compare(end, &mut progress).await?;
        }
        Ok(rebuild)
    }

    /// What the key holds instead of a stream, as TYPE says it.
    pub fn wrong_type(&self) -> Option<&str> {
        match &self.place {
            Place::WrongType(kind) => Some(kind),
            _ => None,
        }
    }

    /// The first entries that the log does not know.
    pub fn strangers(&self) -> &[Stranger] {
        &self.strangers
    }

    /// How many there are in all.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Sealed entries of the stream.
    pub fn sealed(&self) -> u64 {
        self.head.sealed.n
    }

    async fn compare(&mut self, end: Position, progress: &mut impl FnMut(u64, u64)) -> Result<()> {
        let (stream, through) = (self.head.stream.clone(), self.head.sealed.n);
        // The log no longer knows what was purged, and old entries may still be there.
        let mut after = self.head.purged;
        loop {
            let logged = self.log.read(&stream, after.n, through, ROWS, BYTES).await?;
            let last = logged.last().map_or(end.max(after), |logged| logged.position);
            let mut known = logged.iter().map(|logged| logged.position).peekable();
            let mut from = after;
            while from < last.min(end) {
                let page = self.redis.range(&stream, from, last.min(end), ROWS).await?;
                let Some(end) = page.last().map(|entry| entry.position) else { break };
                from = end;
                for entry in page {
                    while known.next_if(|position| *position < entry.position).is_some() {}
                    match known.peek() == Some(&entry.position) {
                        true => self.ours = entry.position,
                        false => self.meet(&entry),
                    }
                }
            }
            progress(last.n.min(through), through);
            if logged.is_empty() || last >= end {
                return Ok(());
            }
            after = last;
        }
    }

    fn meet(&mut self, entry: &StreamEntry) {
        self.count += 1;
        if self.strangers.len() < SHOWN {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).escape_debug().to_string();
            let fields =
                entry.fields.iter().map(|(name, value)| format!("{}={}", text(name), text(value)));
            let fields = fields.collect::<Vec<_>>().join(" ");
            self.strangers.push(Stranger { id: entry.position.to_string(), fields });
        }
    }

    /// Fills a copy from the log and puts it in the place of the stream. `progress` is told how many
    /// entries are in the copy, and how many there are.
    ///
    /// # Errors
    /// `Unavailable` if Redis has no room for the copy, or the stream goes on too fast; then the stream
    /// is as it was.
    pub async fn perform(mut self, mut progress: impl FnMut(u64, u64)) -> Result<Rebuilt> {
        let stream = self.head.stream.clone();
        let mut rebuilt = Rebuilt::default();
        self.redis.discard_copy(&stream).await?;
        // What is behind the floor nobody needs; behind what was purged there is nothing to put.
        let begin = self.begin();
        self.moved(self.redis.move_copy(&stream, Position::START, begin).await?)?;
        let old = OldEnd {
            foreign: match self.place {
                Place::At(end) if end > self.ours => Some(end),
                _ => None,
            },
            ours: match self.count {
                0 => Position { ms: u64::MAX >> 1, n: u64::MAX >> 1 },
                _ => self.ours,
            },
        };
        let mut at = begin;
        for _ in 0..TRIES {
            let copied = self.copy(at, &mut rebuilt, &mut progress).await;
            let replaced = match copied {
                Ok(last) => {
                    at = last;
                    self.redis.replace_by_copy(&stream, &old).await
                }
                Err(error) => Err(error),
            };
            match replaced {
                Ok(Replaced::Done { groups, pending }) => {
                    return Ok(Rebuilt { groups, pending, ..rebuilt });
                }
                Ok(Replaced::Moved(_)) => self.head.sealed = self.log.head(&stream).await?.max(at),
                Err(error) => {
                    let _ = self.redis.discard_copy(&stream).await;
                    return Err(error);
                }
            }
        }
        self.redis.discard_copy(&stream).await?;
        let context = format!(
            "stream {stream} got entries faster than they could be copied, or somebody else still writes \
             to it; stop that writer, or hold the stream with `outbox-relay pause {stream}`, and try again"
        );
        Err(Target::Redis.error(Kind::Unavailable, context))
    }

    /// Appends to the copy what the log has after `at`. Returns where the copy is.
    async fn copy(
        &self,
        mut at: Position,
        rebuilt: &mut Rebuilt,
        progress: &mut impl FnMut(u64, u64),
    ) -> Result<Position> {
        let (stream, sealed) = (&self.head.stream, self.head.sealed);
        let mut read = at.n;
        while read < sealed.n {
            let logged = self.log.read(stream, read, sealed.n, ROWS, BYTES).await?;
            let Some(last) = logged.last().map(|logged| logged.position.n) else { break };
            for append in runs(stream, at, logged) {
                at = append.last();
                rebuilt.entries += append.entries.len() as u64;
                self.appended(self.redis.append_to_copy(&append).await?)?;
            }
            read = last;
            progress(read, sealed.n);
        }
        if at < sealed {
            // Its last entries have no rows: what comes next follows them all the same.
            self.moved(self.redis.move_copy(stream, at, sealed).await?)?;
            at = sealed;
        }
        rebuilt.gone = (at.n - self.begin().n).saturating_sub(rebuilt.entries);
        Ok(at)
    }

    /// Where the copy begins.
    fn begin(&self) -> Position {
        self.head.floor.max(self.head.purged)
    }

    fn moved(&self, answer: Restored) -> Result<()> {
        match answer {
            Restored::Done { .. } => Ok(()),
            Restored::Not(answer) => self.appended(answer),
        }
    }

    fn appended(&self, answer: Appended) -> Result<()> {
        let stream = &self.head.stream;
        match answer {
            Appended::Done => Ok(()),
            Appended::Refused(why) => {
                let context = format!(
                    "Redis has no room for a copy of stream {stream} beside it ({why}); give it room and \
                     try again"
                );
                Err(Target::Redis.error(Kind::Unavailable, context))
            }
            Appended::Elsewhere(_) | Appended::WrongType(_) | Appended::Full(_) => {
                let context = format!("somebody else rebuilds stream {stream} at this moment");
                Err(Error::new(Kind::Unavailable, context))
            }
        }
    }
}

/// Appends of what has a row, each of consecutive numbers, that follow one another from `at`.
fn runs(stream: &std::sync::Arc<str>, at: Position, logged: Vec<Logged>) -> Vec<Append> {
    let mut runs: Vec<Append> = Vec::new();
    let mut last = at;
    for Logged { position, entry } in logged {
        let Some(entry) = entry else { continue };
        match runs.last_mut() {
            Some(run) if last.n + 1 == position.n => {
                run.ms.push(position.ms);
                run.entries.push(entry);
            }
            _ => runs.push(Append {
                stream: stream.clone(),
                expected: last,
                first_n: position.n,
                ms: vec![position.ms],
                entries: vec![entry],
            }),
        }
        last = position;
    }
    runs
}
