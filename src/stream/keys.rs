//! Keys of the relay, and beside them: for a doctor. And how keys are searched for.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::connect::in_words;
use super::shard::{Redis, Shard};
use crate::error::Result;
use crate::position::Position;

/// Keys asked in one pipeline.
const CHUNK: usize = 500;
/// Keys that a search goes through at most, asking for so many at a time.
const MOST: usize = 1_000_000;
const COUNT: usize = 1_000;
/// Streams that no row names which are looked into; more are left out.
const LOOKED_INTO: usize = 1_000;
/// Keys of the relay's own, below the prefix.
const OWN: [&str; 6] = [
    "outbox:identity",
    "outbox:identity:",
    "outbox:durable",
    "outbox:durable:",
    "outbox:rebuild:",
    "outbox:doctor:",
];

/// What a key holds and until when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyState {
    /// As TYPE names it.
    pub kind: String,
    /// It expires after this long.
    pub expires: Option<Duration>,
}

/// Keys that a search has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scanned {
    /// Their names, in order.
    pub keys: Vec<String>,
    /// The search went through all keys there are.
    pub whole: bool,
}

impl Redis {
    /// What the keys of these streams hold, in their order.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn key_states(&self, streams: &[Arc<str>]) -> Result<Vec<KeyState>> {
        let keys: Vec<String> = streams.iter().map(|stream| self.key(stream)).collect();
        self.states(&keys).await
    }

    /// Keys that begin as those of the relay's own do, and are none of them.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn unknown_keys(&self) -> Result<Scanned> {
        let own = self.own_names();
        self.scan(&self.key("outbox:"), None, |key| !is_one_of(&own, key)).await
    }

    fn own_names(&self) -> Vec<String> {
        OWN.iter().map(|name| self.key(name)).collect()
    }

    /// All keys that are neither streams of `named` nor the relay's own, whatever they begin with.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn other_keys(&self, named: &[Arc<str>]) -> Result<Scanned> {
        let known: HashSet<String> = named.iter().map(|stream| self.key(stream)).collect();
        let own = self.own_names();
        self.scan("", None, |key| !known.contains(key) && !is_one_of(&own, key)).await
    }

    /// Streams that none of `named` names and that never expire, and that look as if they were filled by
    /// the relay, or have the prefix to themselves.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn stray_streams(&self, named: &[Arc<str>]) -> Result<Scanned> {
        let known: HashSet<String> = named.iter().map(|stream| self.key(stream)).collect();
        let (prefix, own) = (self.key(""), self.key("outbox:"));
        let is_stray = |key: &str| !known.contains(key) && !key.starts_with(&own);
        let mut found = self.scan(&prefix, Some("stream"), is_stray).await?;
        found.whole &= found.keys.len() <= LOOKED_INTO;
        found.keys.truncate(LOOKED_INTO);
        let states = self.states(&found.keys).await?;
        let keys = std::mem::take(&mut found.keys);
        for (key, state) in keys.into_iter().zip(states) {
            let lasts = state.kind == "stream" && state.expires.is_none();
            // Without a prefix, other people's streams stand beside ours by right.
            if lasts && (!prefix.is_empty() || self.looks_like_ours(&key).await?) {
                found.keys.push(key);
            }
        }
        Ok(found)
    }

    /// Whether the first entry of a stream has the fields of an entry.
    async fn looks_like_ours(&self, key: &str) -> Result<bool> {
        let stream = key.strip_prefix(&self.key("")).unwrap_or(key);
        let first = self.range(stream, Position::START, Position::END, 1).await?;
        let has = |name| first.first().is_some_and(|entry| entry.field(name).is_some());
        Ok(["id", "at", "payload"].into_iter().all(has))
    }

    async fn states(&self, keys: &[String]) -> Result<Vec<KeyState>> {
        let mut states = Vec::with_capacity(keys.len());
        for chunk in keys.chunks(CHUNK) {
            let about = |mut command: Cmd, key: &String| command.arg(key).to_owned();
            let commands =
                chunk.iter().flat_map(|key| [about(cmd("TYPE"), key), about(cmd("TTL"), key)]);
            let replies = self.send(commands.collect()).await?;
            let replies: Vec<Value> =
                replies.into_iter().collect::<redis::RedisResult<_>>().map_err(in_words)?;
            for pair in replies.chunks_exact(2) {
                let odd = |error| in_words(redis::RedisError::from(error));
                let kind: String = redis::from_redis_value_ref(&pair[0]).map_err(odd)?;
                let seconds: i64 = redis::from_redis_value_ref(&pair[1]).map_err(odd)?;
                let expires = u64::try_from(seconds).ok().map(Duration::from_secs);
                states.push(KeyState { kind, expires });
            }
        }
        Ok(states)
    }

    /// Keys that begin with `start`, of one type if that is given, that `wanted` wants.
    async fn scan(
        &self,
        start: &str,
        kind: Option<&str>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Scanned> {
        let (mut found, shards) = (Scanned { whole: true, ..Scanned::default() }, self.shards());
        for shard in &shards {
            let part = self.scan_one(*shard, MOST / shards.len(), start, kind, &wanted).await?;
            found.keys.extend(part.keys);
            found.whole &= part.whole;
        }
        // SCAN may give a key twice.
        found.keys.sort();
        found.keys.dedup();
        Ok(found)
    }

    async fn scan_one(
        &self,
        shard: Shard,
        most: usize,
        start: &str,
        kind: Option<&str>,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Scanned> {
        let (mut cursor, mut seen, mut found) = (String::from("0"), 0, Scanned::default());
        let pattern = pattern(start);
        while !found.whole && seen < most {
            let (next, keys) = self.page(shard, &cursor, &pattern, kind, COUNT).await?;
            let keys = keys.iter().map(|key| String::from_utf8_lossy(key).into_owned());
            found.keys.extend(keys.filter(|key| wanted(key)));
            found.whole = next == "0";
            (cursor, seen) = (next, seen + COUNT);
        }
        Ok(found)
    }

    /// One step of a search through one primary, from `cursor`, which is `0` at first, past about `count`
    /// keys: where the next step begins, `0` if there is none, and the keys that match.
    pub(super) async fn page(
        &self,
        shard: Shard,
        cursor: &str,
        pattern: &str,
        kind: Option<&str>,
        count: usize,
    ) -> Result<(String, Vec<Vec<u8>>)> {
        let mut command = cmd("SCAN");
        command.arg(cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(count);
        if let Some(kind) = kind {
            command.arg("TYPE").arg(kind);
        }
        self.command_on(shard, &command).await
    }
}

/// Whether a key has one of these names, or begins with one that ends with a colon.
fn is_one_of(own: &[String], key: &str) -> bool {
    own.iter().any(|own| match own.ends_with(':') {
        true => key.starts_with(own.as_str()),
        false => key == own,
    })
}

/// A pattern for all keys that begin with `start`, whatever it has in it.
fn pattern(start: &str) -> String {
    let mut pattern = String::with_capacity(start.len() + 1);
    for c in start.chars() {
        if "*?[]\\^".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('*');
    pattern
}

/// A key as redis-cli reads it back.
pub fn quoted(key: &str) -> String {
    match key.chars().all(|c| c.is_ascii_graphic() && !"\"'\\".contains(c)) && !key.is_empty() {
        true => key.to_owned(),
        false => format!("\"{}\"", key.escape_debug()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_stands_for_itself_in_a_pattern() {
        assert_eq!(pattern("shop:[1]*"), "shop:\\[1\\]\\**");
        assert_eq!(pattern(""), "*");
    }

    #[test]
    fn odd_keys_are_quoted() {
        assert_eq!(quoted("outbox:x{1}"), "outbox:x{1}");
        assert_eq!(quoted("a b\n"), "\"a b\\n\"");
        assert_eq!(quoted(""), "\"\"");
    }
}
