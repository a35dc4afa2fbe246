//! Connections to Redis: how they are made, what is checked first, and errors in words.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult, Script, Value,
};

use super::address::Address;
use super::classify::{Class, classify};
use super::durability::Durability;
use crate::error::{Error, Kind, Result, Target};
use crate::secret::Secret;
use crate::tls::{self, Tls};

/// A host that does not answer is given up after this long.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Waited for an answer before the connection is dropped. A fork or a slow fsync stalls Redis for
/// seconds; the library's default of half a second would take that for a failure.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Said of a server that takes no writes because it follows another one.
pub(super) const REPLICA: &str = "this Redis is a replica; REDIS_URL must name the primary";

/// Where Redis is. Cloning is cheap; no connection is made before it is asked for.
#[derive(Clone)]
pub struct Server {
    url: Secret,
    tls: Tls,
    /// As it was at first, for messages.
    known: Address,
    prefix: Arc<str>,
    durability: Durability,
}

/// One connection. Clones share it: what is sent through them is executed in the order of sending.
/// After any error the owner drops it and connects anew, so that nothing sent before is believed.
#[derive(Clone)]
pub struct Redis {
    connection: MultiplexedConnection,
    prefix: Arc<str>,
    pub(super) durability: Durability,
    pub(super) scripts: Arc<Scripts>,
}

pub(super) struct Scripts {
    pub(super) append: Text,
    pub(super) canary: Text,
    pub(super) look: Text,
    pub(super) pend: Text,
    pub(super) position: Text,
    pub(super) rebuild: Text,
    pub(super) expiring: Text,
    pub(super) restore: Text,
    pub(super) trim: Text,
}

pub(super) struct Text {
    code: &'static str,
    hash: String,
}

/// A script with the functions that it uses before it.
macro_rules! script {
    ($($file:literal),+) => { Text::new(concat!(include_str!("place.lua"), $(include_str!($file)),+)) };
}

impl Scripts {
    fn new() -> Self {
        Self {
            append: script!("groups.lua", "append.lua"),
            canary: script!("canary.lua"),
            expiring: script!("expiring.lua"),
            look: script!("groups.lua", "look.lua"),
            pend: script!("groups.lua", "pend.lua"),
            position: script!("position.lua"),
            rebuild: script!("groups.lua", "rebuild.lua"),
            restore: script!("groups.lua", "restore.lua"),
            trim: script!("groups.lua", "trim.lua"),
        }
    }
}

impl Text {
    fn new(code: &'static str) -> Self {
        Self { code, hash: Script::new(code).get_hash().to_owned() }
    }

    /// EVALSHA or EVAL, up to where the keys begin.
    fn begin(&self, by_hash: bool) -> Cmd {
        let mut command = redis::cmd(if by_hash { "EVALSHA" } else { "EVAL" });
        command.arg(if by_hash { &self.hash } else { self.code });
        command
    }
}

impl Server {
    /// Reads a URL like `redis://user:password@host:6379/0`, or that of sentinels, like
    /// `redis+sentinel://user:password@host:26379,host:26379/primary/0`; `rediss` for TLS. One in a file is
    /// read again at each connection, as the files of `tls`. Keys begin with `prefix`.
    ///
    /// # Errors
    /// `Usage` if it cannot be read. The text never repeats the URL: it may hold a password.
    pub fn new(url: Secret, tls: Tls, prefix: &str) -> Result<Self> {
        let usage = |text: String| Error::new(Kind::Usage, text);
        let known = Address::read(&url.read().map_err(usage)?, &tls).map_err(usage)?;
        let durability = Durability::default();
        Ok(Self { url, tls, known, prefix: prefix.into(), durability })
    }

    /// What was appended counts as there only once this has happened to it.
    #[must_use]
    pub fn durable(self, durability: Durability) -> Self {
        Self { durability, ..self }
    }

    /// Reads a URL as it is, without further settings.
    ///
    /// # Errors
    /// As [`Server::new`].
    pub fn from_url(url: &str, prefix: &str) -> Result<Self> {
        Self::new(url.into(), Tls::default(), prefix)
    }

    /// Host and port, for messages. Never the password.
    pub fn name(&self) -> String {
        self.known.name()
    }

    /// What every key begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The user that connects.
    pub fn user(&self) -> String {
        self.known.user().to_owned()
    }

    /// What opens connections to where the URL says now.
    async fn client(&self) -> Result<Client> {
        let found = match self.url.read().and_then(|url| Address::read(&url, &self.tls)) {
            Ok(Address::Server(client)) => Ok(client),
            Ok(Address::Sentinels(sentinels)) => sentinels.primary().await,
            Err(why) => Err(why),
        };
        found.map_err(|why| {
            let context = format!("cannot connect to Redis at {}: {why}", self.name());
            Target::Redis.error(Kind::Unavailable, context)
        })
    }

