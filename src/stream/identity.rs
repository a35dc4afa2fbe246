//! Which outbox a Redis belongs to, and whether it is still the same life.
//!
//! The relay keeps one key, `<prefix>outbox:identity`, a hash: `id` (the outbox), `system` (the
//! Postgres cluster). It is made at the first connect to an empty Redis, and again after a loss.

use redis::{Value, cmd};

use super::connect::{Redis, code, in_words};
use crate::error::{Kind, Result, Target};

/// What came of claiming a Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It was ours before.
    Ours,
    /// It had no identity, as a new or an emptied Redis has none; now it is ours.
    Fresh,
}

/// What tells one life of a Redis server from the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    run_id: String,
    replication_id: String,
    evicted_keys: String,
}

impl Redis {
    /// Makes sure that this Redis belongs to outbox `id`.
    ///
    /// # Errors
    /// `Refused` if it belongs to another one; then nothing was changed.
    pub async fn claim(&self, id: &str, system: &str) -> Result<Claim> {
        let key = self.key("outbox:identity");
        // Read first: a write would be refused by a Redis without memory, also if it changes nothing.
        if self.refuse_other(id).await? {
            return Ok(Claim::Ours);
        }
        let fresh: bool = self.identity(cmd("HSETNX").arg(&key).arg("id").arg(id)).await?;
        if !fresh {
            return self.refuse_other(id).await.map(|_| Claim::Ours);
        }
        self.command::<Value>(cmd("HSET").arg(&key).arg("system").arg(system)).await?;
        Ok(Claim::Fresh)
    }

    /// Refuses a Redis that belongs to another outbox than `id`; false if it belongs to none.
    /// Changes nothing.
    ///
    /// # Errors
    /// `Refused` with both.
    pub async fn refuse_other(&self, id: &str) -> Result<bool> {
        let key = self.key("outbox:identity");
        let found: Option<String> = self.identity(cmd("HGET").arg(&key).arg("id")).await?;
        let belongs = found.is_some();
        let Some(found) = found.filter(|found| found != id) else { return Ok(belongs) };
        let context = format!(
            "this Redis belongs to outbox {found}, the database is outbox {id}; point REDIS_URL at \
             the right Redis, or set another OUTBOX_PREFIX (the key {key:?} says whose it is)"
        );
        Err(Target::Redis.error(Kind::Refused, context))
    }

    /// Runs a command on the key that says whose Redis this is.
    async fn identity<T: redis::FromRedisValue>(&self, command: &redis::Cmd) -> Result<T> {
        command.query_async(&mut self.connection()).await.map_err(|error| match code(&error) {
            "WRONGTYPE" => {
                let context = format!(
                    "the key {:?} in Redis is not the relay's own; delete it, or set another OUTBOX_PREFIX",
                    self.key("outbox:identity")
                );
                Target::Redis.error_by(Kind::Refused, context, error)
            }
            _ => in_words(error),
        })
    }

    /// What tells this life of the server from the next.
    ///
    /// # Errors
    /// Any error of the connection.
    pub async fn life(&self) -> Result<Life> {
        let info = self.info().await?;
        Ok(Life {
            run_id: field(&info, "run_id"),
            replication_id: field(&info, "master_replid"),
            evicted_keys: field(&info, "evicted_keys"),
        })
    }

    /// Refuses a server that evicts keys without an expiry: it would drop whole streams.
    ///
    /// # Errors
    /// `Refused` with the remedy.
    pub async fn refuse_eviction(&self) -> Result<()> {
        let policy = field(&self.info().await?, "maxmemory_policy");
        if policy.starts_with("allkeys") {
            let context = format!(
                "this Redis has maxmemory-policy {policy}, which drops whole streams when memory is \
                 short; set it with `CONFIG SET maxmemory-policy noeviction`"
            );
            return Err(Target::Redis.error(Kind::Refused, context));
        }
        Ok(())
    }

    async fn info(&self) -> Result<String> {
        self.command(&cmd("INFO")).await
    }
}

fn field(info: &str, name: &str) -> String {
    let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn reads_info() {
        let info = "# Server\r\nrun_id:abc\r\nrun_id_old:x\r\n";
        assert_eq!(field(info, "run_id"), "abc");
        assert_eq!(field(info, "none"), "");
    }
}
