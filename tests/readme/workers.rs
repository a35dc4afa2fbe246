//! The workers of the README, each through whatever may happen to it.

use std::collections::HashMap;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;

use outbox_relay::sandbox::{Redis, RedisOptions};
use tokio_postgres::Client;

use super::examples::{Shell, blocks};
use super::shop::Mails;
use crate::support::command::to_the_end;
use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::relay::Relay;
use crate::support::world::{World, relay_in_redis};

const BOUND: Duration = Duration::from_secs(60);
/// Events of each trial that are about an order.
const EVENTS: i64 = 20;

/// A worker as a child; killed when dropped.
pub(super) struct Worker {
    child: Child,
    log: PathBuf,
}

impl Worker {
    pub(super) fn start(world: &World, command: &mut Command) -> Self {
        let log = world.folder.path().join("worker.log");
        let file = File::options().create(true).append(true).open(&log).unwrap();
        command.stdout(file.try_clone().unwrap()).stderr(file);
        Self { child: command.spawn().unwrap(), log }
    }

    /// What it has said.
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// SIGKILL, and waits for the end.
    pub(super) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log());
        }
    }
}

/// A worker at work.
struct Trial {
    worker: Worker,
    command: Command,
    relay: Relay,
    shell: Shell,
    /// What the worker and the relay reach Redis through.
    front: Proxy,
    /// Orders that were written of, one event each.
    written: i64,
}

impl Trial {
    /// None, with a line that says why, where the language is missing.
    async fn of(kind: &str) -> Option<Self> {
        let mut blocks = blocks().into_iter();
        let block = blocks.find(|block| block.kind == kind && block.is_worker()).unwrap();
        let shell = Shell::new(World::new().await);
        let mut command = shell.program_of(&block)?;
        let words = ["outbox-relay", "migrate", "--worker-role", "shop"];
        let granted = to_the_end(shell.command(&words, "postgres"), BOUND);
        assert_eq!(granted.code, Some(0), "{granted:#?}");
        shell.world.open_shop(500).await;
        let front = Proxy::start(address(&shell.world.redis));
        command.env("REDIS_URL", format!("redis://{}/", front.addr()));
        let worker = Worker::start(&shell.world, &mut command);
        loses_its_group(&shell.world).await;
        let relay = shell.world.relay_through("relay", &front, &[]);
        let mut trial = Self { worker, command, relay, shell, front, written: 0 };
        trial.write().await;
        trial.ends().await;
        Some(trial)
    }

    fn world(&self) -> &World {
        &self.shell.world
    }

    fn start(&mut self) {
        self.worker = Worker::start(&self.shell.world, &mut self.command);
    }

    /// Writes an event for each of the next orders, and one without a key among them.
    async fn write(&mut self) {
        let (first, last) = (self.written + 1, self.written + EVENTS);
        let sql = format!(
            "insert into outbox.entry (stream, key, payload) \
             select 'orders', case when keyed then n::text end, jsonb_build_object('order_id', n) \
             from generate_series({first}, {last}) n, (values (true), (false)) as of_n (keyed) \
             where keyed or n = {first} + 5 order by n"
        );
        self.world().application().await.batch_execute(&sql).await.unwrap();
        self.written = last;
    }

