//! A consumer of a group: what it is given, what it keeps, what it acknowledges.

use std::time::Duration;

use redis::{Cmd, Value, cmd};

use super::connect::{Server, code, in_words};
use super::scan::{self, StreamEntry};
use super::script::Text;
use super::shard::Redis;
use crate::error::{Error, Kind, Result, Target};
use crate::position::Position;

/// Entries that one script looks through at most, so that nobody waits for it.
const CHUNK: usize = 500;

/// Commands that the user of a worker needs.
const COMMANDS: [&str; 10] = [
    "ping",
    "info",
    "eval",
    "evalsha",
    "xgroup",
    "xreadgroup",
    "xpending",
    "xrange",
    "xclaim",
    "xack",
];

/// The rights of a user by which workers read, as ACL SETUSER takes them: the keys that begin with `prefix`,
/// and these commands. In a cluster they need what [`rights_in_cluster`](super::rights_in_cluster) says
/// besides.
pub fn worker_rights(prefix: &str) -> String {
    format!("~{prefix}* resetchannels -@all +{}", COMMANDS.join(" +"))
}

/// IDs with fields and values, as XREADGROUP answers.
type Entries = Vec<(String, Vec<Value>)>;

/// One consumer of one group of one stream, on a connection of its own.
#[derive(Debug)]
pub struct Consumer {
    redis: Redis,
    stream: String,
    group: String,
    name: String,
}

/// An entry as a consumer was given it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The entry; without fields if somebody has removed it.
    pub entry: StreamEntry,
    /// How often it was given; 0 for one that has just been read, which is its first time.
    pub deliveries: u64,
    /// Since it was last given.
    pub idle: Duration,
}

impl Consumer {
    /// Connects, as `name` of `group`.
    ///
    /// # Errors
    /// As [`Server::connect`].
    pub async fn connect(server: &Server, stream: &str, group: &str, name: &str) -> Result<Self> {
        let redis = server.connect().await?;
        let (stream, group, name) = (stream.to_owned(), group.to_owned(), name.to_owned());
        Ok(Self { redis, stream, group, name })
    }

    /// Makes the group from the first entry on, with its stream, unless it is there.
    ///
    /// # Errors
    /// Any error of the connection or of the command.
    pub async fn make_group(&self) -> Result<()> {
        let mut command = cmd("XGROUP");
        command.arg("CREATE").arg(self.key()).arg(&self.group).arg("0").arg("MKSTREAM");
        let mut bare = cmd("XGROUP");
        bare.arg("CREATE").arg(self.key()).arg(&self.group).arg("0");
        // A stream that is there is left as it is, also where the server is short of memory.
        match self.redis.try_command::<Value>(&bare).await? {
            Ok(_) => return Ok(()),
            Err(error) if code(&error) == "BUSYGROUP" => return Ok(()),
            Err(_) => {}
        }
        match self.redis.try_command::<Value>(&command).await? {
            Err(error) if code(&error) != "BUSYGROUP" => Err(in_words(error)),
            _ => Ok(()),
        }
    }

    /// Entries that nobody in the group was given before, at most `count`; waits for some for at most
    /// `block`, which must be less than 10 s.
    ///
    /// # Errors
    /// Any error of the connection or of the command: also while Redis has lost the group.
    pub async fn read(&self, count: usize, block: Duration) -> Result<Vec<Delivery>> {
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(&self.group).arg(&self.name).arg("COUNT").arg(count);
        command.arg("BLOCK").arg(block.as_millis().max(1) as u64);
        command.arg("STREAMS").arg(self.key()).arg(">");
        let found: Option<Vec<(String, Entries)>> = self.redis.command(&command).await?;
        let entries = found.into_iter().flatten().flat_map(|(_, entries)| entries);
        entries
            .map(|(id, fields)| {
                let entry = scan::read(&id, fields)?;
                Ok(Delivery { entry, deliveries: 0, idle: Duration::ZERO })
            })
            .collect()
    }

    /// What this consumer was given after `after` and has not acknowledged, at most `count`, in order.
    ///
    /// # Errors
    /// Any error of the connection or of the script.
    pub async fn given(&self, after: Position, count: usize) -> Result<Vec<Delivery>> {
        let after = after.to_string();
        let reply = self.run(&self.redis.scripts.given, |command| {
            command.arg(&after).arg(count.min(CHUNK));
        });
        deliveries(reply.await?)
    }

