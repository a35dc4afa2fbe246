//! What the relay's user may not do, found by trying, with nothing left behind.

use redis::Cmd;

use super::connect::Server;
use super::connect::code;
use super::durability::Durability;
use super::shard::{Redis, Shard};
use crate::error::{Kind, Result, Target};

/// What a user may not do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Denied {
    /// Commands, as ACL SETUSER names them.
    pub commands: Vec<&'static str>,
    /// Commands that may be run, but not on keys of the relay.
    pub keys: bool,
}

/// Commands that need no key and change nothing, or that change nothing where there is no such key: each
/// is answered, be it by another error, unless the user has no right to it. `KEY` stands for a key that
/// does not exist.
const HARMLESS: &[(&str, &str)] = &[
    ("ping", "PING"),
    ("info", "INFO server"),
    ("time", "TIME"),
    ("eval", "EVAL return(1) 1 KEY"),
    ("evalsha", "EVALSHA 0000000000000000000000000000000000000000 1 KEY"),
    ("type", "TYPE KEY"),
    ("ttl", "TTL KEY"),
    ("memory|usage", "MEMORY USAGE KEY"),
    ("scan", "SCAN 0 MATCH KEY COUNT 1"),
    ("hget", "HGET KEY id"),
    ("hmget", "HMGET KEY id"),
    ("xlen", "XLEN KEY"),
    ("xrange", "XRANGE KEY - + COUNT 1"),
    ("xrevrange", "XREVRANGE KEY + - COUNT 1"),
    ("xinfo", "XINFO STREAM KEY"),
    ("xpending", "XPENDING KEY group"),
    ("xadd", "XADD KEY NOMKSTREAM 1-1 field value"),
    ("xgroup", "XGROUP CREATE KEY group 0"),
    ("xsetid", "XSETID KEY 1-1"),
    ("xtrim", "XTRIM KEY MAXLEN 1"),
    ("xclaim", "XCLAIM KEY group consumer 0 1-1"),
    ("xack", "XACK KEY group 1-1"),
    ("rename", "RENAME KEY KEY"),
    ("expire", "EXPIRE KEY 60"),
    ("unlink", "UNLINK KEY"),
];

/// Commands that make the key; it expires, and is removed behind them.
const MAKING: &[(&str, &str)] = &[
    ("hsetnx", "HSETNX KEY id 1"),
    ("expire", "EXPIRE KEY 60"),
    ("hset", "HSET KEY id 1"),
    ("hincrby", "HINCRBY KEY count 1"),
    ("unlink", "UNLINK KEY"),
];

/// What a review asks besides.
const OF_REVIEW: &[(&str, &str)] = &[
    ("object|idletime", "OBJECT IDLETIME KEY"),
    ("object|refcount", "OBJECT REFCOUNT KEY"),
    ("llen", "LLEN KEY"),
];

/// What a node of a cluster is asked besides.
const IN_CLUSTER: &[(&str, &str)] = &[("cluster|slots", "CLUSTER SLOTS"), ("asking", "ASKING")];

/// The rights of a user that may do what the program needs and nothing else, as ACL SETUSER takes them: the
/// keys that begin with `prefix`, and these commands. A URL with a database other than 0 needs `+select`
/// besides, and a cluster what [`rights_in_cluster`] says.
pub fn rights(prefix: &str) -> String {
    let mut commands: Vec<&str> = HARMLESS.iter().chain(MAKING).map(|(name, _)| *name).collect();
    let mut seen = std::collections::HashSet::new();
    commands.retain(|name| seen.insert(*name));
    format!("~{prefix}* resetchannels -@all +{}", commands.join(" +"))
}

/// What such a user needs besides on each node of a cluster.
pub fn rights_in_cluster() -> String {
    let names: Vec<String> = IN_CLUSTER.iter().map(|(name, _)| format!("+{name}")).collect();
    names.join(" ")
}

/// What a user needs besides for a review, on keys of any name.
pub fn rights_of_review() -> String {
    let names: Vec<String> = OF_REVIEW.iter().map(|(name, _)| format!("+{name}")).collect();
    names.join(" ")
}