    /// Writes events, and returns when the worker is in the transaction of the first of them: it waits for
    /// its order, which is locked until the connection that is returned ends.
    async fn in_the_middle(&mut self) -> Client {
        let lock = format!("begin; select from orders where id = {} for update", self.written + 1);
        let locker = self.world().owner().await;
        locker.batch_execute(&lock).await.unwrap();
        self.write().await;
        let waiting = "select count(*) from pg_stat_activity \
                       where usename = 'shop' and wait_event_type = 'Lock'";
        // In the locker's transaction it would be told the same each time.
        let owner = self.world().owner().await;
        eventually("the worker waits for the order", BOUND, || async {
            owner.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) == 1
        })
        .await;
        locker
    }

    /// Waits until nothing is left to do; every order was told exactly once.
    async fn ends(&self) {
        let written = self.written;
        let world = self.world();
        eventually("every order is told", BOUND, || async {
            world.mails().await.orders == written
        })
        .await;
        world.settled().await;
        eventually("everything is acknowledged", BOUND, || async { self.is_at_rest().await }).await;
        let once = Mails { orders: written, most: 1, all: written, noted: self.events() };
        assert_eq!(world.mails().await, once);
    }

    /// All events, also those without a key.
    fn events(&self) -> i64 {
        self.written + self.written / EVENTS
    }

    /// The group was given all, and has acknowledged all of it.
    async fn is_at_rest(&self) -> bool {
        let Some(group) = self.world().group("orders", "workers").await else { return false };
        let stream: HashMap<String, redis::Value> =
            self.world().redis(&["XINFO", "STREAM", "orders"]).await;
        let last: String = redis::from_redis_value(stream["last-generated-id"].clone()).unwrap();
        group.pending.is_empty() && group.delivered == last
    }

    /// IDs of what was given and not acknowledged.
    async fn pending(&self) -> Vec<String> {
        let group = self.world().group("orders", "workers").await.unwrap();
        group.pending.into_iter().map(|(id, ..)| id).collect()
    }
}

fn address(redis: &Redis) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port()))
}

/// Redis loses the worker's group before any checkpoint has it, and the worker makes it again.
async fn loses_its_group(world: &World) {
    let made = async || world.group("orders", "workers").await.is_some();
    eventually("the worker makes its group", BOUND, made).await;
    world.redis::<()>(&["FLUSHALL"]).await;
    eventually("the worker makes its group again", BOUND, made).await;
}

/// How often XREADGROUP has been called to its end.
pub(super) async fn calls(world: &World) -> u64 {
    let stats: String = world.redis(&["INFO", "commandstats"]).await;
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_xreadgroup:calls="));
    calls.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or_default()
}

/// Everything that README.md says of a worker.
async fn acts_once(kind: &str) {
    let Some(mut trial) = Trial::of(kind).await else { return };
    killed_in_its_transaction(&mut trial).await;
    redis_comes_back_empty(&mut trial).await;
    redis_is_flushed(&mut trial).await;
    redis_is_flushed_of_a_group_in_no_checkpoint(&mut trial).await;
    redis_is_silent(&mut trial).await;
    redis_fails_over(&mut trial).await;
    postgres_starts_again(&mut trial).await;
    an_entry_is_removed(&mut trial).await;
    an_effect_fails_each_time(&mut trial).await;
    assert!(trial.relay.stop().success());
}

async fn killed_in_its_transaction(trial: &mut Trial) {
    let lock = trial.in_the_middle().await;
    trial.worker.kill();
    drop(lock);
    trial.start();
    trial.ends().await;
}

/// It commits while there is nowhere to acknowledge to.
async fn redis_comes_back_empty(trial: &mut Trial) {
    let lock = trial.in_the_middle().await;
    let told = trial.world().mails().await.orders;
    trial.shell.world.redis.kill().unwrap();
    drop(lock);
    eventually("it commits", BOUND, || async { trial.world().mails().await.orders > told }).await;
    trial.shell.world.redis.start_again().unwrap();
    trial.ends().await;
}

async fn redis_is_flushed(trial: &mut Trial) {
    let lock = trial.in_the_middle().await;
    trial.world().redis::<()>(&["FLUSHALL"]).await;
    drop(lock);
    trial.ends().await;
}

/// The relay cannot put the group back; the worker makes it again, and finds done what it is given again.
async fn redis_is_flushed_of_a_group_in_no_checkpoint(trial: &mut Trial) {
    let lock = trial.in_the_middle().await;
    trial.world().redis::<()>(&["XGROUP", "DESTROY", "orders", "workers"]).await;
    eventually("no checkpoint has the group", BOUND, || async {
        trial.world().floor("orders").await.1 == 0
    })
    .await;
    trial.world().redis::<()>(&["FLUSHALL"]).await;
    drop(lock);
    trial.ends().await;
}

