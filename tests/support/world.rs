//! A private Postgres and a private Redis with the schema and the roles of a real installation.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use outbox_relay::outbox::{Database, Grants, migrate};
use outbox_relay::sandbox::{Postgres, PostgresOptions, Redis, RedisOptions};
use outbox_relay::stream::rights;
use redis::aio::MultiplexedConnection;
use tokio_postgres::{Client, NoTls};

use super::cluster::Cluster;
use super::journal::Journal;
use super::relay::{Relay, program};
use super::{journal, nodes, proxy::Proxy};

/// Role of applications in tests.
pub(crate) const APPLICATION: &str = "shop";
/// Role of the relay in tests.
pub(crate) const RELAY: &str = "relay";
/// Role of workers in tests.
pub(crate) const WORKER: &str = "worker";

/// The user of the relay, with any password, as `redis.conf` has it.
pub(crate) fn relay_in_redis() -> String {
    format!("{RELAY} on nopass {}", rights(""))
}

/// Everything that a test needs; stops and removes all of it when dropped.
pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    /// Takes the place of `redis` where it is given.
    pub(crate) cluster: Option<Cluster>,
    pub(crate) journal: Arc<Journal>,
    pub(crate) folder: tempfile::TempDir,
}

impl World {
    /// Both servers, the schema, and the three roles with the rights that `migrate` grants.
    pub(crate) async fn new() -> Self {
        Self::with(PostgresOptions::default(), RedisOptions::default()).await
    }

    pub(crate) async fn with(postgres: PostgresOptions, redis: RedisOptions) -> Self {
        let world = Self::bare(postgres, redis);
        for role in [APPLICATION, RELAY, WORKER] {
            world.sql(&format!("create role {role} login")).await;
        }
        let database = Database::from_url(&world.postgres.url()).unwrap();
        let grants = Grants {
            applications: vec![APPLICATION.into()],
            relays: vec![RELAY.into()],
            workers: vec![WORKER.into()],
        };
        migrate(&database, &grants).await.unwrap();
        world
    }

    /// With a Redis Cluster of three primaries, each with so many replicas.
    pub(crate) async fn with_cluster(replicas: usize) -> Self {
        let cluster = Some(Cluster::start(3, replicas).await);
        Self { cluster, ..Self::new().await }
    }

    /// Both servers and nothing in them.
    pub(crate) fn bare(postgres: PostgresOptions, redis: RedisOptions) -> Self {
        Self {
            postgres: Self::postgres(postgres),
            redis: Redis::start(redis.with("user", &relay_in_redis())).unwrap(),
            cluster: None,
            journal: Arc::default(),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// A private Postgres, copied from one that all tests share.
    pub(crate) fn postgres(mut options: PostgresOptions) -> Postgres {
        options.template = Some(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("postgres"));
        Postgres::start(options).unwrap()
    }

    /// A connection as the owner of everything.
    pub(crate) async fn owner(&self) -> Client {
        connect(&self.postgres.url()).await
    }

    /// A connection with the rights of an application.
    pub(crate) async fn application(&self) -> Client {
        connect(&self.postgres.url_of("postgres", APPLICATION)).await
    }

    /// Runs statements as the owner.
    pub(crate) async fn sql(&self, statements: &str) {
        self.owner().await.batch_execute(statements).await.unwrap();
    }

    /// A connection to Redis that waits as long as a test does.
    pub(crate) async fn streams(&self) -> MultiplexedConnection {
        let config = redis::AsyncConnectionConfig::new()
            .set_response_timeout(Some(Duration::from_secs(30)))
            .set_connection_timeout(Some(Duration::from_secs(30)));
        let client = redis::Client::open(self.redis.url()).unwrap();
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    /// As [`World::streams`], to the server that has this key.
    pub(crate) async fn streams_with(&self, key: &str) -> MultiplexedConnection {
        match &self.cluster {
            None => self.streams().await,
            Some(cluster) => nodes::connect(&cluster.nodes[cluster.owner(key).await]).await,
        }
    }

    /// Runs one command of Redis, where its key is, and returns its reply.
    pub(crate) async fn redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let at = if matches!(words[0], "XGROUP" | "XINFO") { 2 } else { 1 };
        let mut connection = self.streams_with(words.get(at).copied().unwrap_or_default()).await;
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]).query_async(&mut connection).await.unwrap()
    }

