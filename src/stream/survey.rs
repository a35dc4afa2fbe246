//! What a review asks of Redis: of every key, and of streams; and what it removes, if that is still stale.
//!
//! Values are never read.

use std::time::Duration;

use redis::{Cmd, FromRedisValue, RedisResult, Value, cmd};

use super::connect::{code, in_words};
use super::name;
use super::shard::{Redis, Shard};
use crate::error::{Error, Kind, Result, Target};
use crate::position::Position;

/// Keys passed by one step, and asked about in one pipeline: about a millisecond of Redis's time.
const STEP: usize = 500;
/// Elements of a value that are weighed to tell its memory, as Redis does by itself.
const WEIGHED: usize = 5;
/// Pending entries of a group that are looked at, and idle consumers of it that are named.
const PENDING: usize = 1_000;
const CONSUMERS: usize = 1_000;

/// One step of a search through all keys of one primary.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The keys; some may come twice while Redis resizes its table.
    pub keys: Vec<Vec<u8>>,
    /// Where the next step begins; None if there is none.
    pub next: Option<String>,
}

/// A key as a review sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySurvey {
    /// Its name.
    pub key: Vec<u8>,
    /// What it holds, as TYPE names it.
    pub kind: String,
    /// It expires after this long.
    pub expires: Option<Duration>,
    /// Memory that it takes, about.
    pub bytes: u64,
    /// Nobody has touched it for this long; None where Redis counts uses instead (`…-lfu`), of streams, which
    /// a review itself touches, and of a small number, which Redis keeps once for all keys that hold it.
    pub untouched: Option<Duration>,
}

/// A stream as a review sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StreamSurvey {
    /// Its entries.
    pub entries: u64,
    /// Entries of the relay's kind are in it, or, in an empty one, an ID of the relay's kind was given last.
    pub like_ours: bool,
    /// Its groups.
    pub groups: Vec<GroupSurvey>,
}

/// A consumer group as a review sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupSurvey {
    /// Its name.
    pub name: String,
    /// Of its first 1,000 pending entries, those that have been idle for too long.
    pub stale: u64,
    /// The longest of these times.
    pub longest: Duration,
    /// Consumers that have been idle for too long and have nothing pending, the first 1,000.
    pub idle: Vec<String>,
}

impl Redis {
    /// The next keys of one primary.
    ///
    /// # Errors
    /// Any error of the connection or of the command.
    pub async fn keys_after(&self, shard: Shard, cursor: Option<&str>) -> Result<Page> {
        let (next, keys) = self.page(shard, cursor.unwrap_or("0"), "*", None, STEP).await?;
        Ok(Page { keys, next: Some(next).filter(|next| next != "0") })
    }

    /// What these keys are, without those that are gone.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn survey(&self, keys: &[Vec<u8>]) -> Result<Vec<KeySurvey>> {
        let mut found = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(STEP) {
            let replies = self.send(chunk.iter().flat_map(|key| questions(key)).collect()).await?;
            let mut replies = replies.into_iter();
            for key in chunk {
                found.extend(key_survey(key, &mut replies)?);
            }
        }
        Ok(found)
    }

    /// A stream with what has been idle in it for at least `idle`; None if there is no such stream.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn survey_stream(
        &self,
        key: &[u8],
        idle: Option<Duration>,
    ) -> Result<Option<StreamSurvey>> {
        let idle = idle.map_or(-1, |idle| i64::try_from(idle.as_millis()).unwrap_or(i64::MAX));
        let replies = self.run(&self.scripts.survey, 1, |command, _| {
            command.arg(1).arg(key).arg(idle).arg(PENDING).arg(CONSUMERS);
        });
        read_stream(one(replies.await?)?)
    }

    /// Entries of a list.
    ///
    /// # Errors
    /// Any error of the connection or of the command.
    pub async fn list_length(&self, key: &[u8]) -> Result<u64> {
        match self.try_command(cmd("LLEN").arg(key)).await? {
            Err(error) if code(&error) == "WRONGTYPE" => Ok(0),
            length => length.map_err(in_words),
        }
    }

    /// Removes a key, if it still is what it was, nobody has touched it for `untouched`, and it does not
    /// expire within `longest` (None: not at all) by itself. Says whether it did. Streams are never removed.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn remove_stale(
        &self,
        key: &KeySurvey,
        untouched: Duration,
        longest: Option<Duration>,
    ) -> Result<bool> {
        let longest = longest.map_or(-1, |longest| longest.as_secs().cast_signed());
        let replies = self.run(&self.scripts.stale, 1, |command, _| {
            command.arg(1).arg(&key.key).arg(&key.kind).arg(untouched.as_secs()).arg(longest);
        });
        whether(one(replies.await?)?)
    }

    /// Removes a consumer, if it still has nothing pending and has been idle for `idle`. Says whether it did.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn remove_consumer(
        &self,
        key: &[u8],
        group: &str,
        consumer: &str,
        idle: Duration,
    ) -> Result<bool> {
        let (group, consumer) = (name::bytes(group), name::bytes(consumer));
        let idle = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let replies = self.run(&self.scripts.retire, 1, |command, _| {
            command.arg(1).arg(key).arg(&group).arg(&consumer).arg(idle);
        });
        whether(one(replies.await?)?)
    }
}

