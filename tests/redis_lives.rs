//! Redis comes back as another one: a lagging replica, an append-only file without its end, an older state
//! under the same connection. Entries come back exactly, and no group skips one.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, Redis, RedisOptions};

use crate::support::eventually;
use crate::support::proxy::Proxy;
use crate::support::relay::Relay;
use crate::support::workers::{Workers, make_group};
use crate::support::world::{World, redis_is_at_least, relay_in_redis};
use crate::support::writers::{STREAMS, Writers, write_rows};

const BOUND: Duration = Duration::from_secs(30);
const SHORT: [(&str, &str); 1] = [("OUTBOX_CHECKPOINT", "100ms")];

/// Everything that was committed arrives once, and reaches the group.
async fn recovers(world: &World, writers: Writers, mail: Workers) {
    writers.write_more(100).await;
    writers.stop().await;
    world.settled().await;
    mail.finish(world, &STREAMS).await;
    world.reconcile().await;
}

async fn busy(options: RedisOptions) -> (World, Relay, Writers, Workers) {
    let world = World::with(PostgresOptions::default(), options).await;
    let relay = world.relay("relay", &SHORT);
    let mail = Workers::start(&world, "mail", &STREAMS).await;
    let writers = Writers::start(&world, 3);
    writers.write_more(300).await;
    (world, relay, writers, mail)
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// A Redis under load whose replica lags, and is then promoted in its place, behind the proxy between.
async fn fails_over(hand_over: impl FnOnce(&Proxy, SocketAddr)) {
    let options = RedisOptions::default().with("repl-diskless-sync-delay", "0");
    let mut world = World::with(PostgresOptions::default(), options).await;
    let front = Proxy::start(address(world.redis.port()));
    let link = Proxy::start(address(world.redis.port()));
    let upstream = format!("127.0.0.1 {}", link.port());
    let replica = RedisOptions::default().with("user", &relay_in_redis());
    let mut replica = Redis::start(replica.with("replicaof", &upstream)).unwrap();
    for stream in STREAMS {
        make_group(&world, stream, "mail").await;
    }
    let relay = world.relay_through("relay", &front, &SHORT);
    let url = format!("redis://127.0.0.1:{}/", front.port());
    let mail = Workers::join_at(&[url], "mail", &STREAMS);
    let writers = Writers::start(&world, 3);
    writers.write_more(300).await;
    let client = redis::Client::open(replica.url()).unwrap();
    let connection = client.get_multiplexed_async_connection().await.unwrap();
    eventually("the replica follows", BOUND, || async {
        // The link is up before what it has brought is carried out.
        let held = redis::cmd("HEXISTS").arg("outbox:identity").arg("count").to_owned();
        held.query_async(&mut connection.clone()).await.unwrap_or(false)
    })
    .await;
    link.refuse(true);
    link.cut();
    writers.write_more(300).await;
    std::mem::swap(&mut world.redis, &mut replica);
    world.redis::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    hand_over(&front, address(world.redis.port()));
    drop(replica);
    relay.logged("Redis went back to an older state").await;
    recovers(&world, writers, mail).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_is_promoted() {
    fails_over(|front, promoted| {
        front.retarget(promoted);
        front.cut();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lags_is_promoted_behind_a_connection_that_stays_open() {
    fails_over(|front, promoted| front.switch(promoted)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_under_the_same_connection_is_noticed() {
    if !redis_is_at_least((7, 0), "enable-debug-command") {
        return;
    }
    let options = RedisOptions { debug_command: true, ..RedisOptions::default() };
    let (world, relay, writers, mail) = busy(options).await;
    world.redis::<()>(&["SAVE"]).await;
    writers.write_more(300).await;
    world.redis::<()>(&["DEBUG", "RELOAD", "NOSAVE"]).await;
    relay.logged("Redis went back to an older state").await;
    recovers(&world, writers, mail).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_only_file_that_lost_its_end() {
    if !redis_is_at_least((7, 0), "folder of append-only files") {
        return;
    }
    let options = RedisOptions::default().with("appendonly", "yes").with("appendfsync", "everysec");
    let (mut world, _relay, writers, mail) = busy(options).await;
    // The second time in the middle of what a script wrote, which is a transaction in the file.
    for cut in [20_000, 33] {
        writers.write_more(200).await;
        world.redis.kill().unwrap();
        let folder = world.redis.data_dir().join("appendonlydir");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let file =
            files.filter(|file| file.to_string_lossy().ends_with(".incr.aof")).max().unwrap();
        let length = std::fs::metadata(&file).unwrap().len();
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_len(length.saturating_sub(cut)).unwrap();
        world.redis.start_again().unwrap();
    }
    recovers(&world, writers, mail).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn databases_are_swapped_and_streams_renamed_or_expired() {
    let (world, relay, writers, mail) = busy(RedisOptions::default()).await;
    world.redis::<()>(&["SWAPDB", "0", "1"]).await;
    relay.logged("Redis lost its identity key").await;
    writers.write_more(100).await;
    world.redis::<()>(&["RENAME", "orders", "elsewhere"]).await;
    writers.write_more(100).await;
    world.redis::<u64>(&["PEXPIRE", "payments", "1"]).await;
    writers.write_more(100).await;
    world.redis::<()>(&["FLUSHDB"]).await;
    recovers(&world, writers, mail).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_evicted_come_back() {
    let world = World::new().await;
    let relay = world.relay("relay", &SHORT);
    make_group(&world, "orders", "mail").await;
    write_rows(&world, "orders", 200).await;
    world.settled().await;
    world.checkpointed("orders").await;
    // Somebody changes the policy while it runs, and there is not enough memory for anything.
    world.redis::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]).await;
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    eventually("keys are evicted", BOUND, || async {
        let info: String = world.redis(&["INFO", "stats"]).await;
        !info.contains("evicted_keys:0\r")
    })
    .await;
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    world.redis::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    relay.logged("Redis lost").await;
    let mail = Workers::join(&world, "mail", &["orders"]);
    mail.finish(&world, &["orders"]).await;
    world.reconcile().await;
}
