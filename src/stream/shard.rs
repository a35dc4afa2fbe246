//! A Redis as one, however many primaries it has: each command goes to the one that has its key.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{Arg, Cmd, FromRedisValue, Pipeline, RedisResult, Value};

use super::cluster::Cluster;
use super::connect::{code, in_words};
use super::durability::Durability;
use super::script::Scripts;
use crate::error::{Error, Kind, Result, Target};

/// One primary with the keys that it has: a server that stands alone is the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shard(pub(crate) usize);

/// Connections to all primaries. Clones share them: what is sent through them to one stream is executed in
/// the order of sending. After any error the owner drops it and connects anew, so that nothing sent before
/// is believed.
#[derive(Clone)]
pub struct Redis {
    pub(super) nodes: Arc<[Node]>,
    pub(super) cluster: Option<Arc<Cluster>>,
    pub(super) prefix: Arc<str>,
    pub(super) durability: Durability,
    pub(super) scripts: Arc<Scripts>,
}

/// A primary.
pub(super) struct Node {
    /// Host and port.
    pub(super) name: String,
    pub(super) connection: MultiplexedConnection,
    /// In a cluster, what the relay's own keys on it have in braces, so that they are in one of its slots;
    /// None if no key of ours is.
    pub(super) tag: Option<u32>,
    /// Tags of identity keys on it that were made while their slots were elsewhere.
    pub(super) former: Vec<u32>,
}

impl Redis {
    /// The key of a stream.
    pub fn key(&self, stream: &str) -> String {
        format!("{}{stream}", self.prefix)
    }

    /// A key of the relay's own on this primary.
    pub(super) fn own_key(&self, name: &str, shard: Shard) -> String {
        match self.cluster {
            None => self.key(name),
            Some(_) => tagged(&self.key(name), self.nodes[shard.0].tag.unwrap_or_default()),
        }
    }

    /// All primaries that have keys of ours.
    pub fn shards(&self) -> Vec<Shard> {
        let all = (0..self.nodes.len()).map(Shard);
        all.filter(|shard| self.cluster.is_none() || self.nodes[shard.0].tag.is_some()).collect()
    }

    /// All primaries, also those that have no key of ours.
    pub fn primaries(&self) -> Vec<Shard> {
        (0..self.nodes.len()).map(Shard).collect()
    }

    /// The primary that has a stream.
    pub fn shard(&self, stream: &str) -> Shard {
        match self.cluster {
            None => Shard(0),
            Some(_) => self.shard_of_key(&self.key(stream)),
        }
    }

    /// Host and port of a primary, for messages.
    pub fn shard_name(&self, shard: Shard) -> &str {
        &self.nodes[shard.0].name
    }

    fn shard_of_key(&self, key: &str) -> Shard {
        self.cluster.as_ref().map_or(Shard(0), |cluster| cluster.shard(key))
    }

    /// Sends commands, each to the primary that has its key, in one pipeline for each primary; returns each
    /// reply in its place.
    pub(super) async fn send(&self, commands: Vec<Cmd>) -> Result<Vec<RedisResult<Value>>> {
        let Some(cluster) = &self.cluster else { return self.send_to(Shard(0), commands).await };
        let count = commands.len();
        let mut parts: Vec<(Vec<usize>, Pipeline)> =
            self.nodes.iter().map(|_| (Vec::new(), pipeline(0))).collect();
        for (place, command) in commands.into_iter().enumerate() {
            let (places, part) = &mut parts[self.shard_of_key(&key_of(&command)).0];
            places.push(place);
            part.add_command(command);
        }
        let sent =
            parts.iter().zip(self.nodes.iter()).filter(|((places, _), _)| !places.is_empty());
        let answers = try_join_all(sent.map(|((places, part), node)| async move {
            let mut replies = ask(part, &node.connection).await?;
            for (reply, command) in replies.iter_mut().zip(part.cmd_iter()) {
                cluster.follow(command, reply).await?;
            }
            Ok::<_, Error>((places, replies))
        }));
        let mut all: Vec<Option<RedisResult<Value>>> = (0..count).map(|_| None).collect();
        for (places, replies) in answers.await? {
            for (place, reply) in places.iter().zip(replies) {
                all[*place] = Some(reply);
            }
        }
        let none = || Target::Redis.error(Kind::Internal, "Redis left a command unanswered");
        all.into_iter().map(|reply| reply.ok_or_else(none)).collect()
    }

