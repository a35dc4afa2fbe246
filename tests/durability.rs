//! `OUTBOX_DURABILITY`: what must have happened to an entry in Redis before it is marked.

use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, Redis, RedisOptions};

use crate::support::command::command;
use crate::support::eventually;
use crate::support::world::{RELAY, World, redis_is_at_least};
use crate::support::writers::write_rows;

const BOUND: Duration = Duration::from_secs(30);
const REPLICA: [(&str, &str); 1] = [("OUTBOX_DURABILITY", "replica(1)")];

async fn may(world: &World, command: &str) {
    world.redis::<()>(&["ACL", "SETUSER", RELAY, command]).await;
}

/// A replica of `world`'s Redis that follows it.
async fn replica(world: &World) -> Redis {
    let upstream = format!("127.0.0.1 {}", world.redis.port());
    let replica = Redis::start(RedisOptions::default().with("replicaof", &upstream)).unwrap();
    eventually("the replica follows", BOUND, || async {
        let info: String = world.redis(&["INFO", "replication"]).await;
        info.contains("state=online")
    })
    .await;
    replica
}

/// Entries of the stream in Redis, and how many of them are marked.
async fn marked(world: &World) -> (u64, i64) {
    let sql = "select coalesce(max(last_n) filter (where dispatched_at is not null), 0) from outbox.batch";
    let marked = world.owner().await.query_one(sql, &[]).await.unwrap().get(0);
    (world.redis(&["XLEN", "orders"]).await, marked)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_marked_before_a_replica_has_it_also_after_a_restart() {
    let options = RedisOptions::default().with("repl-diskless-sync-delay", "0");
    let world = World::with(PostgresOptions::default(), options).await;
    may(&world, "+wait").await;
    let replica = replica(&world).await;
    let mut relay = world.relay("relay", &REPLICA);
    write_rows(&world, "orders", 20).await;
    world.settled().await;
    assert_eq!(marked(&world).await, (20, 20));

    replica.freeze().unwrap();
    write_rows(&world, "orders", 10).await;
    relay.logged("0 of 1 replicas have what Redis was given").await;
    assert_eq!(marked(&world).await, (30, 20));
    relay.kill();
    let mut relay = world.relay("successor", &REPLICA);
    relay.logged("0 of 1 replicas have what Redis was given").await;
    assert_eq!(marked(&world).await, (30, 20));

    replica.thaw().unwrap();
    world.settled().await;
    assert_eq!(marked(&world).await, (30, 30));
    assert!(relay.stop().success());
    world.reconcile().await;
}

/// What a relay says that cannot begin.
fn told(world: &World, durability: &str) -> String {
    let words = ["run", "--start", "0s", "--http", "127.0.0.1:0", "--durability", durability];
    let (database, redis) = world.urls();
    let ended = command(&words, &[("DATABASE_URL", &database), ("REDIS_URL", &redis)]);
    assert_eq!(ended.code, Some(1), "{ended:#?}");
    ended.err
}

#[tokio::test(flavor = "multi_thread")]
async fn what_redis_cannot_promise_is_said_at_once() {
    let world = World::new().await;
    let lacks = told(&world, "replica(2)");
    assert!(lacks.contains("ACL SETUSER relay +wait"), "{lacks}");
    may(&world, "+wait").await;
    let alone = told(&world, "replica(2)");
    assert!(alone.contains("0 of 2 replicas have what Redis was given"), "{alone}");
    may(&world, "+@all").await;
    let disk = told(&world, "aof");
    assert!(disk.contains("needs Redis 7.2 or later with appendonly yes"), "{disk}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_redis_can_say_so_nothing_is_marked_before_it_is_on_the_disk() {
    if !redis_is_at_least((7, 2), "WAITAOF") {
        return;
    }
    let options = RedisOptions::default().with("appendonly", "yes").with("appendfsync", "everysec");
    let mut world = World::with(PostgresOptions::default(), options).await;
    may(&world, "+waitaof").await;
    let mut relay = world.relay("relay", &[("OUTBOX_DURABILITY", "aof")]);
    write_rows(&world, "orders", 20).await;
    world.settled().await;
    // What was marked is there after a crash, without the relay.
    assert!(relay.stop().success());
    world.redis.kill().unwrap();
    world.redis.start_again().unwrap();
    assert_eq!(marked(&world).await, (20, 20));
    world.reconcile().await;
}
