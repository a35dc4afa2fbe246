//! Which outbox a Redis belongs to, and whether it is still the same life.
//!
//! The relay keeps one key on each primary, `<prefix>outbox:identity`, in a cluster with `:{N}` behind it,
//! a hash: `id` (the outbox), `system` (the Postgres cluster), and the canary: `nonce` (this life of Redis)
//! and `count`, raised at each checkpoint. It is made at the first connect to an empty Redis, and again
//! after a loss. A Redis that comes back with an older state has the nonce and a lower count.

use redis::{Value, cmd};

use super::append::{Appended, refused};
use super::connect::{code, in_words};
use super::shard::{Redis, Shard, tagged};
use crate::error::{Error, Kind, Result, Target};

/// The key that says whose Redis this is, without the prefix.
pub(super) const IDENTITY: &str = "outbox:identity";

/// What came of claiming a Redis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It was ours before.
    Ours,
    /// It had no identity, as a new or an emptied Redis has none; now it is ours.
    Fresh,
}

/// How far one life of a Redis has got.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Canary {
    /// Made anew whenever something was found lost.
    pub nonce: String,
    /// How often it was raised.
    pub count: u64,
}

/// What tells one life of a Redis server from the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    pub(crate) run_id: String,
    pub(crate) replication_id: String,
    pub(crate) evicted_keys: String,
}

/// The outbox that a Redis should belong to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Which outbox.
    pub id: String,
    /// The Postgres cluster it lives in.
    pub system: String,
    /// Clusters it lived in before.
    pub former: Vec<String>,
}

/// What the identity key says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claimed {
    /// Which outbox; None if there is no such key.
    pub id: Option<String>,
    /// The Postgres cluster that it lived in.
    pub system: Option<String>,
}

impl Redis {
    /// Makes sure that this primary belongs to `owner`.
    ///
    /// # Errors
    /// `Refused` if it belongs to another outbox, or to a copy of this one that lives in another
    /// cluster; then nothing was changed.
    pub async fn claim(&self, shard: Shard, owner: &Owner) -> Result<Claim> {
        // Read first: a write would be refused by a Redis without memory, also if it changes nothing.
        let found = self.refuse_other_on(shard, &owner.id).await?;
        match found.system {
            // A key without an id was emptied between the commands below: it is made whole again.
            Some(system) if system == owner.system && found.id.is_some() => return Ok(Claim::Ours),
            Some(system) if system != owner.system && !owner.former.contains(&system) => {
                return Err(self.copied(shard, owner, &system));
            }
            _ => {}
        }
        let key = self.own_key(IDENTITY, shard);
        let made = cmd("HSETNX").arg(&key).arg("id").arg(&owner.id).to_owned();
        let fresh: bool = self.identity(shard, &made).await?;
        if !fresh {
            self.refuse_other_on(shard, &owner.id).await?;
        }
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        self.identity::<bool>(shard, cmd("HSETNX").arg(&key).arg("nonce").arg(nonce)).await?;
        self.adopt_on(shard, owner).await?;
        Ok(if fresh { Claim::Fresh } else { Claim::Ours })
    }

    /// Writes down in which cluster the outbox lives, wherever something else is written.
    ///
    /// # Errors
    /// Any error of a connection.
    pub async fn adopt(&self, owner: &Owner) -> Result<()> {
        for (shard, claimed) in self.shards().into_iter().zip(self.refuse_other(&owner.id).await?) {
            if claimed.system.is_some() {
                self.adopt_on(shard, owner).await?;
            }
        }
        Ok(())
    }

    async fn adopt_on(&self, shard: Shard, owner: &Owner) -> Result<()> {
        let key = self.own_key(IDENTITY, shard);
        let written = cmd("HSET").arg(&key).arg("system").arg(&owner.system).to_owned();
        self.identity::<Value>(shard, &written).await.map(drop)
    }

    /// The canary of a primary, raised by `by` first; None if the identity key is gone.
    ///
    /// # Errors
    /// Any error of the connection or of the script; `Busy` if Redis has no memory to raise it, `Unavailable`
    /// once a slot of the cluster was found elsewhere: what was seen then may be of another primary.
    pub async fn canary(&self, shard: Shard, owner: &Owner, by: u64) -> Result<Option<Canary>> {
        self.refuse_moved()?;
        let replies = self
            .run(&self.scripts.canary, 1, |command, _| {
                command.arg(1).arg(self.own_key(IDENTITY, shard)).arg(&owner.id).arg(by);
            })
            .await?;
        let odd = || Target::Redis.error(Kind::Internal, "Redis answers the canary script oddly");
        let reply = replies.into_iter().next().ok_or_else(odd)?.map_err(in_words)?;
        let (nonce, count): (String, i64) = redis::from_redis_value(reply).map_err(|_| odd())?;
        match u64::try_from(count) {
            Ok(count) => Ok((!nonce.is_empty()).then_some(Canary { nonce, count })),
            Err(_) => refused(nonce).and_then(|answer| match answer {
                Appended::Refused(said) => {
                    let context = format!("Redis cannot do this now: {said}");
                    Err(Target::Redis.error(Kind::Busy, context))
                }
                _ => Err(odd()),
            }),
        }
    }