    /// Takes over what other consumers of the group were given and have let lie for `idle`, at most `count`.
    ///
    /// # Errors
    /// As [`Consumer::given`].
    pub async fn claim(&self, idle: Duration, count: usize) -> Result<Vec<Delivery>> {
        let idle_ms = idle.as_millis() as u64;
        let reply = self.run(&self.redis.scripts.claim, |command| {
            command.arg(idle_ms).arg(count.min(CHUNK));
        });
        deliveries(reply.await?)
    }

    /// Counts one more attempt with an entry. Returns how often it was given with this one; None if this
    /// consumer no longer has it.
    ///
    /// # Errors
    /// As [`Consumer::given`].
    pub async fn attempt(&self, position: Position) -> Result<Option<u64>> {
        let count = self.count(position, 1).await?;
        Ok((count > 0).then_some(count))
    }

    /// Takes back one attempt that was counted and could not be made.
    ///
    /// # Errors
    /// As [`Consumer::given`].
    pub async fn spare(&self, position: Position) -> Result<()> {
        self.count(position, -1).await.map(drop)
    }

    async fn count(&self, position: Position, more: i64) -> Result<u64> {
        let id = position.to_string();
        let reply = self.run(&self.redis.scripts.attempt, |command| {
            command.arg(&id).arg(more);
        });
        redis::from_redis_value(reply.await?).map_err(|_| odd())
    }

    /// Says anew that everything this consumer was given is being worked on.
    ///
    /// # Errors
    /// As [`Consumer::given`].
    pub async fn keep(&self) -> Result<()> {
        let mut after = Position::START.to_string();
        loop {
            let reply = self.run(&self.redis.scripts.keep, |command| {
                command.arg(&after).arg(CHUNK);
            });
            let last: String = redis::from_redis_value(reply.await?).map_err(|_| odd())?;
            if last.is_empty() {
                return Ok(());
            }
            after = last;
        }
    }

    /// Whether the stream has entries, but not this group: the relay makes groups before entries, so it does
    /// not know of this one.
    ///
    /// # Errors
    /// Any error of the connection or of the command.
    pub async fn is_forgotten(&self) -> Result<bool> {
        let mut command = cmd("XPENDING");
        command.arg(self.key()).arg(&self.group);
        let gone = match self.redis.try_command::<Value>(&command).await? {
            Err(error) if code(&error) == "NOGROUP" => true,
            Err(error) => return Err(in_words(error)),
            Ok(_) => false,
        };
        let mut command = cmd("XRANGE");
        command.arg(self.key()).arg("-").arg("+").arg("COUNT").arg(1);
        Ok(gone && !self.redis.command::<Vec<Value>>(&command).await?.is_empty())
    }

    /// Acknowledges entries. Those that the group was not given, as after a loss, are passed over.
    ///
    /// # Errors
    /// Any error of the connection or of the command.
    pub async fn acknowledge(&self, positions: &[Position]) -> Result<()> {
        for chunk in positions.chunks(CHUNK) {
            let mut command = cmd("XACK");
            command.arg(self.key()).arg(&self.group);
            chunk.iter().for_each(|position| _ = command.arg(position.to_string()));
            self.redis.command::<Value>(&command).await?;
        }
        Ok(())
    }

    fn key(&self) -> String {
        self.redis.key(&self.stream)
    }

    async fn run(&self, script: &Text, more: impl Fn(&mut Cmd)) -> Result<Value> {
        let replies = self.redis.run(script, 1, |command, _| {
            command.arg(1).arg(self.key()).arg(&self.group).arg(&self.name);
            more(command);
        });
        replies.await?.pop().ok_or_else(odd)?.map_err(in_words)
    }
}

fn deliveries(reply: Value) -> Result<Vec<Delivery>> {
    let listed: Vec<(String, u64, u64, Vec<Value>)> =
        redis::from_redis_value(reply).map_err(|_| odd())?;
    listed
        .into_iter()
        .map(|(id, idle_ms, deliveries, fields)| {
            let (entry, idle) = (scan::read(&id, fields)?, Duration::from_millis(idle_ms));
            Ok(Delivery { entry, deliveries, idle })
        })
        .collect()
}

fn odd() -> Error {
    Target::Redis.error(Kind::Internal, "Redis answers a worker oddly")
}