    /// The variables of a relay with short times, and then `more`.
    pub(crate) fn variables<'a>(
        &'a self,
        urls: &'a (String, String),
        more: &[(&'a str, &'a str)],
    ) -> Vec<(&'a str, &'a str)> {
        let mut variables = vec![
            ("DATABASE_URL", urls.0.as_str()),
            ("REDIS_URL", urls.1.as_str()),
            ("OUTBOX_AUDIT", "500ms"),
            ("OUTBOX_LEASE", "2s"),
        ];
        variables.extend_from_slice(more);
        variables
    }

    /// Where the relay finds the servers.
    pub(crate) fn urls(&self) -> (String, String) {
        let redis = match &self.cluster {
            None => self.redis_url(self.redis.port()),
            Some(cluster) => cluster.url(),
        };
        (self.postgres.url_of("postgres", RELAY), redis)
    }

    /// Redis on this port, as a user that has the relay's rights and no others.
    pub(crate) fn redis_url(&self, port: u16) -> String {
        format!("redis://{RELAY}:any@127.0.0.1:{port}/")
    }

    /// Starts a relay with the rights of its role.
    pub(crate) fn relay(&self, name: &str, more: &[(&str, &str)]) -> Relay {
        let urls = self.urls();
        Relay::start(self.folder.path(), name, &self.variables(&urls, more))
    }

    /// Starts a relay that reaches Redis through `proxy`.
    pub(crate) fn relay_through(&self, name: &str, proxy: &Proxy, more: &[(&str, &str)]) -> Relay {
        let urls = (self.urls().0, self.redis_url(proxy.port()));
        Relay::start(self.folder.path(), name, &self.variables(&urls, more))
    }

    /// Waits until every committed row is in Redis and marked, at most a minute.
    pub(crate) async fn settled(&self) {
        let begun = Instant::now();
        while !self.is_settled().await {
            if begun.elapsed() > Duration::from_secs(60) {
                panic!(
                    "not every committed row is dispatched within a minute:\n{}",
                    self.situation().await
                );
            }
            super::pause().await;
        }
    }

    async fn is_settled(&self) -> bool {
        let sql = "select (select count(*) from outbox.pending) \
                   + (select count(*) from outbox.batch where dispatched_at is null) \
                   + (select count(*) from outbox.stream where state <> 'active')";
        let row = self.owner().await.query_one(sql, &[]).await;
        row.is_ok_and(|row| row.get::<_, i64>(0) == 0)
    }

    /// What the views and the server say, for a test that cannot go on.
    async fn situation(&self) -> String {
        let client = self.owner().await;
        let mut status = String::new();
        for view in [
            "select s::text from outbox.stream_status s",
            "select count(*)::text || ' rows pending' from outbox.pending",
            "select concat_ws(' ', application_name, state, wait_event, query_start, left(query, 60)) \
             from pg_stat_activity where application_name like 'outbox-relay%'",
        ] {
            for row in client.query(view, &[]).await.unwrap() {
                status.push_str(row.get(0));
                status.push('\n');
            }
        }
        status
    }

    /// Waits until all is settled, then checks streams, log and journal against each other, and
    /// that `verify` sees no difference either.
    pub(crate) async fn reconcile(&self) {
        self.settled().await;
        journal::check(self).await;
        let output = std::process::Command::new(program())
            .args(["verify", "--json"])
            .env("DATABASE_URL", self.urls().0)
            .env("REDIS_URL", self.urls().1)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    }
}

/// Whether the Redis of the tests is at least of this version; if not, says which test is left out, and why.
pub(crate) fn redis_is_at_least(version: (u32, u32), for_want_of: &str) -> bool {
    let redis = Redis::start(RedisOptions::default()).unwrap();
    let said = std::process::Command::new(redis.program()).arg("--version").output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    let mut parts = said.split_once("v=").unwrap().1.split(['.', ' ']);
    let mut number = || parts.next().unwrap().parse::<u32>().unwrap();
    let found = (number(), number());
    if found < version {
        let test = std::thread::current().name().unwrap_or_default().to_owned();
        let line = format!("SKIPPED {test}: Redis {}.{} has no {for_want_of}\n", found.0, found.1);
        // Not by a macro: those are kept from sight where the test passes.
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    found >= version
}

/// A connection whose driver ends with it.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}