impl Server {
    /// Whether this connection may do what a review needs, on keys of any name.
    ///
    /// # Errors
    /// `Refused` with what is missing and the command that gives it; any error of the connection.
    pub async fn check_rights_of_review(&self, redis: &Redis) -> Result<()> {
        let asks = |(name, _): &&(&str, &str)| {
            ["ping", "info", "eval", "evalsha", "type", "ttl", "memory|usage", "scan", "xinfo"]
                .contains(name)
                || ["xpending", "xgroup", "unlink"].contains(name)
        };
        let mut probes: Vec<(&'static str, &str)> = HARMLESS.iter().filter(asks).copied().collect();
        probes.extend(OF_REVIEW);
        let mut denied = Denied::default();
        for shard in redis.primaries() {
            let key = format!("outbox:doctor:{}", uuid::Uuid::new_v4());
            redis.probe_key(shard, &key, &probes, &mut denied).await?;
        }
        self.refuse_denied(&denied, "")
    }

    /// Whether this connection may do what the relay needs, as far as that can be seen without making a key.
    ///
    /// # Errors
    /// `Refused` with what is missing and the command that gives it; any error of the connection.
    pub async fn check_rights(&self, redis: &Redis) -> Result<()> {
        let denied = redis.denied().await?;
        self.refuse_denied(&denied, self.prefix())
    }

    fn refuse_denied(&self, denied: &Denied, prefix: &str) -> Result<()> {
        let mut missing: Vec<String> =
            denied.commands.iter().map(|name| format!("+{name}")).collect();
        if denied.keys {
            missing.push(format!("~{prefix}*"));
        }
        if missing.is_empty() {
            return Ok(());
        }
        let (user, missing) = (self.user(), missing.join(" "));
        Err(Target::Redis.error(
            Kind::Refused,
            format!(
                "user {user} of Redis lacks rights; give it them: ACL SETUSER {user} {missing}"
            ),
        ))
    }
}

impl Redis {
    /// What this user may not do of what the program needs, as far as that can be seen without making a
    /// key.
    ///
    /// # Errors
    /// Any error of the connection.
    pub async fn denied(&self) -> Result<Denied> {
        let mut denied = Denied::default();
        let waits: &[_] = match self.durability {
            Durability::Memory => &[],
            Durability::Replicas(_) => &[("wait", "WAIT 0 1")],
            Durability::Disk => &[("waitaof", "WAITAOF 0 0 1")],
        };
        let of_cluster = if self.cluster.is_some() { IN_CLUSTER } else { &[] };
        // Each server has users of its own.
        for shard in self.shards() {
            for probes in [HARMLESS, of_cluster, waits] {
                self.probe(shard, probes, &mut denied).await?;
            }
        }
        Ok(denied)
    }

    /// As [`Redis::denied`], of what needs a key to be made, which is removed again.
    ///
    /// # Errors
    /// Any error of the connection.
    pub async fn denied_making(&self, denied: &mut Denied) -> Result<()> {
        // What could not be removed is not made.
        if denied.commands.contains(&"unlink") || denied.keys {
            return Ok(());
        }
        for shard in self.shards() {
            self.probe(shard, MAKING, denied).await?;
        }
        Ok(())
    }

    async fn probe(
        &self,
        shard: Shard,
        probes: &[(&'static str, &str)],
        denied: &mut Denied,
    ) -> Result<()> {
        let key = self.own_key(&format!("outbox:doctor:{}", uuid::Uuid::new_v4()), shard);
        self.probe_key(shard, &key, probes, denied).await
    }

    async fn probe_key(
        &self,
        shard: Shard,
        key: &str,
        probes: &[(&'static str, &str)],
        denied: &mut Denied,
    ) -> Result<()> {
        let commands = probes.iter().map(|(_, words)| {
            let mut command = Cmd::new();
            for word in words.split(' ') {
                command.arg(if word == "KEY" { key } else { word });
            }
            command
        });
        let replies = self.send_to(shard, commands.collect()).await?;
        for ((name, _), reply) in probes.iter().zip(replies) {
            let Err(error) = reply else { continue };
            if code(&error) != "NOPERM" {
                continue;
            }
            // The code is the same for both; only the text tells a command from a key.
            match error.to_string().contains(" command") {
                true if !denied.commands.contains(name) => denied.commands.push(name),
                true => {}
                false => denied.keys = true,
            }
        }
        Ok(())
    }
}