    /// Sends commands to one primary, in one pipeline.
    pub(super) async fn send_to(
        &self,
        shard: Shard,
        commands: Vec<Cmd>,
    ) -> Result<Vec<RedisResult<Value>>> {
        let mut all = pipeline(commands.len());
        for command in commands {
            all.add_command(command);
        }
        ask(&all, &self.nodes[shard.0].connection).await
    }

    /// Runs one command where its key is.
    pub(super) async fn command<T: FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        self.try_command(command).await?.map_err(in_words)
    }

    /// As [`Redis::command`], with an error reply as it is.
    pub(super) async fn try_command<T: FromRedisValue>(
        &self,
        command: &Cmd,
    ) -> Result<RedisResult<T>> {
        let shard = match self.cluster {
            None => Shard(0),
            Some(_) => self.shard_of_key(&key_of(command)),
        };
        let mut reply = command.query_async(&mut self.nodes[shard.0].connection.clone()).await;
        if let Some(cluster) = &self.cluster {
            cluster.follow(command, &mut reply).await?;
        }
        Ok(reply.and_then(|reply| Ok(redis::from_redis_value(reply)?)))
    }

    /// Runs one command, without a key or with one of our own, on one primary.
    pub(super) async fn command_on<T: FromRedisValue>(
        &self,
        shard: Shard,
        command: &Cmd,
    ) -> Result<T> {
        command.query_async(&mut self.nodes[shard.0].connection.clone()).await.map_err(in_words)
    }

    /// Waits until every primary has answered something trivial, be it that it takes no writes now.
    ///
    /// # Errors
    /// Any error of a connection.
    pub async fn ping(&self) -> Result<()> {
        for shard in self.shards() {
            match self.command_on::<Value>(shard, &redis::cmd("PING")).await {
                Err(error) if error.kind() != Kind::Busy => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }

    /// Refuses to go on with slots that are elsewhere by now.
    ///
    /// # Errors
    /// `Unavailable` once a slot was found to have moved.
    pub(super) fn refuse_moved(&self) -> Result<()> {
        let moved = |cluster: &Arc<Cluster>| cluster.moved.load(Ordering::Relaxed);
        match self.cluster.as_ref().is_some_and(moved) {
            false => Ok(()),
            true => {
                let context = "Redis Cluster has moved slots to another primary; connecting anew";
                Err(Target::Redis.error(Kind::Unavailable, context))
            }
        }
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis")
    }
}

/// A key of the relay's own, in a slot that `tag` decides.
pub(super) fn tagged(key: &str, tag: u32) -> String {
    format!("{key}:{{{tag}}}")
}

/// The key that a command is about: the first one of a script, and otherwise what follows its name, or the
/// second word of that.
fn key_of(command: &Cmd) -> String {
    let words = || {
        command.args_iter().map(|word| match word {
            Arg::Simple(word) => word,
            _ => &[],
        })
    };
    let name = words().next().unwrap_or_default();
    let key = match name {
        b"XREADGROUP" => words().skip_while(|word| *word != b"STREAMS").nth(1),
        b"XGROUP" | b"MEMORY" | b"OBJECT" => words().nth(2),
        _ if name.starts_with(b"EVAL") => words().nth(3),
        _ => words().nth(1),
    };
    String::from_utf8_lossy(key.unwrap_or_default()).into_owned()
}

fn pipeline(capacity: usize) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(capacity);
    pipeline.ignore_errors();
    pipeline
}

async fn ask(
    pipeline: &Pipeline,
    connection: &MultiplexedConnection,
) -> Result<Vec<RedisResult<Value>>> {
    match pipeline.is_empty() {
        true => Ok(Vec::new()),
        false => pipeline.query_async(&mut connection.clone()).await.map_err(in_words),
    }
}

/// The code of an error reply.
pub(super) fn code_of<T>(reply: &RedisResult<T>) -> &str {
    reply.as_ref().err().map_or("", code)
}