/// It gives up a call that is not answered.
async fn redis_is_silent(trial: &mut Trial) {
    let said = trial.worker.log().len();
    trial.world().redis.freeze().unwrap();
    eventually("it gives up", BOUND, || async { trial.worker.log().len() > said }).await;
    trial.world().redis.thaw().unwrap();
    trial.write().await;
    trial.ends().await;
}

/// Another server takes over, and the one that becomes its replica keeps its connections.
async fn redis_fails_over(trial: &mut Trial) {
    let said = trial.worker.log().len();
    trial.world().redis::<()>(&["CONFIG", "SET", "repl-diskless-sync-delay", "0"]).await;
    let lock = trial.in_the_middle().await;
    let upstream = format!("127.0.0.1 {}", trial.world().redis.port());
    let options = RedisOptions::default().with("user", &relay_in_redis());
    let follower = Redis::start(options.with("replicaof", &upstream)).unwrap();
    eventually("it follows", BOUND, || async {
        let role: Vec<redis::Value> = trial.world().redis(&["ROLE"]).await;
        role[2] != redis::Value::Array(Vec::new())
    })
    .await;
    let former = std::mem::replace(&mut trial.shell.world.redis, follower);
    trial.world().redis::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    trial.front.retarget(address(&trial.world().redis));
    let port = trial.world().redis.port().to_string();
    let mut demoted = redis::Client::open(former.url()).unwrap().get_connection().unwrap();
    redis::cmd("REPLICAOF").arg("127.0.0.1").arg(port).exec(&mut demoted).unwrap();
    drop(lock);
    trial.ends().await;
    assert!(trial.worker.log()[said..].contains("read only replica"));
}

async fn postgres_starts_again(trial: &mut Trial) {
    let lock = trial.in_the_middle().await;
    trial.shell.world.postgres.restart().unwrap();
    drop(lock);
    trial.ends().await;
}

/// What was given and then removed is left, what follows is done, and a rebuild brings it back.
async fn an_entry_is_removed(trial: &mut Trial) {
    let lock = trial.in_the_middle().await;
    trial.worker.kill();
    let removed = trial.pending().await[0].clone();
    trial.world().redis::<u64>(&["XDEL", "orders", &removed]).await;
    drop(lock);
    trial.start();
    let others = trial.written - 1;
    eventually("the others are told", BOUND, || async {
        trial.world().mails().await.orders == others
    })
    .await;
    let asked = calls(trial.world()).await;
    eventually("it asks again in vain", BOUND, || async {
        calls(trial.world()).await >= asked + 2
    })
    .await;
    assert_eq!(trial.pending().await, [removed]);
    trial.write().await;
    let others = trial.written - 1;
    eventually("what is new is told", BOUND, || async {
        trial.world().mails().await.orders == others
    })
    .await;
    let rebuild = trial.shell.command(&["outbox-relay", "rebuild", "orders", "--yes"], "relay");
    let rebuilt = to_the_end(rebuild, BOUND);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:#?}");
    trial.ends().await;
}

/// It is tried again and again, and a note lets it go.
async fn an_effect_fails_each_time(trial: &mut Trial) {
    let poisoned = trial.written + 1;
    let sql = format!("alter table mail add check (order_id <> {poisoned})");
    trial.world().sql(&sql).await;
    trial.write().await;
    eventually("it is given three times", BOUND, || async {
        let group = trial.world().group("orders", "workers").await.unwrap();
        group.pending.first().is_some_and(|(.., times)| *times >= 3)
    })
    .await;
    let note = format!(
        "insert into outbox.done (consumer_group, event_id) \
         select 'workers', event_id from outbox.entry where key = '{poisoned}'"
    );
    trial.world().sql(&note).await;
    eventually("the others are told", BOUND, || async { trial.is_at_rest().await }).await;
    let all = trial.written;
    let once = Mails { orders: all - 1, most: 1, all: all - 1, noted: trial.events() };
    assert_eq!(trial.world().mails().await, once);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_in_python_acts_once_whatever_happens() {
    acts_once("python").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_in_node_acts_once_whatever_happens() {
    acts_once("js").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worker_in_go_acts_once_whatever_happens() {
    acts_once("go").await;
}