/// What is asked of a key, in the order in which [`key_survey`] reads the answers.
fn questions(key: &[u8]) -> [Cmd; 5] {
    let mut usage = cmd("MEMORY");
    usage.arg("USAGE").arg(key).arg("SAMPLES").arg(WEIGHED);
    let object = |what| cmd("OBJECT").arg(what).arg(key).to_owned();
    let (kind, left) = (cmd("TYPE").arg(key).to_owned(), cmd("TTL").arg(key).to_owned());
    [kind, left, usage, object("IDLETIME"), object("REFCOUNT")]
}

fn key_survey(
    key: &[u8],
    replies: &mut impl Iterator<Item = RedisResult<Value>>,
) -> Result<Option<KeySurvey>> {
    let mut next = || replies.next().ok_or_else(odd);
    let (kind, seconds, bytes, idle, owners) = (next()?, next()?, next()?, next()?, next()?);
    let kind: String = read(kind)?;
    let seconds: i64 = read(seconds)?;
    let bytes: Option<u64> = read(bytes)?;
    let untouched = match idle {
        // It keeps no such time, or the key has gone meanwhile.
        Err(error) if code(&error) != "NOPERM" && !code(&error).is_empty() => None,
        idle => read::<Option<u64>>(idle)?.map(Duration::from_secs),
    };
    // Gone meanwhile is an error in some versions, and nothing in others.
    let owners = match owners {
        Err(error) if code(&error) == "ERR" => None,
        owners => read::<Option<i64>>(owners)?,
    };
    let untouched = untouched.filter(|_| kind != "stream" && owners == Some(1));
    // What has gone meanwhile is no finding.
    let (false, true, Some(bytes)) = (kind == "none", seconds >= -1, bytes) else {
        return Ok(None);
    };
    let expires = u64::try_from(seconds).ok().map(Duration::from_secs);
    Ok(Some(KeySurvey { key: key.to_vec(), kind, expires, bytes, untouched }))
}

fn read<T: FromRedisValue>(reply: RedisResult<Value>) -> Result<T> {
    let value = reply.map_err(in_words)?;
    T::from_redis_value(value).map_err(|_| odd())
}

fn odd() -> Error {
    Target::Redis.error(Kind::Internal, "Redis answers a review oddly")
}

fn one(replies: Vec<RedisResult<Value>>) -> Result<Value> {
    replies.into_iter().next().ok_or_else(odd)?.map_err(in_words)
}

fn whether(reply: Value) -> Result<bool> {
    u64::from_redis_value(reply).map(|count| count > 0).map_err(|_| odd())
}

fn read_stream(reply: Value) -> Result<Option<StreamSurvey>> {
    let parts = list(&reply)?;
    let [entries, last, fields, groups] = parts else {
        return if parts.is_empty() { Ok(None) } else { Err(odd()) };
    };
    let last: String = of(last)?;
    let last: Position = last.parse().map_err(|_| odd())?;
    let fields: Vec<Vec<u8>> = of(fields)?;
    let has = |name: &str| fields.iter().any(|field| field == name.as_bytes());
    let entries: u64 = of(entries)?;
    // XADD counts from 0 within a millisecond; the relay numbers its entries from 1.
    let like_ours = match entries {
        0 => last.n > 0,
        _ => last.n > 0 && ["id", "at", "payload"].into_iter().all(has),
    };
    let groups = list(groups)?.iter().map(read_group).collect::<Result<_>>()?;
    Ok(Some(StreamSurvey { entries, like_ours, groups }))
}

fn read_group(reply: &Value) -> Result<GroupSurvey> {
    let [group, stale, longest, consumers] = list(reply)? else { return Err(odd()) };
    let consumers: Vec<Vec<u8>> = of(consumers)?;
    Ok(GroupSurvey {
        name: name::text(&of::<Vec<u8>>(group)?),
        stale: of(stale)?,
        longest: Duration::from_millis(of(longest)?),
        idle: consumers.iter().map(|consumer| name::text(consumer)).collect(),
    })
}

fn list(value: &Value) -> Result<&[Value]> {
    match value {
        Value::Array(values) => Ok(values),
        _ => Err(odd()),
    }
}

fn of<T: FromRedisValue>(value: &Value) -> Result<T> {
    T::from_redis_value_ref(value).map_err(|_| odd())
}
