//! What must have happened to an entry in Redis before it counts as there.

use std::time::Duration;

use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{RedisResult, Value, cmd};

use super::connect::in_words;
use super::shard::Redis;
use crate::error::{Error, Kind, Result, Target};

/// Waited at a time; less than an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
/// The key that is written before something is waited for expires after this long.
const KEPT: Duration = Duration::from_secs(86_400);

/// What must have happened to an entry before it is marked dispatched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Redis has it in memory: what a crash loses is noticed and put back.
    #[default]
    Memory,
    /// So many replicas have it as well (WAIT).
    Replicas(u32),
    /// It is on the disk of Redis (WAITAOF, Redis 7.2 or later).
    Disk,
}

impl Redis {
    /// Waits until all that these connections have written is as durable as it must be.
    ///
    /// # Errors
    /// `Unavailable` if it is not within five seconds, `Refused` if Redis cannot do this; any error of the
    /// connection.
    pub(super) async fn make_durable(&self) -> Result<()> {
        match self.durability {
            Durability::Memory => Ok(()),
            _ => {
                let nodes = self.nodes.iter().map(|node| node.connection.clone());
                let mut written_on: Vec<_> = nodes.collect();
                if let Some(cluster) = &self.cluster {
                    written_on.extend(cluster.led_to().await);
                }
                let waiting = written_on.into_iter().map(|one| self.make_durable_on(one));
                try_join_all(waiting).await.map(drop)
            }
        }
    }

    async fn make_durable_on(&self, mut connection: MultiplexedConnection) -> Result<()> {
        let milliseconds = PATIENCE.as_millis() as u64;
        let (command, wanted, of) = match self.durability {
            Durability::Memory => return Ok(()),
            Durability::Replicas(count) => {
                (cmd("WAIT").arg(count).arg(milliseconds).to_owned(), count, "replicas")
            }
            Durability::Disk => {
                (cmd("WAITAOF").arg(1).arg(0).arg(milliseconds).to_owned(), 1, "append-only files")
            }
        };
        let reply: RedisResult<Value> = command.query_async(&mut connection).await;
        let reached = reply.map_err(unable)?;
        // WAITAOF counts this server's file, and then those of replicas.
        let reached: Vec<u32> = match redis::from_redis_value(reply_as_list(reached)) {
            Ok(reached) => reached,
            Err(error) => {
                return Err(Target::Redis.error_by(
                    Kind::Internal,
                    "Redis answers WAIT oddly",
                    error,
                ));
            }
        };
        match reached.first() {
            Some(reached) if *reached >= wanted => Ok(()),
            reached => Err(Target::Redis.error(
                Kind::Unavailable,
                format!(
                    "{} of {wanted} {of} have what Redis was given; OUTBOX_DURABILITY wants all of them",
                    reached.copied().unwrap_or_default()
                ),
            )),
        }
    }

    /// Waits until all that anybody has written so far is as durable as it must be: this connection has to
    /// write something behind it for that.
    ///
    /// # Errors
    /// `Unavailable` if it is not within five seconds, `Refused` if Redis cannot do this; any error of the
    /// connection.
    pub async fn make_all_durable(&self) -> Result<()> {
        if self.durability == Durability::Memory {
            return Ok(());
        }
        // A Redis without memory moves an expiry on, and takes no new key.
        for shard in self.shards() {
            let key = self.own_key("outbox:durable", shard);
            let expire = cmd("EXPIRE").arg(&key).arg(KEPT.as_secs()).to_owned();
            if self.command::<u64>(&expire).await? == 0 {
                self.command::<Value>(cmd("HSET").arg(&key).arg("at").arg(1)).await?;
                self.command::<u64>(&expire).await?;
            }
        }
        self.make_durable().await
    }
}

fn reply_as_list(reply: Value) -> Value {
    match reply {
        Value::Array(_) => reply,
        single => Value::Array(vec![single]),
    }
}

/// Redis before 7.2 has no WAITAOF, and one without an append-only file refuses it.
fn unable(error: redis::RedisError) -> Error {
    let said = error.to_string();
    if said.contains("unknown command") || said.contains("appendonly is disabled") {
        let context = "OUTBOX_DURABILITY=aof needs Redis 7.2 or later with appendonly yes";
        return Target::Redis.error_by(Kind::Refused, context, error);
    }
    in_words(error)
}
