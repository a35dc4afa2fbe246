//! What a Redis server says of itself: for a doctor.

use redis::cmd;

use super::identity::field;
use super::shard::{Redis, Shard};
use crate::error::Result;

/// A Redis server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// Host and port.
    pub name: String,
    /// Its version; of Valkey, the version of Redis that it can stand for.
    pub version: String,
    /// It takes writes: it follows no other server.
    pub primary: bool,
    /// What it does when memory is short.
    pub policy: String,
    /// Bytes that it may use; 0 for as many as there are.
    pub limit: u64,
    /// Bytes that it uses.
    pub used: u64,
    /// Keys that it has, in all of its databases.
    pub keys: u64,
    /// It keeps an append-only file.
    pub appends: bool,
    /// It writes snapshots by itself; None if this user may not know.
    pub saves: Option<bool>,
    /// When the append-only file reaches the disk; None if this user may not know.
    pub appendfsync: Option<String>,
    /// The last snapshot could be written.
    pub saved: bool,
    /// The append-only file could be written.
    pub appended: bool,
}

impl Redis {
    /// What each primary says of itself.
    ///
    /// # Errors
    /// Any error of a connection or of INFO.
    pub async fn instances(&self) -> Result<Vec<Instance>> {
        let mut instances = Vec::new();
        for shard in self.shards() {
            instances.push(self.instance(shard).await?);
        }
        Ok(instances)
    }

    async fn instance(&self, shard: Shard) -> Result<Instance> {
        let info = self.info(shard).await?;
        let number = |name: &str| field(&info, name).parse().unwrap_or_default();
        Ok(Instance {
            name: self.shard_name(shard).to_owned(),
            version: field(&info, "redis_version"),
            primary: field(&info, "role") == "master",
            policy: field(&info, "maxmemory_policy"),
            limit: number("maxmemory"),
            used: number("used_memory"),
            keys: info.lines().filter_map(keys_of).sum(),
            appends: field(&info, "aof_enabled") == "1",
            saves: self.setting(shard, "save").await.map(|save| !save.is_empty()),
            appendfsync: self.setting(shard, "appendfsync").await,
            saved: field(&info, "rdb_last_bgsave_status") != "err",
            appended: field(&info, "aof_last_write_status") != "err",
        })
    }

    /// A setting of the server. A user need not have the right to ask, and many services forbid it.
    async fn setting(&self, shard: Shard, name: &str) -> Option<String> {
        let asked = cmd("CONFIG").arg("GET").arg(name).to_owned();
        let found: Vec<String> = self.command_on(shard, &asked).await.ok()?;
        found.into_iter().nth(1)
    }
}

/// Keys of a database, as INFO lists it: `db0:keys=2,expires=0`.
fn keys_of(line: &str) -> Option<u64> {
    let (_, rest) = line.strip_prefix("db")?.split_once(":keys=")?;
    rest.split(',').next()?.parse().ok()
}

impl Instance {
    /// Whether its version is at least this.
    pub fn is_at_least(&self, major: u32, minor: u32) -> bool {
        let mut parts = self.version.split('.').map(|part| part.parse().unwrap_or_default());
        (parts.next().unwrap_or(0), parts.next().unwrap_or(0)) >= (major, minor)
    }
}
