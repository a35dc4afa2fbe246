//! A stream with its consumer groups, as it was at one moment.

use std::sync::Arc;

use redis::{Cmd, FromRedisValue, Value};

use super::append::SAID;
use super::connect::in_words;
use super::name;
use super::positions::Place;
use super::shard::Redis;
use crate::error::{Error, Kind, Result, Target};
use crate::group::{Group, Pending};
use crate::position::Position;
use crate::text::line;

/// Streams asked in one pipeline: keeps both ends from buffering much.
const CHUNK: usize = 100;
/// Pending entries listed per group; a group with more is known by its floor alone.
pub(super) const LISTED: usize = 10_000;

/// A stream at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Where it is.
    pub place: Place,
    /// Its first entry, if it has one.
    pub first: Option<Position>,
    /// Its entries.
    pub entries: u64,
    /// Memory that it takes, about, as Redis says.
    pub bytes: u64,
    /// The highest ID that XDEL has removed, where the server says it (7.0 and later).
    pub removed: Option<Position>,
    /// Its consumer groups.
    pub groups: Vec<Group>,
}

impl View {
    /// Number up to which entries are no longer there: one less than the first, or all.
    pub fn trimmed(&self) -> u64 {
        match (&self.place, self.first) {
            (_, Some(first)) => first.n.saturating_sub(1),
            (Place::At(last), None) => last.n,
            _ => 0,
        }
    }

    /// Number up to which every group has acknowledged; None without groups.
    pub fn floor(&self) -> Option<u64> {
        self.groups.iter().map(|group| group.floor).min()
    }
}

impl Redis {
    /// Each of these streams, in their order.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn views(&self, streams: &[Arc<str>]) -> Result<Vec<View>> {
        let mut views = Vec::with_capacity(streams.len());
        for chunk in streams.chunks(CHUNK) {
            let replies = self
                .run(&self.scripts.look, chunk.len(), |command, index| {
                    command.arg(1).arg(self.key(&chunk[index])).arg(LISTED);
                })
                .await?;
            for reply in replies {
                views.push(read(reply.map_err(in_words)?)?);
            }
        }
        Ok(views)
    }

    /// What asks for one of [`Redis::views`], of a server that has the script.
    pub(super) fn look_command(&self, stream: &str) -> Cmd {
        let mut command = self.scripts.look.begin(true);
        command.arg(1).arg(self.key(stream)).arg(LISTED);
        command
    }

    /// One stream.
    ///
    /// # Errors
    /// As [`Redis::views`].
    pub async fn view(&self, stream: &str) -> Result<View> {
        self.views(&[stream.into()]).await?.pop().ok_or_else(odd)
    }

    /// Removes from streams what every group has acknowledged, or, for one without groups, what is up
    /// to its floor. Each comes with a floor that is stored, and whether it has groups. Returns how many
    /// entries were removed of each.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn trim(&self, streams: &[(Arc<str>, Position, bool)]) -> Result<Vec<u64>> {
        let mut removed = Vec::with_capacity(streams.len());
        for chunk in streams.chunks(CHUNK) {
            let replies = self
                .run(&self.scripts.trim, chunk.len(), |command, index| {
                    let (stream, floor, grouped) = &chunk[index];
                    command.arg(1).arg(self.key(stream)).arg(floor.to_string());
                    command.arg(if *grouped { "groups" } else { "ungrouped" });
                })
                .await?;
            for reply in replies {
                removed.push(number(&reply.map_err(in_words)?)?);
            }
        }
        Ok(removed)
    }
}

fn odd() -> Error {
    Target::Redis.error(Kind::Internal, "Redis answers a script that looks at groups oddly")
}

pub(super) fn read(reply: Value) -> Result<View> {
    let parts = list(reply)?;
    let kind = text(parts.first())?;
    let place = match kind.as_str() {
        "none" => Place::Missing,
        "stream" => Place::At(position(parts.get(1))?.ok_or_else(odd)?),
        _ => Place::WrongType(line(&kind, SAID)),
    };
    if !matches!(place, Place::At(_)) {
        let (first, removed, groups) = (None, None, Vec::new());
        return Ok(View { place, first, entries: 0, bytes: 0, removed, groups });
    }
    let groups = list(parts.get(6).cloned().ok_or_else(odd)?)?;
    Ok(View {
        place,
        first: position(parts.get(2))?,
        entries: number(parts.get(3).ok_or_else(odd)?)?,
        bytes: number(parts.get(4).ok_or_else(odd)?)?,
        removed: position(parts.get(5))?,
        groups: groups.into_iter().map(read_group).collect::<Result<_>>()?,
    })
}

fn read_group(reply: Value) -> Result<Group> {
    let parts = list(reply)?;
    let part = |index: usize| parts.get(index).ok_or_else(odd);
    let (waiting, listed) = (number(part(5)?)?, list(part(8)?.clone())?);
    Ok(Group {
        name: name::text(&Vec::<u8>::from_redis_value_ref(part(0)?).map_err(|_| odd())?),
        delivered: position(parts.get(1))?.ok_or_else(odd)?,
        read: optional(part(2)?)?,
        given: number(part(3)?)?,
        floor: number(part(4)?)?,
        waiting,
        pending: match listed.len() as u64 == waiting {
            true => Some(listed.into_iter().map(read_pending).collect::<Result<_>>()?),
            false => None,
        },
        dangling: number(part(6)?)?,
        idle_ms: optional(part(7)?)?,
    })
}

fn read_pending(reply: Value) -> Result<Pending> {
    let parts = list(reply)?;
    let part = |index: usize| parts.get(index).ok_or_else(odd);
    Ok(Pending {
        position: position(parts.first())?.ok_or_else(odd)?,
        consumer: name::text(&Vec::<u8>::from_redis_value_ref(part(1)?).map_err(|_| odd())?),
        given_ms: number(part(2)?)?,
        deliveries: number(part(3)?)?,
    })
}

fn list(value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) => Ok(values),
        // Nothing in place of a list is no empty list: groups would be forgotten.
        _ => Err(odd()),
    }
}

fn text(value: Option<&Value>) -> Result<String> {
    String::from_redis_value_ref(value.ok_or_else(odd)?).map_err(|_| odd())
}

fn position(value: Option<&Value>) -> Result<Option<Position>> {
    match text(value)?.as_str() {
        "" => Ok(None),
        id => id.parse().map(Some).map_err(|_| odd()),
    }
}

fn number(value: &Value) -> Result<u64> {
    u64::from_redis_value_ref(value).map_err(|_| odd())
}

/// A number, or None for -1.
fn optional(value: &Value) -> Result<Option<u64>> {
    let number = i64::from_redis_value_ref(value).map_err(|_| odd())?;
    Ok(u64::try_from(number).ok())
}
