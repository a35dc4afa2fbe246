//! The next entries of a stream, if it is where we think it is. No plain XADD anywhere.

use std::sync::Arc;

use redis::{Cmd, RedisResult, Value};

use super::classify::{Class, classify};
use super::connect::{REPLICA, Redis, code, in_words};
use crate::entry::Entry;
use crate::error::{Kind, Result, Target};
use crate::position::Position;

/// One conditional append: entries of one stream that follow `expected`.
#[derive(Clone, Debug)]
pub struct Append {
    /// Name of the stream, without the prefix.
    pub stream: Arc<str>,
    /// Where the stream must be for anything to happen.
    pub expected: Position,
    /// Number of the first entry.
    pub first_n: u64,
    /// Milliseconds of each entry's position.
    pub ms: Vec<u64>,
    /// The entries.
    pub entries: Vec<Entry>,
}

impl Append {
    /// Position of the last entry.
    pub fn last(&self) -> Position {
        let n = self.first_n + self.entries.len() as u64 - 1;
        Position { ms: self.ms.last().copied().unwrap_or_default(), n }
    }

    /// When each entry was inserted, in microseconds since 1970 by the clock of Postgres.
    pub fn created_us(&self) -> Vec<i64> {
        self.entries.iter().map(|entry| entry.created_at.as_microsecond()).collect()
    }
}

/// What came of an append.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Appended {
    /// All entries are in the stream, and it is at the last of them.
    Done,
    /// The stream is at another position; nothing was changed.
    Elsewhere(Position),
    /// The key holds another type; nothing was changed.
    WrongType(String),
    /// Redis has no room or no patience now, in its own words; nothing was changed.
    Refused(String),
}

impl Redis {
    /// Sends appends in one pipeline, in order, and returns what came of each.
    ///
    /// # Errors
    /// Any error that says nothing about a single append: the connection must be dropped and
    /// positions read again, for it is unknown what was done.
    pub async fn append(&self, appends: &[Append]) -> Result<Vec<Appended>> {
        self.append_at(appends, |stream| self.key(stream)).await
    }

    /// As [`Redis::append`], to the keys that `key` gives to streams.
    pub(super) async fn append_at(
        &self,
        appends: &[Append],
        key: impl Fn(&str) -> String,
    ) -> Result<Vec<Appended>> {
        // Where SCRIPT FLUSH came between, those that were done already answer "elsewhere" the
        // second time, and the caller decides from there.
        let replies = self
            .run(&self.scripts.append, appends.len(), |command, index| {
                arguments(command, &appends[index], &key(&appends[index].stream));
            })
            .await?;
        appends.iter().zip(replies).map(|(append, reply)| read(append.last(), reply)).collect()
    }

    /// Makes `stream` go on behind `to` if it is at `expected`.
    ///
    /// # Errors
    /// As [`Redis::append`].
    pub async fn move_to(
        &self,
        stream: &str,
        expected: Position,
        to: Position,
    ) -> Result<Appended> {
        self.move_at(&self.key(stream), expected, to).await
    }

    /// As [`Redis::move_to`], of the stream at `key`.
    pub(super) async fn move_at(
        &self,
        key: &str,
        expected: Position,
        to: Position,
    ) -> Result<Appended> {
        let mut replies = self
            .run(&self.scripts.move_to, 1, |command, _| {
                command.arg(1).arg(key).arg(expected.to_string()).arg(to.to_string());
            })
            .await?;
        let none = || Target::Redis.error(Kind::Internal, "Redis answered nothing");
        read(to, replies.pop().ok_or_else(none)?)
    }
}

fn arguments(command: &mut Cmd, append: &Append, key: &str) {
    command.arg(1).arg(key).arg(append.expected.to_string());
    for (n, (entry, ms)) in (append.first_n..).zip(append.entries.iter().zip(&append.ms)) {
        let fields = entry.fields();
        command.arg(1 + 2 * fields.len()).arg(Position { ms: *ms, n }.to_string());
        for (name, value) in &fields {
            command.arg(*name).arg(value);
        }
    }
}

pub(super) fn read(last: Position, reply: RedisResult<Value>) -> Result<Appended> {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => {
            return match classify(code(&error)) {
                Class::BackOff => Ok(Appended::Refused(error.to_string())),
                _ => Err(in_words(error)),
            };
        }
    };
    let (status, detail): (String, String) = redis::from_redis_value(reply).map_err(|error| {
        Target::Redis.error_by(Kind::Internal, "the append script answered oddly", error)
    })?;
    let position =
        || detail.parse::<Position>().map_err(|error| Target::Redis.error(Kind::Internal, error));
    match status.as_str() {
        "appended" if position()? == last => Ok(Appended::Done),
        "elsewhere" => Ok(Appended::Elsewhere(position()?)),
        "type" => Ok(Appended::WrongType(detail)),
        "refused" => refused(detail),
        _ => Err(Target::Redis
            .error(Kind::Internal, format!("the append script answered {status} {detail}"))),
    }
}

/// What the first write of a script was refused with: `OOM command not allowed …`, in Redis before 7
/// with a dash before it.
fn refused(said: String) -> Result<Appended> {
    let code = said.trim_start_matches('-').split(' ').next().unwrap_or_default();
    match classify(code) {
        Class::BackOff => Ok(Appended::Refused(said)),
        Class::Operator => {
            Err(Target::Redis.error(Kind::Refused, format!("Redis refuses an append: {said}")))
        }
        _ if code == "READONLY" => {
            Err(Target::Redis.error(Kind::Unavailable, format!("{REPLICA}: {said}")))
        }
        _ => {
            Err(Target::Redis.error(Kind::Unavailable, format!("Redis refuses an append: {said}")))
        }
    }
}
