//! What the tests of workers work on: orders, and what was done about them.

use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outbox_relay::error::Result;
use outbox_relay::worker::{
    Database, Event, Failure, Handler, Outcome, Server, Settings, Transaction, Worker,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::support::eventually;
use crate::support::relay::Relay;
use crate::support::world::{WORKER, World};

pub(super) const BOUND: Duration = Duration::from_secs(60);
pub(super) const GROUP: &str = "receipts";
/// Held by a test while handlers that are told to wait do so.
pub(super) const GATE: &str = "7";

const SCHEMA: &str = "
    create schema work;
    create table work.orders (id bigint primary key, times integer not null default 0);
    -- One row for each event that was done, in the order in which that was.
    create table work.receipts (
        number bigint generated always as identity, event_id uuid primary key, order_id bigint not null,
        step bigint not null);
    grant usage on schema work to worker;
    grant select, insert, update on all tables in schema work to worker;";

/// Orders, a relay, and workers.
pub(super) struct Shop {
    pub(super) world: World,
    pub(super) relay: Relay,
}

/// Does what the payload of an event says.
#[derive(Clone, Default)]
pub(super) struct Receipts {
    pub(super) outcomes: Arc<Mutex<Vec<(Uuid, Outcome)>>>,
}

/// A worker in this process.
pub(super) struct Running {
    pub(super) outcomes: Arc<Mutex<Vec<(Uuid, Outcome)>>>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

/// A worker in a process of its own.
pub(super) struct Process(Child);

#[derive(serde::Deserialize)]
pub(super) struct Order {
    order: i64,
    step: i64,
    #[serde(rename = "do")]
    action: String,
}

impl Handler for Receipts {
    type Record = Order;

    async fn read(
        &self,
        event: &Event,
        transaction: &mut Transaction<'_>,
    ) -> Result<Option<Order>, Failure> {
        let order: Order = event.payload()?;
        let sql = "select from work.orders where id = $1 for update";
        Ok(transaction.query_opt(sql, &[&order.order]).await?.map(|_| order))
    }

    async fn act(
        &self,
        event: &Event,
        order: Order,
        transaction: &mut Transaction<'_>,
    ) -> Result<(), Failure> {
        let counted = "update work.orders set times = times + 1 where id = $1";
        transaction.execute(counted, &[&order.order]).await?;
        let noted = "insert into work.receipts (event_id, order_id, step) values ($1, $2, $3)";
        transaction.execute(noted, &[&event.id, &order.order, &order.step]).await?;
        match order.action.split_once(' ').unwrap_or((&order.action, "")) {
            ("fail", "") => Err("the printer is on fire".into()),
            ("fail", times) if event.attempt <= times.parse::<u64>()? => Err("out of paper".into()),
            ("fail_then_sleep", _) if event.attempt == 1 => Err("out of paper".into()),
            ("fail_then_sleep", _) => {
                Ok(transaction.batch_execute("select pg_sleep(0.05)").await?)
            }
            ("swallow", _) => {
                let _ = transaction.batch_execute("select 1 / 0").await;
                Ok(())
            }
            ("end", how) => Ok(transaction.batch_execute(how).await?),
            ("refuse", _) => Err(Failure::for_good("no such customer")),
            ("panic", _) => panic!("the handler has a bug"),
            ("hang", _) => std::future::pending().await,
            ("sleep", seconds) => {
                let sql = "select pg_sleep($1)";
                Ok(transaction.execute(sql, &[&seconds.parse::<f64>()?]).await.map(drop)?)
            }
            ("die", _) => {
                transaction.batch_execute("select pg_sleep(0.3)").await?;
                std::process::abort()
            }
            ("wait", _) => {
                let sql = format!("select pg_advisory_xact_lock_shared({GATE})");
                Ok(transaction.batch_execute(&sql).await?)
            }
            _ => Ok(()),
        }
    }

    fn ended(&self, event: &Event, outcome: &Outcome) {
        self.outcomes.lock().unwrap().push((event.id, outcome.clone()));
    }
}

impl Shop {
    pub(super) async fn open() -> Self {
        Self::open_with(World::new().await).await
    }

    pub(super) async fn open_with(world: World) -> Self {
        Self::open_with_checkpoints(world, "100ms").await
    }

    pub(super) async fn open_with_checkpoints(world: World, every: &str) -> Self {
        world.sql(SCHEMA).await;
        let relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", every)]);
        relay.logged("leading with token").await;
        Self { world, relay }
    }

    /// Writes an event of an order, and returns it.
    pub(super) async fn order(&self, order: i64, step: i64, action: &str) -> Uuid {
        self.write("orders", order, step, action).await
    }

    pub(super) async fn write(&self, stream: &str, order: i64, step: i64, action: &str) -> Uuid {
        let payload = format!(r#"{{"order": {order}, "step": {step}, "do": "{action}"}}"#);
        let client = self.world.owner().await;
        let sql = "insert into work.orders (id) values ($1) on conflict do nothing";
        client.execute(sql, &[&order]).await.unwrap();
        let sql = "insert into outbox.entry (stream, key, payload) values ($1, $2, $3::text::jsonb) \
                   returning event_id";
        let row = client.query_one(sql, &[&stream, &order.to_string(), &payload]).await;
        row.unwrap().get(0)
    }

    /// Writes one event for each of these orders, in one transaction each.
    pub(super) async fn orders(&self, orders: std::ops::Range<i64>, action: &str) {
        let sql = format!(
            "insert into work.orders (id) select generate_series({0}, {1} - 1); \
             insert into outbox.entry (stream, key, payload) \
             select 'orders', n::text, jsonb_build_object('order', n, 'step', 1, 'do', '{action}') \
             from generate_series({0}, {1} - 1) n",
            orders.start, orders.end
        );
        self.world.sql(&sql).await;
    }

    /// Of a worker with short waits.
    pub(super) fn settings(&self, name: &str) -> Settings {
        Settings {
            wait: Duration::from_millis(50),
            longest_wait: Duration::from_millis(500),
            claim_after: Duration::from_secs(1),
            attempts: 3,
            ..Settings::new("orders", GROUP, name)
        }
    }

    pub(super) fn database(&self) -> Database {
        Database::from_url(&self.world.postgres.url_of("postgres", WORKER)).unwrap()
    }

    pub(super) fn server(&self) -> Server {
        let url = match &self.world.cluster {
            None => self.world.redis.url(),
            Some(cluster) => cluster.nodes[0].url(),
        };
        Server::from_url(&url, "").unwrap()
    }

    pub(super) fn start(&self, settings: Settings) -> Running {
        self.start_at(self.server(), settings)
    }

    pub(super) fn start_at(&self, server: Server, settings: Settings) -> Running {
        let handler = Receipts::default();
        let outcomes = Arc::clone(&handler.outcomes);
        let (stop, stopped) = oneshot::channel::<()>();
        let worker = Worker::new(self.database(), server, settings);
        let task = tokio::spawn(worker.run(handler, async { _ = stopped.await }));
        Running { outcomes, stop, task }
    }

    /// Starts a worker as a process of its own.
    pub(super) fn process(&self, name: &str) -> Process {
        let log = std::fs::File::create(self.world.folder.path().join(format!("{name}.log")));
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "worker::process::works_until_it_is_told_to_stop"])
            .args(["--ignored", "--nocapture"])
            .env("OUTBOX_TEST_WORKER", name)
            .env("OUTBOX_TEST_POSTGRES", self.world.postgres.url_of("postgres", WORKER))
            .env("OUTBOX_TEST_REDIS", self.world.redis.url())
            .stdout(Stdio::null())
            .stderr(log.unwrap());
        Process(command.spawn().unwrap())
    }

    pub(super) async fn number(&self, sql: &str) -> i64 {
        self.world.owner().await.query_one(sql, &[]).await.unwrap().get(0)
    }

    /// Waits until a query gives this number.
    pub(super) async fn becomes(&self, what: &str, sql: &str, wanted: i64) {
        eventually(what, BOUND, || async { self.number(sql).await == wanted }).await;
    }

    /// Waits until so many events are done.
    pub(super) async fn done(&self, events: i64) {
        let what = format!("{events} events are done");
        self.becomes(&what, "select count(*) from work.receipts", events).await;
    }

    /// Entries that the group has not acknowledged, of those that it was given.
    pub(super) async fn pending(&self) -> u64 {
        let pending: redis::RedisResult<(u64, redis::Value, redis::Value, redis::Value)> =
            redis::cmd("XPENDING")
                .arg("orders")
                .arg(GROUP)
                .query_async(&mut self.world.streams().await)
                .await;
        pending.map_or(u64::MAX, |pending| pending.0)
    }

    /// Waits until so many workers wait for new entries.
    pub(super) async fn read_by(&self, workers: usize) {
        let blocked = format!("blocked_clients:{workers}\r");
        eventually("workers read", BOUND, || async {
            self.world.redis::<String>(&["INFO", "clients"]).await.contains(&blocked)
        })
        .await;
    }

    pub(super) async fn nothing_is_pending(&self) {
        eventually("everything is acknowledged", BOUND, || async { self.pending().await == 0 })
            .await;
    }

    /// Every order was handled as often as it has events, and every event once.
    pub(super) async fn every_event_was_done_once(&self, events: i64) {
        let sql = "select count(*) from work.orders o where o.times <> \
                   (select count(*) from work.receipts r where r.order_id = o.id)";
        assert_eq!(self.number(sql).await, 0, "orders that were handled more or less often");
        assert_eq!(self.number("select count(*) from work.receipts").await, events);
        assert_eq!(self.number("select count(*) from outbox.dead_letter").await, 0);
    }

    /// A connection that keeps handlers waiting that are told to wait; until it is dropped.
    pub(super) async fn gate(&self) -> tokio_postgres::Client {
        let client = self.world.owner().await;
        client.batch_execute(&format!("select pg_advisory_lock({GATE})")).await.unwrap();
        client
    }

    /// Waits until so many handlers stand at the gate.
    pub(super) async fn waiting(&self, handlers: i64) {
        let sql = format!(
            "select count(*) from pg_locks where locktype = 'advisory' and objid = {GATE} and not granted"
        );
        self.becomes("handlers wait", &sql, handlers).await;
    }
}

impl Running {
    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        tokio::time::timeout(BOUND, self.task).await.expect("it ends in time").unwrap().unwrap();
    }

    /// As it ended, if it did by itself.
    pub(super) async fn ended(self) -> Result<()> {
        tokio::time::timeout(BOUND, self.task).await.expect("it ends in time").unwrap()
    }

    pub(super) fn outcomes_of(&self, event: Uuid) -> Vec<Outcome> {
        let outcomes = self.outcomes.lock().unwrap();
        outcomes.iter().filter(|(id, _)| *id == event).map(|(_, outcome)| outcome.clone()).collect()
    }
}

impl Process {
    pub(super) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// Waits until it has died by itself.
    pub(super) async fn dies(&mut self) {
        let begun = std::time::Instant::now();
        while self.0.try_wait().unwrap().is_none() {
            assert!(begun.elapsed() < BOUND, "the worker did not die");
            crate::support::pause().await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
