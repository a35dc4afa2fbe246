//! The next entries of a stream, if it is where we think it is. No plain XADD anywhere.

use std::sync::Arc;

use redis::{Cmd, RedisResult, Value};

use super::classify::{Class, classify};
use super::connect::{REPLICA, code, in_words};
use super::name;
use super::shard::Redis;
use crate::entry::Entry;
use crate::error::{Error, Kind, Result, Target};
use crate::position::Position;
use crate::text::line;

/// Characters of what Redis says that become part of a state or an error.
pub(super) const SAID: usize = 500;

/// Stands for a value that is null. No text in Postgres holds this character.
const ABSENT: &str = "\0";

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

/// How much a stream may hold. What does not fit waits in Postgres.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Entries at most; 0 for no bound.
    pub entries: u64,
    /// Bytes, about, at which it takes no more.
    pub bytes: u64,
    /// A stream without groups loses its oldest entries rather than being held.
    pub trim_ungrouped: bool,
}

impl Limits {
    /// No bound.
    pub const NONE: Self = Self { entries: 0, bytes: 0, trim_ungrouped: false };
}

/// A stream is at its limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    /// Entries that still fit.
    pub room: u64,
    /// What is used up: `entries` or `bytes`.
    pub bound: String,
    /// The group that needs the oldest entry; None if there is no group.
    pub group: Option<String>,
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
    /// The stream has no room for all of it; nothing was changed.
    Full(Full),
    /// Redis has no room or no patience now, in its own words; nothing was changed.
    Refused(String),
}

impl Redis {
    /// Sends appends in one pipeline, in order, and returns what came of each.
    ///
    /// # Errors
    /// Any error that says nothing about a single append: the connection must be dropped and
    /// positions read again, for it is unknown what was done.
    pub async fn append(&self, appends: &[Append], limits: Limits) -> Result<Vec<Appended>> {
        self.append_at(appends, limits, |stream| self.key(stream)).await
    }

    /// As [`Redis::append`], to the keys that `key` gives to streams.
    pub(super) async fn append_at(
        &self,
        appends: &[Append],
        limits: Limits,
        key: impl Fn(&str) -> String,
    ) -> Result<Vec<Appended>> {
        // Where SCRIPT FLUSH came between, those that were done already answer "elsewhere" the
        // second time, and the caller decides from there.
        let replies = self
            .run(&self.scripts.append, appends.len(), |command, index| {
                arguments(command, &appends[index], limits, &key(&appends[index].stream));
            })
            .await?;
        self.make_durable().await?;
        appends.iter().zip(replies).map(|(append, reply)| read(append.last(), reply)).collect()
    }
}

fn arguments(command: &mut Cmd, append: &Append, limits: Limits, key: &str) {
    command.arg(1).arg(key).arg(append.expected.to_string());
    command.arg(limits.entries).arg(limits.bytes);
    command.arg(if limits.trim_ungrouped { "trim" } else { "hold" }).arg(append.entries.len());
    command.arg(Entry::FIELDS.len()).arg(&Entry::FIELDS);
    for (n, (entry, ms)) in (append.first_n..).zip(append.entries.iter().zip(&append.ms)) {
        command.arg(Position { ms: *ms, n }.to_string());
        for value in entry.values() {
            command.arg(value.as_deref().unwrap_or(ABSENT));
        }
    }
}

pub(super) fn read(last: Position, reply: RedisResult<Value>) -> Result<Appended> {
    let reply = match reply {
        Ok(reply) => reply,
        Err(error) => {
            return match classify(code(&error)) {
                Class::BackOff => Ok(Appended::Refused(line(&error.to_string(), SAID))),
                _ => Err(in_words(error)),
            };
        }
    };
    let parts: Vec<Vec<u8>> = redis::from_redis_value(reply).map_err(|error| {
        Target::Redis.error_by(Kind::Internal, "Redis answers the append script oddly", error)
    })?;
    let parts: Vec<String> = parts.iter().map(|part| name::text(part)).collect();
    let position = |text: &str| {
        text.parse::<Position>().map_err(|error| odd_position("the append script", &error))
    };
    let odd = || {
        let said = line(&parts.join(" "), SAID);
        let context = format!("Redis answers the append script with {said:?}");
        Target::Redis.error(Kind::Internal, context)
    };
    match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["appended", at] if position(at)? == last => Ok(Appended::Done),
        ["elsewhere", at] => Ok(Appended::Elsewhere(position(at)?)),
        ["type", kind] => Ok(Appended::WrongType(line(kind, SAID))),
        ["refused", said] => refused(said.to_owned()),
        ["full", room, bound, group, groups] => Ok(Appended::Full(Full {
            room: room.parse().map_err(|_| odd())?,
            bound: line(bound, SAID),
            group: (groups != "0").then(|| group.to_owned()),
        })),
        _ => Err(odd()),
    }
}

/// An ID that is none, in an answer to `what`.
pub(super) fn odd_position(what: &str, error: &str) -> Error {
    Target::Redis
        .error(Kind::Internal, format!("Redis answers {what} oddly: {}", line(error, SAID)))
}

/// What the first write of a script was refused with: `OOM command not allowed …`, in Redis before 7
/// with a dash before it, or `@user_script: 112: -OOM …`.
pub(super) fn refused(said: String) -> Result<Appended> {
    let is_code = |word: &&str| !word.is_empty() && word.chars().all(|c| c.is_ascii_uppercase());
    let mut words = said.split_whitespace().map(|word| word.trim_start_matches('-'));
    let code = words.find(is_code).unwrap_or_default();
    match classify(code) {
        Class::BackOff => Ok(Appended::Refused(line(&said, SAID))),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_without_memory_is_understood_whatever_its_version() {
        let full = "OOM command not allowed when used memory > 'maxmemory'.";
        for said in [full.to_owned(), format!("-{full}"), format!("@user_script: 112: -{full}\n")] {
            let answer = refused(said.clone());
            assert!(matches!(answer, Ok(Appended::Refused(_))), "{said}: {answer:?}");
        }
        let denied = refused("NOPERM this user has no permissions".to_owned());
        assert_eq!(denied.map_err(|error| error.kind()), Err(Kind::Refused));
    }
}
