//! Who reads by a consumer group, and when each last asked: for a drill.

use std::sync::Arc;

use redis::{Cmd, FromRedisValue, RedisResult, Value, cmd};

use super::connect::in_words;
use super::name;
use super::shard::{Redis, Shard, code_of};
use crate::error::{Error, Kind, Result, Target};

/// Groups asked in one pipeline: keeps both ends from buffering much.
const CHUNK: usize = 100;

/// A consumer of a group, as it was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerSeen {
    /// Its name; bytes that are no text, as `\x` and hexadecimal digits.
    pub name: String,
    /// Entries that it was given and has not acknowledged.
    pub pending: u64,
    /// Milliseconds since it last asked for entries, or was given some by somebody else.
    pub idle_ms: u64,
}

impl Redis {
    /// The consumers of these groups, each of a stream, in their order; none of a group that is not there.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn consumers(&self, groups: &[(Arc<str>, String)]) -> Result<Vec<Vec<ConsumerSeen>>> {
        let mut found: Vec<Vec<ConsumerSeen>> = groups.iter().map(|_| Vec::new()).collect();
        for shard in self.shards() {
            let here: Vec<usize> =
                (0..groups.len()).filter(|at| self.shard(&groups[*at].0) == shard).collect();
            for chunk in here.chunks(CHUNK) {
                let replies =
                    self.ask_consumers(shard, chunk.iter().map(|at| &groups[*at])).await?;
                for (at, reply) in chunk.iter().zip(replies) {
                    found[*at] = match code_of(&reply) {
                        // No such group, and no such key.
                        "NOGROUP" | "ERR" => Vec::new(),
                        _ => read(reply.map_err(in_words)?)?,
                    };
                }
            }
        }
        Ok(found)
    }

    async fn ask_consumers<'a>(
        &self,
        shard: Shard,
        groups: impl Iterator<Item = &'a (Arc<str>, String)>,
    ) -> Result<Vec<RedisResult<Value>>> {
        let ask = |(stream, group): &(Arc<str>, String)| -> Cmd {
            let mut command = cmd("XINFO");
            command.arg("CONSUMERS").arg(self.key(stream)).arg(name::bytes(group));
            command
        };
        self.send_to(shard, groups.map(ask).collect()).await
    }
}

fn odd() -> Error {
    Target::Redis.error(Kind::Internal, "Redis answers XINFO CONSUMERS oddly")
}

fn read(reply: Value) -> Result<Vec<ConsumerSeen>> {
    let consumers: Vec<Vec<Value>> = redis::from_redis_value(reply).map_err(|_| odd())?;
    consumers.iter().map(|fields| read_one(fields)).collect()
}

fn read_one(fields: &[Value]) -> Result<ConsumerSeen> {
    let field = |wanted: &str| {
        let is_wanted = |pair: &&[Value]| {
            String::from_redis_value_ref(&pair[0]).is_ok_and(|named| named == wanted)
        };
        fields.chunks_exact(2).find(is_wanted).map(|pair| &pair[1]).ok_or_else(odd)
    };
    let number = |wanted| u64::from_redis_value_ref(field(wanted)?).map_err(|_| odd());
    let name = Vec::<u8>::from_redis_value_ref(field("name")?).map_err(|_| odd())?;
    Ok(ConsumerSeen {
        name: name::text(&name),
        pending: number("pending")?,
        idle_ms: number("idle")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    #[test]
    fn reads_what_every_version_says() {
        let one = vec![
            text("name"),
            text("worker"),
            text("pending"),
            Value::Int(2),
            text("idle"),
            Value::Int(7),
            text("inactive"),
            Value::Int(-1),
        ];
        let found = read(Value::Array(vec![Value::Array(one)])).expect("consumers");
        assert_eq!(found, [ConsumerSeen { name: "worker".into(), pending: 2, idle_ms: 7 }]);
        assert!(read(Value::Array(vec![Value::Array(vec![text("name")])])).is_err());
        assert!(read(Value::Int(1)).is_err());
    }
}
