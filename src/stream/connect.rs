//! Connections to Redis: how they are made, what is checked first, and errors in words.

use std::sync::Arc;
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionInfo, ErrorKind, RedisError, Value};

use super::address::{Address, at, client, host, place};
use super::classify::{Class, classify};
use super::cluster::Cluster;
use super::durability::Durability;
use super::identity::field;
use super::script::Scripts;
use super::shard::{Node, Redis};
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

impl Server {
    /// Reads a URL like `redis://user:password@host:6379/0`, or of nodes of a cluster, like
    /// `redis+cluster://user:password@host:6379,host:6379`, or of sentinels, like
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

    /// The word that a person gives to say that it is this one: host and port as the URL has them, all nodes
    /// of a cluster with commas between, or the name of the primary behind sentinels, an @, and all of them.
    pub fn word(&self) -> String {
        self.known.word()
    }

    /// What every key begins with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The user that connects.
    pub fn user(&self) -> String {
        self.known.user().to_owned()
    }

    /// What opens connections to where the URL says now: to one of several nodes of a cluster.
    async fn clients(&self) -> Result<Vec<Client>> {
        let found = match self.url.read().and_then(|url| Address::read(&url, &self.tls)) {
            Ok(Address::Servers(clients) | Address::Cluster(clients)) => Ok(clients),
            Ok(Address::Sentinels(sentinels)) => {
                sentinels.primary().await.map(|client| vec![client])
            }
            Err(why) => Err(why),
        };
        found.map_err(|why| {
            let context = format!("cannot connect to Redis at {}: {why}", self.name());
            Target::Redis.error(Kind::Unavailable, context)
        })
    }

    /// Opens connections to all primaries there are.
    ///
    /// # Errors
    /// `Refused` if a server answered and a person must act, `Unavailable` otherwise.
    pub async fn connect(&self) -> Result<Redis> {
        self.connect_with(true).await
    }

    /// As [`Server::connect`], for scripts of others only: in a cluster, keys of the relay's own, which take
    /// time to find, are not looked for.
    ///
    /// # Errors
    /// As [`Server::connect`].
    pub(crate) async fn connect_for_calls(&self) -> Result<Redis> {
        self.connect_with(false).await
    }

    async fn connect_with(&self, own_keys: bool) -> Result<Redis> {
        let mut failed = None;
        for client in self.clients().await? {
            match self.connect_to(&client, own_keys).await {
                Err(error) if matches!(error.kind(), Kind::Unavailable | Kind::Busy) => {
                    failed = failed.or(Some(error));
                }
                connected => return connected,
            }
        }
        let none = || Target::Redis.error(Kind::Internal, "REDIS_URL names no server");
        Err(failed.unwrap_or_else(none))
    }

    async fn connect_to(&self, client: &Client, own_keys: bool) -> Result<Redis> {
        let reach = Reach { server: self.clone(), info: client.get_connection_info().clone() };
        let connection = self.open(client).await?;
        let info = redis::cmd("INFO").query_async::<String>(&mut connection.clone()).await;
        let is_cluster = matches!(self.known, Address::Cluster(_));
        let info = match info {
            // Another node may have time.
            Err(error) if is_cluster && classify(code(&error)) == Class::BackOff => {
                return Err(in_words(error));
            }
            // Who asks for what it cannot do finds out.
            Err(error) if matches!(classify(code(&error)), Class::BackOff | Class::Operator) => {
                String::new()
            }
            info => info.map_err(in_words)?,
        };
        self.refuse_role(&info)?;
        let says_so = field(&info, "cluster_enabled") == "1" || is_cluster && info.is_empty();
        let (nodes, cluster) = if says_so {
            let (cluster, nodes) =
                Cluster::join(reach, connection, own_keys.then_some(&*self.prefix)).await?;
            (nodes, Some(Arc::new(cluster)))
        } else {
            let name = place(&reach.info);
            (vec![Node { name, connection, tag: None, former: Vec::new() }], None)
        };
        let scripts = Arc::new(Scripts::new());
        let (prefix, durability) = (self.prefix.clone(), self.durability);
        Ok(Redis { nodes: nodes.into(), cluster, prefix, durability, scripts })
    }