    /// All canaries there are: those of the primaries, and in a cluster those that were made while slots
    /// were elsewhere. Raises none.
    ///
    /// # Errors
    /// Any error of a connection.
    pub async fn canaries(&self, owner: &Owner) -> Result<Vec<Canary>> {
        let mut found = Vec::new();
        for shard in self.shards() {
            found.extend(self.canary(shard, owner, 0).await?);
            for tag in &self.nodes[shard.0].former {
                let mut command = cmd("HMGET");
                command.arg(tagged(&self.key(IDENTITY), *tag)).arg("id").arg("nonce").arg("count");
                let (id, nonce, count): (Option<String>, Option<String>, Option<u64>) =
                    self.command_on(shard, &command).await?;
                if let Some(nonce) = nonce.filter(|_| id.as_ref() == Some(&owner.id)) {
                    found.push(Canary { nonce, count: count.unwrap_or_default() });
                }
            }
        }
        Ok(found)
    }

    /// Begins a new life of a primary: whatever was stored of groups before now belongs to another one.
    ///
    /// # Errors
    /// Any error of the connection; `Busy` if Redis has no memory for it.
    pub async fn renew_canary(&self, shard: Shard) -> Result<Canary> {
        let nonce = uuid::Uuid::new_v4().simple().to_string();
        let mut command = cmd("HSET");
        command.arg(self.own_key(IDENTITY, shard)).arg("nonce").arg(&nonce).arg("count").arg(0);
        self.identity::<Value>(shard, &command).await?;
        Ok(Canary { nonce, count: 0 })
    }

    /// Refuses a Redis that belongs to another outbox than `id`. Returns what the identity key of each
    /// primary says; changes nothing.
    ///
    /// # Errors
    /// `Refused` with both.
    pub async fn refuse_other(&self, id: &str) -> Result<Vec<Claimed>> {
        let mut claimed = Vec::new();
        for shard in self.shards() {
            claimed.push(self.refuse_other_on(shard, id).await?);
        }
        Ok(claimed)
    }

    async fn refuse_other_on(&self, shard: Shard, id: &str) -> Result<Claimed> {
        let key = self.own_key(IDENTITY, shard);
        let asked = cmd("HMGET").arg(&key).arg("id").arg("system").to_owned();
        let (found, system) = self.identity(shard, &asked).await?;
        let claimed = Claimed { id: found, system };
        let Some(found) = claimed.id.as_deref().filter(|found| *found != id) else {
            return Ok(claimed);
        };
        let context = format!(
            "this Redis belongs to outbox {found}, the database is outbox {id}; point REDIS_URL at \
             the right Redis, or set another OUTBOX_PREFIX (the key {key:?} says whose it is)"
        );
        Err(Target::Redis.error(Kind::Refused, context))
    }

    fn copied(&self, shard: Shard, owner: &Owner, system: &str) -> Error {
        let context = format!(
            "this Redis was last filled from Postgres cluster {system}, the outbox lives in cluster {}: \
             two copies of one outbox must not share a Redis; point REDIS_URL at this copy's own Redis, \
             or, if the other copy is gone for good, run `outbox-relay adopt` (the key {:?} says whose \
             it is)",
            owner.system,
            self.own_key(IDENTITY, shard)
        );
        Target::Redis.error(Kind::Refused, context)
    }

    /// Runs a command on the key that says whose this primary is.
    async fn identity<T: redis::FromRedisValue>(
        &self,
        shard: Shard,
        command: &redis::Cmd,
    ) -> Result<T> {
        self.try_command(command).await?.map_err(|error| match code(&error) {
            "WRONGTYPE" => {
                let context = format!(
                    "the key {:?} in Redis is not the relay's own; delete it, or set another OUTBOX_PREFIX",
                    self.own_key(IDENTITY, shard)
                );
                Target::Redis.error_by(Kind::Refused, context, error)
            }
            _ => in_words(error),
        })
    }

    /// What tells this life of each primary from the next.
    ///
    /// # Errors
    /// Any error of a connection; `Unavailable` once a slot of the cluster was found elsewhere.
    pub async fn life(&self) -> Result<Vec<Life>> {
        self.refuse_moved()?;
        let mut lives = Vec::new();
        for shard in self.shards() {
            let info = self.info(shard).await?;
            lives.push(Life {
                run_id: field(&info, "run_id"),
                replication_id: field(&info, "master_replid"),
                evicted_keys: field(&info, "evicted_keys"),
            });
        }
        Ok(lives)
    }

    /// Refuses a server that evicts keys without an expiry, for it would drop whole streams.
    ///
    /// # Errors
    /// `Refused` with the remedy; `Unavailable` for a node of a cluster that could not say so before.
    pub async fn refuse_unfit(&self) -> Result<()> {
        for shard in self.shards() {
            let info = self.info(shard).await?;
            if field(&info, "cluster_enabled") == "1" && self.cluster.is_none() {
                let context = "Redis says only now that it is a node of a cluster";
                return Err(Target::Redis.error(Kind::Unavailable, context));
            }
            let policy = field(&info, "maxmemory_policy");
            if policy.starts_with("allkeys") {
                let context = format!(
                    "Redis at {} has maxmemory-policy {policy}, which drops whole streams when memory is \
                     short; set it with `CONFIG SET maxmemory-policy noeviction`",
                    self.shard_name(shard)
                );
                return Err(Target::Redis.error(Kind::Refused, context));
            }
        }
        Ok(())
    }

    pub(super) async fn info(&self, shard: Shard) -> Result<String> {
        self.command_on(shard, &cmd("INFO")).await
    }
}

pub(super) fn field(info: &str, name: &str) -> String {
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
