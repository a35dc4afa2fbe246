//! Ten bad nights, each with what a person sees. The transcripts are in `tests/golden/nights`; written
//! anew with `UPDATE_GOLDEN=1 cargo test --test it nights`, and then to be read.

use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};

use crate::support::eventually;
use crate::support::relay::Relay;
use crate::support::transcript::Transcript;
use crate::support::world::World;
use crate::support::writers::write_rows;

const BOUND: Duration = Duration::from_secs(30);

/// A relay with `rows` rows of `orders` in Redis.
async fn evening(rows: usize) -> (World, Relay) {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, "orders", rows).await;
    world.settled().await;
    (world, relay)
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_down() {
    let (mut world, relay) = evening(10).await;
    world.redis.kill().unwrap();
    write_rows(&world, "orders", 3).await;
    let mut night = Transcript::new(&world, "redis_down", "Redis is down");
    relay.logged("cannot connect to Redis").await;
    night.run(&["status"]);
    night.run(&["verify"]);
    night.compare();
    world.redis.start_again().unwrap();
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_is_empty() {
    let (world, relay) = evening(10).await;
    world.redis::<()>(&["FLUSHALL"]).await;
    let mut night = Transcript::new(&world, "redis_empty", "Redis came back empty");
    night.logged(&relay, "Redis lost its identity key").await;
    night.logged(&relay, "Redis lost entries").await;
    world.settled().await;
    night.run(&["status"]);
    night.run(&["verify"]);
    night.compare();
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_the_wrong_type() {
    let (world, relay) = evening(10).await;
    world.redis::<()>(&["SET", "payments", "somebody's value"]).await;
    write_rows(&world, "payments", 2).await;
    world.becomes("payments", "halted").await;
    let mut night = Transcript::new(&world, "wrong_type", "A key holds something else");
    night.logged(&relay, "stream payments is halted").await;
    night.run(&["status"]);
    night.run(&["rebuild", "payments"]);
    night.run(&["rebuild", "payments", "--yes"]);
    world.settled().await;
    night.run(&["status"]);
    night.compare();
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_else_writes_to_a_stream() {
    let (world, relay) = evening(10).await;
    world.redis::<()>(&["XGROUP", "CREATE", "orders", "workers", "0"]).await;
    let read = ["XREADGROUP", "GROUP", "workers", "w1", "COUNT", "4", "STREAMS", "orders", ">"];
    world.redis::<redis::Value>(&read).await;
    world.redis::<()>(&["XADD", "orders", "*", "job", "resize", "note", "not ours"]).await;
    write_rows(&world, "orders", 2).await;
    world.becomes("orders", "halted").await;
    world.all_sealed().await;
    let mut night = Transcript::new(&world, "foreign_entry", "Somebody else writes to a stream");
    night.logged(&relay, "stream orders is halted").await;
    night.run(&["status"]);
    night.run(&["rebuild", "orders"]);
    night.run(&["rebuild", "orders", "--yes"]);
    world.settled().await;
    night.run(&["status"]);
    night.run(&["verify"]);
    night.compare();
    let summary: Vec<redis::Value> = world.redis(&["XPENDING", "orders", "workers"]).await;
    assert_eq!(summary[0], redis::Value::Int(4), "what was given and not acknowledged is still so");
    let rest: Vec<(String, Vec<redis::Value>)> = world
        .redis(&["XREADGROUP", "GROUP", "workers", "w1", "COUNT", "100", "STREAMS", "orders", ">"])
        .await;
    assert_eq!(rest[0].1.len(), 8, "the group goes on behind what it was given");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_disk_of_redis_is_full() {
    // Where a dump cannot be written, as on a full disk, Redis takes no writes.
    let options = RedisOptions::default().with("save", "3600 1000000");
    let world = World::with(PostgresOptions::default(), options).await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    std::fs::remove_dir_all(world.redis.data_dir()).unwrap();
    world.redis::<String>(&["BGSAVE"]).await;
    eventually("the dump failed", BOUND, || async {
        world.redis::<String>(&["INFO", "persistence"]).await.contains("rdb_last_bgsave_status:err")
    })
    .await;
    write_rows(&world, "orders", 5).await;
    let mut night = Transcript::new(&world, "disk_full", "The disk of Redis is full");
    night.logged(&relay, "stream orders is full").await;
    world.all_sealed().await;
    night.run(&["status"]);
    night.compare();
    world.redis::<()>(&["CONFIG", "SET", "stop-writes-on-bgsave-error", "no"]).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_promoted_under_our_feet() {
    let (mut world, relay) = evening(10).await;
    let signal = world.postgres.data_dir().join("standby.signal");
    world.postgres.stop_fast().unwrap();
    std::fs::write(&signal, "").unwrap();
    world.postgres.restart().unwrap();
    let mut night =
        Transcript::new(&world, "standby_promoted", "Postgres is a standby, and then is promoted");
    night.logged(&relay, "is a standby").await;
    night.run(&["status"]);
    night.says("pg_promote()");
    world.sql("select pg_promote()").await;
    let writable = || async {
        let sql = "select not pg_is_in_recovery()";
        world.owner().await.query_one(sql, &[]).await.unwrap().get(0)
    };
    eventually("it is promoted", BOUND, writable).await;
    write_rows(&world, "orders", 3).await;
    world.settled().await;
    night.run(&["status"]);
    night.compare();
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_schema_is_missing() {
    let world = World::bare(PostgresOptions::default(), RedisOptions::default());
    let (database, redis) = (world.postgres.url(), world.redis.url());
    let variables =
        [("DATABASE_URL", database.as_str()), ("REDIS_URL", &redis), ("OUTBOX_START", "0s")];
    let mut night = Transcript::new(&world, "schema_missing", "The schema is missing");
    night.run_with(&["run"], &variables);
    night.run_with(&["status"], &variables);
    night.run_with(&["migrate"], &variables);
    night.run_with(&["status"], &variables);
    night.compare();
}

#[tokio::test(flavor = "multi_thread")]
async fn rights_are_revoked() {
    let (world, relay) = evening(10).await;
    world.sql("revoke insert on outbox.batch from relay").await;
    write_rows(&world, "orders", 3).await;
    let mut night =
        Transcript::new(&world, "rights_revoked", "Somebody revoked a right of the relay");
    night.logged(&relay, "Postgres refuses a right").await;
    let owner = world.postgres.url();
    night.run_with(&["migrate", "--relay-role", "relay"], &[("DATABASE_URL", &owner)]);
    world.settled().await;
    night.run(&["status"]);
    night.compare();
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_clock_is_wrong() {
    let (world, mut relay) = evening(3).await;
    relay.stop();
    // As if the clock of Postgres had been a year ahead and were right again now.
    world.sql("update outbox.batch set ms = ms + 31536000000").await;
    world.redis::<()>(&["FLUSHALL"]).await;
    let _relay = world.relay("relay", &[]);
    world.holds("orders", 3).await;
    write_rows(&world, "orders", 2).await;
    world.settled().await;
    let mut night =
        Transcript::new(&world, "clock_wrong", "The clock of Postgres had been a year ahead");
    night.run(&["status"]);
    night.run(&["verify"]);
    night.compare();
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_paused_a_stream() {
    let (world, relay) = evening(10).await;
    let mut night = Transcript::new(&world, "paused", "Somebody paused a stream");
    night.run(&["pause", "orders"]);
    night.logged(&relay, "stream orders is paused").await;
    write_rows(&world, "orders", 3).await;
    write_rows(&world, "payments", 3).await;
    world.holds("payments", 3).await;
    world.all_sealed().await;
    eventually("payments are marked", BOUND, || async { world.dispatched("payments").await == 3 })
        .await;
    assert_eq!(
        world.redis::<u64>(&["XLEN", "orders"]).await,
        10,
        "nothing follows while it is held"
    );
    night.run(&["status"]);
    night.run(&["pause", "ordres"]);
    night.run(&["resume", "orders"]);
    night.logged(&relay, "stream orders flows again").await;
    world.settled().await;
    night.run(&["status"]);
    night.compare();
    world.reconcile().await;
}