    /// Opens a connection.
    ///
    /// # Errors
    /// `Refused` if the server answered and a person must act, `Unavailable` otherwise.
    pub async fn connect(&self) -> Result<Redis> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let client = self.client().await?;
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connection = connecting.await.map_err(|error| self.connect_error(error))?;
        // A server that wants a password says so only at the first command.
        let greeting = redis::cmd("PING");
        match greeting.query_async::<Value>(&mut connection.clone()).await {
            // A server that takes no writes refuses even this, and can be read all the same.
            Err(error) if classify(code(&error)) != Class::BackOff => {
                return Err(self.connect_error(error));
            }
            _ => {}
        }
        let scripts = Arc::new(Scripts::new());
        let (prefix, durability) = (self.prefix.clone(), self.durability);
        let redis = Redis { connection, prefix, durability, scripts };
        if matches!(self.known, Address::Sentinels(_)) && !redis.is_primary().await? {
            let context = format!(
                "the server that the sentinels of Redis at {} name is not the primary yet",
                self.name()
            );
            return Err(Target::Redis.error(Kind::Unavailable, context));
        }
        Ok(redis)
    }

    fn connect_error(&self, error: RedisError) -> Error {
        let name = self.name();
        if let Some(why) = tls::explain(&error, Target::Redis) {
            let context = format!("cannot connect to Redis at {name}: {why}");
            return Target::Redis.error_by(Kind::Refused, context, error);
        }
        if self.known.speaks_tls() && error.is_timeout() {
            let context = format!(
                "cannot connect to Redis at {name}: it did not answer; if it speaks no TLS on this port, \
                 write redis:// in REDIS_URL"
            );
            return Target::Redis.error_by(Kind::Unavailable, context, error);
        }
        let refused = error.kind() == ErrorKind::AuthenticationFailed
            || classify(code(&error)) == Class::Operator;
        if refused {
            let context =
                format!("Redis at {name} does not let us in; check user and password in REDIS_URL");
            return Target::Redis.error_by(Kind::Refused, context, error);
        }
        Target::Redis.error_by(
            Kind::Unavailable,
            format!("cannot connect to Redis at {name}"),
            error,
        )
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.name())
    }
}

impl std::fmt::Debug for Redis {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Redis")
    }
}

impl Redis {
    /// The key of a stream.
    pub fn key(&self, stream: &str) -> String {
        format!("{}{stream}", self.prefix)
    }

    pub(super) fn connection(&self) -> MultiplexedConnection {
        self.connection.clone()
    }

    /// Runs a script `count` times in one pipeline, with what `arguments` adds each time, and
    /// returns each reply; an error reply is an `Err` in its place.
    ///
    /// Where the server does not have the script, as after SCRIPT FLUSH or a restart, all calls are
    /// sent again with its text: a script must tolerate that those of its calls that were executed
    /// are executed twice.
    pub(super) async fn run(
        &self,
        script: &Text,
        count: usize,
        arguments: impl Fn(&mut Cmd, usize),
    ) -> Result<Vec<RedisResult<Value>>> {
        if count == 0 {
            return Ok(Vec::new());
        }
        let mut by_hash = true;
        loop {
            let mut pipeline = Pipeline::with_capacity(count);
            pipeline.ignore_errors();
            for index in 0..count {
                let mut command = script.begin(by_hash);
                arguments(&mut command, index);
                pipeline.add_command(command);
            }
            let replies: Vec<RedisResult<Value>> =
                pipeline.query_async(&mut self.connection()).await.map_err(in_words)?;
            let missing = |reply: &RedisResult<Value>| {
                let error = reply.as_ref().err();
                error.is_some_and(|error| classify(code(error)) == Class::NoScript)
            };
            if !by_hash || !replies.iter().any(missing) {
                return Ok(replies);
            }
            by_hash = false;
        }
    }

    /// Runs one command.
    pub(super) async fn command<T: redis::FromRedisValue>(&self, command: &Cmd) -> Result<T> {
        command.query_async(&mut self.connection()).await.map_err(in_words)
    }

    /// Waits until the server has answered something trivial, be it that it takes no writes now.
    ///
    /// # Errors
    /// Any error of the connection.
    pub async fn ping(&self) -> Result<()> {
        match self.command::<Value>(&redis::cmd("PING")).await {
            Err(error) if error.kind() != Kind::Busy => Err(error),
            _ => Ok(()),
        }
    }
}

/// The code of an error reply, or an empty text for errors that are no reply.
pub(super) fn code(error: &RedisError) -> &str {
    error.code().unwrap_or_default()
}

/// What a failed command means.
pub(super) fn in_words(error: RedisError) -> Error {
    match (classify(code(&error)), code(&error)) {
        (Class::Operator, "NOPERM") => {
            let context =
                "Redis refuses a right; give the relay's user the commands and keys it needs";
            Target::Redis.error_by(Kind::Refused, context, error)
        }
        (Class::Operator, _) => Target::Redis.error_by(Kind::Refused, "Redis refuses", error),
        (Class::BackOff, _) => {
            Target::Redis.error_by(Kind::Busy, "Redis cannot do this now", error)
        }
        (_, "") => Target::Redis.error_by(Kind::Unavailable, "lost the connection to Redis", error),
        (_, "READONLY") => Target::Redis.error_by(Kind::Unavailable, REPLICA, error),
        _ => Target::Redis.error_by(Kind::Unavailable, "Redis cannot serve now", error),
    }
}
