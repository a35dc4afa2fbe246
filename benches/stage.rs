//! The servers that a measure starts, and the relay that it measures.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use outbox_relay::outbox::{Database, Grants, migrate};
use outbox_relay::sandbox::{Postgres, PostgresOptions, Redis, RedisOptions};
use redis::aio::MultiplexedConnection;
use rustix::process::{Pid, Signal, kill_process};
use tokio_postgres::{Client, NoTls};

/// Private servers with an empty outbox. Postgres waits for the disk, as where it matters.
pub(crate) struct Stage {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    /// Their versions.
    pub(crate) servers: String,
    folder: tempfile::TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let options = PostgresOptions { fsync: true, ..PostgresOptions::default() }
            .with("shared_buffers", "1GB")
            .with("max_wal_size", "8GB")
            .with("checkpoint_timeout", "60min")
            .with("max_connections", "200");
        let postgres = Postgres::start(options).unwrap();
        let redis = Redis::start(RedisOptions::default()).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut stage = Self { postgres, redis, servers: String::new(), folder };
        stage.servers = stage.versions().await;
        stage.migrate().await;
        stage
    }

    async fn versions(&self) -> String {
        let row = self.client().await.query_one("show server_version", &[]).await.unwrap();
        let postgres: &str = row.get(0);
        let info: String = self.redis(&["INFO", "server"]).await;
        let redis = info.lines().find_map(|line| line.strip_prefix("redis_version:")).unwrap();
        let postgres = postgres.split_whitespace().next().unwrap();
        format!("PostgreSQL {postgres} with fsync, Redis {redis}")
    }

    async fn migrate(&self) {
        let grants = Grants::default();
        migrate(&self.database(), &grants).await.unwrap();
    }

    /// An outbox in which nothing has happened yet.
    pub(crate) async fn clear(&self) {
        let client = self.client().await;
        client.batch_execute("drop schema if exists outbox cascade").await.unwrap();
        client.batch_execute("drop schema if exists textbook cascade").await.unwrap();
        self.migrate().await;
        self.redis::<()>(&["FLUSHALL"]).await;
    }

    /// What is dirty is written now rather than while something is measured.
    pub(crate) async fn settle(&self) {
        self.client().await.batch_execute("checkpoint").await.unwrap();
    }

    pub(crate) fn database(&self) -> Database {
        Database::from_url(&self.postgres.url()).unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        let (client, connection) =
            tokio_postgres::connect(&self.postgres.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn sql(&self, statements: &str) {
        self.client().await.batch_execute(statements).await.unwrap();
    }

    pub(crate) async fn streams(&self) -> MultiplexedConnection {
        let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
        let client = redis::Client::open(self.redis.url()).unwrap();
        client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
    }

    pub(crate) async fn redis<T: redis::FromRedisValue>(&self, words: &[&str]) -> T {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        command.query_async(&mut self.streams().await).await.unwrap()
    }

    /// Entries of these streams, in all.
    pub(crate) async fn entries(
        &self,
        connection: &mut MultiplexedConnection,
        streams: &[String],
    ) -> u64 {
        let mut pipeline = redis::pipe();
        for stream in streams {
            pipeline.cmd("XLEN").arg(stream);
        }
        let lengths: Vec<u64> = pipeline.query_async(connection).await.unwrap();
        lengths.iter().sum()
    }

    /// Waits until so many entries are in Redis.
    pub(crate) async fn arrived(&self, streams: &[String], entries: u64) {
        let mut connection = self.streams().await;
        let begun = Instant::now();
        while self.entries(&mut connection, streams).await < entries {
            assert!(begun.elapsed() < Duration::from_secs(1_200), "the entries do not arrive");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until all that is in Redis is marked.
    pub(crate) async fn marked(&self) {
        let client = self.client().await;
        let sql = "select not exists (select from outbox.batch where dispatched_at is null)";
        while !client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_outbox-relay"));
        command.args(words).env_clear().env("DATABASE_URL", self.postgres.url());
        command.env("REDIS_URL", self.redis.url()).env("OUTBOX_HTTP", "127.0.0.1:0");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Starts the relay as it ships, with the settings that it has by itself and these.
    pub(crate) fn relay(&self, more: &[(&str, &str)]) -> Relay {
        let log: PathBuf = self.folder.path().join("relay.log");
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let mut command = self.command(&["run"]);
        command.envs(more.iter().copied()).stderr(log);
        let mut relay = Relay(command.spawn().unwrap());
        std::thread::sleep(Duration::from_millis(20));
        assert!(
            !relay.is_over(),
            "the relay ends at once; see what it says with the same settings"
        );
        relay
    }
}

/// A running relay; asked to stop when dropped, so that the next one need not wait for its lease to end.
pub(crate) struct Relay(Child);

impl Relay {
    /// It has ended by itself, as where a setting is wrong.
    pub(crate) fn is_over(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    /// Memory in MiB: what it holds now, and what it ever held.
    pub(crate) fn resident(&self) -> (f64, f64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.0.id())).unwrap();
        let kib = |name: &str| -> f64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1_024.0
        };
        (kib("VmRSS:"), kib("VmHWM:"))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if self.is_over() {
            return;
        }
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}
