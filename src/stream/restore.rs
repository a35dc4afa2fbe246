//! Consumer groups put back: where they were, and what they had not acknowledged.

use redis::{Value, from_redis_value};

use super::append::{Appended, SAID, refused};
use super::connect::in_words;
use super::name;
use super::shard::Redis;
use crate::error::{Error, Kind, Result, Target};
use crate::group::Group;
use crate::position::Position;
use crate::text::line;

/// What came of putting groups where they were.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Restored {
    /// Those that are there are where they were, and the stream is not before its floor.
    Done {
        /// Groups that were elsewhere, or gone.
        changed: u64,
        /// Names of those that are gone; [`Redis::pend`] makes them.
        gone: Vec<String>,
    },
    /// As for an append; nothing was changed.
    Not(Appended),
}

impl Redis {
    /// Puts `groups` at their positions and `stream` behind `floor`, if it is at `expected`.
    ///
    /// # Errors
    /// As [`Redis::append`].
    pub async fn restore(
        &self,
        stream: &str,
        expected: Position,
        floor: Position,
        groups: &[Group],
    ) -> Result<Restored> {
        self.restore_at(&self.key(stream), expected, floor, groups).await
    }

    /// As [`Redis::restore`], of the stream at `key`.
    pub(super) async fn restore_at(
        &self,
        key: &str,
        expected: Position,
        floor: Position,
        groups: &[Group],
    ) -> Result<Restored> {
        let replies = self
            .run(&self.scripts.restore, 1, |command, _| {
                command.arg(1).arg(key).arg(expected.to_string());
                command.arg(floor.to_string()).arg(floor.n);
                for group in groups {
                    command.arg(name::bytes(&group.name)).arg(group.delivered.to_string());
                    command.arg(group.read.map(|read| read.to_string()).unwrap_or_default());
                }
            })
            .await?;
        let reply = replies.into_iter().next().ok_or_else(odd)?.map_err(in_words)?;
        let mut parts: Vec<Value> = from_redis_value(reply).map_err(|_| odd())?;
        let gone = if parts.len() == 4 { parts.pop() } else { None };
        let parts: Vec<String> = from_redis_value(Value::Array(parts)).map_err(|_| odd())?;
        match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["restored", _, changed] => {
                // Nothing in place of the list is not "none": groups would be left out.
                let Some(gone @ Value::Array(_)) = gone else { return Err(odd()) };
                let gone: Vec<Vec<u8>> = from_redis_value(gone).map_err(|_| odd())?;
                let gone = gone.iter().map(|name| name::text(name)).collect();
                Ok(Restored::Done { changed: changed.parse().map_err(|_| odd())?, gone })
            }
            ["elsewhere", last] => {
                Ok(Restored::Not(Appended::Elsewhere(last.parse().map_err(|_| odd())?)))
            }
            ["type", kind] => Ok(Restored::Not(Appended::WrongType(line(kind, SAID)))),
            ["refused", said] => refused(said.to_owned()).map(Restored::Not),
            _ => Err(odd()),
        }
    }

    /// Gives groups back what they had not acknowledged, now that the entries are in the stream again, and
    /// makes those that are `gone`, if the stream is at `expected`.
    ///
    /// # Errors
    /// As [`Redis::append`].
    pub async fn pend(
        &self,
        stream: &str,
        expected: Position,
        groups: &[Group],
        gone: &[String],
    ) -> Result<Appended> {
        let replies = self
            .run(&self.scripts.pend, groups.len(), |command, index| {
                let group = &groups[index];
                command.arg(1).arg(self.key(stream)).arg(expected.to_string());
                command.arg(name::bytes(&group.name)).arg(group.delivered.to_string());
                command.arg(group.read.map(|read| read.to_string()).unwrap_or_default());
                command.arg(if gone.contains(&group.name) { "place" } else { "" });
                for pending in group.pending.iter().flatten() {
                    command.arg(pending.position.to_string()).arg(name::bytes(&pending.consumer));
                    command.arg(pending.given_ms).arg(pending.deliveries);
                }
            })
            .await?;
        for reply in replies {
            let parts: Vec<String> =
                from_redis_value(reply.map_err(in_words)?).map_err(|_| odd())?;
            match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["done", _, _] => {}
                ["elsewhere", last] => {
                    return Ok(Appended::Elsewhere(last.parse().map_err(|_| odd())?));
                }
                ["type", kind] => return Ok(Appended::WrongType(line(kind, SAID))),
                ["refused", said] => return refused(said.to_owned()),
                _ => return Err(odd()),
            }
        }
        Ok(Appended::Done)
    }
}

fn odd() -> Error {
    Target::Redis.error(Kind::Internal, "Redis answers a script that puts groups back oddly")
}
