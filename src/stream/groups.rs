//! Consumer groups of a stream, and what they have not acknowledged.

use redis::{FromRedisValue, Value, cmd};

use super::connect::Redis;
use crate::error::{Kind, Result, Target};
use crate::position::Position;

/// A consumer group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The last entry that it was given.
    pub last_delivered: Position,
    /// Entries that it was given and has not acknowledged.
    pub pending: u64,
}

/// An entry that a group was given and has not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// Which consumer has it.
    pub consumer: String,
    /// Milliseconds since it was last given.
    pub idle_ms: u64,
    /// How often it was given.
    pub deliveries: u64,
}

impl Redis {
    /// The groups of `stream`; none if there is no such stream.
    ///
    /// # Errors
    /// Any error of the connection or of the command.
    pub async fn groups(&self, stream: &str) -> Result<Vec<Group>> {
        let key = self.key(stream);
        if self.command::<u64>(cmd("EXISTS").arg(&key)).await? == 0 {
            return Ok(Vec::new());
        }
        let groups: Vec<Vec<Value>> = self.command(cmd("XINFO").arg("GROUPS").arg(&key)).await?;
        groups.iter().map(|group| read(group)).collect()
    }

    /// The entry at `position`, if `group` was given it and has not acknowledged it.
    ///
    /// # Errors
    /// Any error of the connection or of the command.
    pub async fn pending(
        &self,
        stream: &str,
        group: &str,
        position: Position,
    ) -> Result<Option<Pending>> {
        let id = position.to_string();
        let mut command = cmd("XPENDING");
        command.arg(self.key(stream)).arg(group).arg(&id).arg(&id).arg(1);
        let found: Vec<(String, String, u64, u64)> = self.command(&command).await?;
        Ok(found.into_iter().next().map(|(_, consumer, idle_ms, deliveries)| Pending {
            consumer,
            idle_ms,
            deliveries,
        }))
    }
}

/// Reads one group of XINFO GROUPS: names and values in turn, more of them in later versions.
fn read(group: &[Value]) -> Result<Group> {
    let odd =
        |why: &str| Target::Redis.error(Kind::Internal, format!("XINFO GROUPS answered {why}"));
    let field = |name: &str| {
        let pair = group.chunks_exact(2).find(|pair| text(&pair[0]).as_deref() == Some(name));
        pair.map(|pair| &pair[1]).ok_or_else(|| odd(&format!("without {name}")))
    };
    Ok(Group {
        name: text(field("name")?).ok_or_else(|| odd("a name that is no text"))?,
        last_delivered: text(field("last-delivered-id")?)
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| odd("a position that is none"))?,
        pending: u64::from_redis_value_ref(field("pending")?).map_err(|_| odd("no number"))?,
    })
}

fn text(value: &Value) -> Option<String> {
    String::from_redis_value_ref(value).ok()
}