    /// Refuses a server that is not what the URL says.
    fn refuse_role(&self, info: &str) -> Result<()> {
        let name = self.name();
        match &self.known {
            // It did not say.
            _ if info.is_empty() => Ok(()),
            Address::Sentinels(_) if field(info, "role") != "master" => {
                let context = format!(
                    "the server that the sentinels of Redis at {name} name is not the primary yet"
                );
                Err(Target::Redis.error(Kind::Unavailable, context))
            }
            Address::Cluster(_) if field(info, "cluster_enabled") != "1" => {
                let context = format!(
                    "Redis at {name} is no Redis Cluster; write redis:// in REDIS_URL, with one server"
                );
                Err(Target::Redis.error(Kind::Refused, context))
            }
            _ => Ok(()),
        }
    }

    /// Opens a connection to one server.
    async fn open(&self, client: &Client) -> Result<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT));
        let connecting = client.get_multiplexed_async_connection_with_config(&config);
        let connection = connecting.await.map_err(|error| self.connect_error(client, error))?;
        // A server that wants a password says so only at the first command.
        let greeting = redis::cmd("PING");
        match greeting.query_async::<Value>(&mut connection.clone()).await {
            // A server that takes no writes refuses even this, and can be read all the same.
            Err(error) if classify(code(&error)) != Class::BackOff => {
                Err(self.connect_error(client, error))
            }
            _ => Ok(connection),
        }
    }

    fn connect_error(&self, client: &Client, error: RedisError) -> Error {
        let name = match &self.known {
            Address::Sentinels(_) => self.name(),
            _ => place(client.get_connection_info()),
        };
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
        if error.to_string().contains("SELECT is not allowed in cluster mode") {
            let context = format!(
                "Redis at {name} is a Redis Cluster, which has database 0 only; REDIS_URL names another one"
            );
            return Target::Redis.error_by(Kind::Refused, context, error);
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

/// How to connect to other nodes of the same cluster.
pub(super) struct Reach {
    server: Server,
    info: ConnectionInfo,
}

impl Reach {
    /// Host and port of the node that was reached.
    pub(super) fn name(&self) -> String {
        place(&self.info)
    }

    /// Opens a connection to another node; an empty host is that of the node that was reached. Returns its
    /// name as well.
    ///
    /// # Errors
    /// As [`Server::connect`].
    pub(super) async fn open(
        &self,
        there: &str,
        port: u16,
    ) -> Result<(String, MultiplexedConnection)> {
        let there = if there.is_empty() { host(&self.info) } else { there.to_owned() };
        let info = at(&self.info, there, port);
        let client = client(info, &self.server.tls).map_err(|why| {
            let context = format!("cannot connect to Redis at {}: {why}", self.name());
            Target::Redis.error(Kind::Unavailable, context)
        })?;
        let connection = self.server.open(&client).await?;
        Ok((place(client.get_connection_info()), connection))
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
                "Redis refuses a right; give the user that connects the commands and keys it needs";
            Target::Redis.error_by(Kind::Refused, context, error)
        }
        (Class::Operator, _) => Target::Redis.error_by(Kind::Refused, "Redis refuses", error),
        (Class::BackOff, _) => {
            Target::Redis.error_by(Kind::Busy, "Redis cannot do this now", error)
        }
        (_, "") => Target::Redis.error_by(Kind::Unavailable, "lost the connection to Redis", error),
        (_, "CLUSTERDOWN") => {
            let context = "Redis Cluster cannot serve now: a slot has no primary that works";
            Target::Redis.error_by(Kind::Unavailable, context, error)
        }
        (_, "READONLY") => Target::Redis.error_by(Kind::Unavailable, REPLICA, error),
        _ => Target::Redis.error_by(Kind::Unavailable, "Redis cannot serve now", error),
    }
}
