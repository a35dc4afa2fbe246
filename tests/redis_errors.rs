//! Redis answers, and refuses: no room, no rights, not the primary, still loading, another type.

use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};

use crate::support::command::SECRET;
use crate::support::eventually;
use crate::support::relay::Relay;
use crate::support::world::{RELAY, World, redis_is_at_least};
use crate::support::writers::{Writers, write_rows};

/// A relay with 10 rows of `orders` in Redis.
async fn running() -> (World, Relay) {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    (world, relay)
}

async fn with_redis(options: RedisOptions) -> World {
    World::with(PostgresOptions::default(), options).await
}

#[tokio::test(flavor = "multi_thread")]
async fn without_memory_rows_are_sealed_and_wait_in_order() {
    let (world, mut relay) = running().await;
    let writers = Writers::start(&world, 3);
    writers.write_more(200).await;
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    write_rows(&world, "late", 20).await;
    let reason = world.becomes("late", "full").await.unwrap();
    assert!(reason.contains("OOM"), "{reason}");
    writers.write_more(1_000).await;
    writers.stop().await;
    world.all_sealed().await;
    // Longer than some audits: a refusal is no reason to begin anew, and the state stays as it is.
    relay.logged("is full").await;
    assert_eq!(world.status("late").await.unwrap().0, "full");
    assert_eq!(world.redis::<u64>(&["XLEN", "late"]).await, 0);
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(!relay.log().contains("trying again in"), "no session ended:\n{}", relay.log());
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_starts_while_redis_has_no_memory_seals_and_waits() {
    let (world, mut relay) = running().await;
    relay.kill();
    world.end_lease().await;
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    write_rows(&world, "orders", 20).await;
    let relay = world.relay("successor", &[("OUTBOX_START", "2s")]);
    world.becomes("orders", "full").await;
    world.all_sealed().await;
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_full_and_then_lost_to_another_type_is_freed_by_del() {
    let (world, _relay) = running().await;
    world.redis::<()>(&["SET", "mine", "a string"]).await;
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    write_rows(&world, "orders", 20).await;
    world.becomes("orders", "full").await;
    // RENAME needs no memory.
    world.redis::<()>(&["RENAME", "mine", "orders"]).await;
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    world.becomes("orders", "halted").await;
    world.redis::<()>(&["DEL", "orders"]).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_halts_its_stream_alone_until_it_is_deleted() {
    let (world, relay) = running().await;
    world.redis::<()>(&["SET", "taken", "mine"]).await;
    write_rows(&world, "taken", 20).await;
    let reason = world.becomes("taken", "halted").await.unwrap();
    assert!(
        reason.contains("holds a string") && reason.contains("outbox-relay rebuild taken"),
        "{reason}"
    );
    write_rows(&world, "orders", 20).await;
    world.holds("orders", 30).await;
    assert_eq!(world.redis::<String>(&["GET", "taken"]).await, "mine", "not ours to change");
    world.redis::<()>(&["DEL", "taken"]).await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_deleted_while_the_relay_was_down_halts_no_more() {
    let (world, mut relay) = running().await;
    world.redis::<()>(&["SET", "taken", "mine"]).await;
    write_rows(&world, "taken", 20).await;
    world.becomes("taken", "halted").await;
    relay.kill();
    world.end_lease().await;
    world.redis::<()>(&["DEL", "taken"]).await;
    let _relay = world.relay("successor", &[]);
    world.holds("taken", 20).await;
    assert_eq!(world.becomes("taken", "active").await, None);
    world.reconcile().await;
}

/// Takes rights away while rows are written, and gives them back: it resumes by itself.
async fn without_rights(taken: &[&str], given: &[&str], said: &str) {
    let (world, mut relay) = running().await;
    let set = ["ACL", "SETUSER", RELAY];
    world.redis::<()>(&[&set, taken].concat()).await;
    write_rows(&world, "orders", 20).await;
    relay.logged(said).await;
    assert!(relay.is_running());
    world.redis::<()>(&[&set, given].concat()).await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_run_scripts_it_waits_and_resumes() {
    let said = "Redis refuses a right";
    without_rights(&["-evalsha", "-eval"], &["+evalsha", "+eval"], said).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_append_it_waits_and_resumes() {
    // Scripts are told so in words that differ between versions; the next connection says what is missing.
    without_rights(&["-xadd"], &["+xadd"], "ACL SETUSER relay +xadd").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_becomes_a_replica_and_primary_again() {
    let (world, mut relay) = running().await;
    let writers = Writers::start(&world, 2);
    world.redis::<()>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    relay.logged("this Redis is a replica").await;
    writers.write_more(100).await;
    world.redis::<()>(&["REPLICAOF", "NO", "ONE"]).await;
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_loading_its_dump_is_waited_for() {
    if !redis_is_at_least((7, 0), "loading-process-events-interval-bytes") {
        return;
    }
    // Microseconds per key: some seconds for the keys below, in which it answers now and then.
    let options = RedisOptions::default()
        .with("key-load-delay", "2000")
        .with("loading-process-events-interval-bytes", "1024");
    let mut world = with_redis(options).await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 50).await;
    world.settled().await;
    let mut fill = redis::pipe();
    (0..2_000).for_each(|n| {
        fill.cmd("SET").arg(format!("other-{n}")).arg(n).ignore();
    });
    fill.exec_async(&mut world.streams().await).await.unwrap();
    world.redis::<()>(&["SAVE"]).await;
    world.redis.kill().unwrap();
    write_rows(&world, "orders", 50).await;
    world.redis.start_again().unwrap();
    relay.logged("is loading the dataset").await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn scripts_that_are_flushed_under_load_are_sent_again() {
    let (world, relay) = running().await;
    let writers = Writers::start(&world, 4);
    for _ in 0..20 {
        writers.write_more(20).await;
        world.redis::<()>(&["SCRIPT", "FLUSH"]).await;
    }
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(!relay.log().contains("trying again in"), "no session ended:\n{}", relay.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_stalled_for_seconds_is_waited_for() {
    let (world, relay) = running().await;
    let writers = Writers::start(&world, 2);
    world.redis::<()>(&["CLIENT", "PAUSE", "4000", "ALL"]).await;
    writers.write_more(300).await;
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(!relay.log().contains("trying again in"), "no session ended:\n{}", relay.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_streams_is_refused_at_start() {
    let options = RedisOptions::default().with("maxmemory-policy", "allkeys-lru");
    let world = with_redis(options).await;
    let mut relay = world.relay("relay", &[]);
    assert_eq!(relay.wait(Duration::from_secs(30)).code(), Some(1));
    let log = relay.log();
    assert!(log.contains("maxmemory-policy allkeys-lru") && log.contains("noeviction"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_script_of_somebody_blocks_redis_it_keeps_its_lease() {
    if !redis_is_at_least((7, 0), "busy-reply-threshold") {
        return;
    }
    let world = World::new().await;
    let relay = world.relay("relay", &[("OUTBOX_LEASE", "1s")]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    let writers = Writers::start(&world, 2);
    world.redis::<()>(&["CONFIG", "SET", "busy-reply-threshold", "50"]).await;
    let mut connection = world.streams().await;
    let blocking = tokio::spawn(async move {
        let endless = redis::cmd("EVAL").arg("while true do end").arg(0).to_owned();
        endless.exec_async(&mut connection).await
    });
    let mut other = world.streams().await;
    eventually("Redis is busy", Duration::from_secs(30), || async {
        let pinged = redis::cmd("PING").exec_async(&mut other.clone()).await;
        pinged.is_err_and(|error| error.code() == Some("BUSY"))
    })
    .await;
    writers.write_more(300).await;
    // Longer than the lease holds without a heartbeat.
    let begun = std::time::Instant::now();
    let long = || async { begun.elapsed() > Duration::from_millis(1_500) };
    eventually("the lease would have run out", Duration::from_secs(10), long).await;
    redis::cmd("SCRIPT").arg("KILL").exec_async(&mut other).await.unwrap();
    assert!(blocking.await.unwrap().is_err());
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_that_comes_and_goes_leaves_no_hole_in_a_batch() {
    let world = World::new().await;
    let relay = world.relay("relay", &[("OUTBOX_BATCH_ROWS", "7")]);
    // With an identity in Redis first: one that is made later is told as a loss.
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    let writers = Writers::start(&world, 4);
    for _ in 0..25 {
        world.redis::<()>(&["CONFIG", "SET", "maxmemory", "1"]).await;
        writers.write_more(10).await;
        world.redis::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
        writers.write_more(10).await;
    }
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.log().contains("is full"), "it never met it:\n{}", relay.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_is_changed_is_told_and_it_resumes_when_it_is_right_again() {
    let world = World::new().await;
    let user = ["ACL", "SETUSER", "turn", "on", "~*", "+@all"];
    let old = format!(">{SECRET}");
    world.redis::<()>(&[&user[..], &[&old]].concat()).await;
    let place = format!("127.0.0.1:{}", world.redis.port());
    let urls = (world.urls().0, format!("redis://turn:{SECRET}@{place}/"));
    let mut relay = Relay::start(world.folder.path(), "relay", &world.variables(&urls, &[]));
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    world.redis::<()>(&[&user[..], &["resetpass", ">another"]].concat()).await;
    world.redis::<u64>(&["CLIENT", "KILL", "USER", "turn"]).await;
    write_rows(&world, "orders", 10).await;
    relay.logged(&format!("Redis at {place} does not let us in")).await;
    assert!(!relay.log().contains(SECRET), "{}", relay.log());
    assert!(relay.is_running());
    world.redis::<()>(&[&user[..], &[&old]].concat()).await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_replicas_that_redis_wants_rows_are_sealed_and_wait() {
    if !redis_is_at_least((7, 0), "NOREPLICAS for scripts") {
        return;
    }
    let (world, relay) = running().await;
    world.redis::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    write_rows(&world, "orders", 20).await;
    let reason = world.becomes("orders", "full").await.unwrap();
    assert!(reason.contains("NOREPLICAS"), "{reason}");
    world.all_sealed().await;
    assert_eq!(world.redis::<u64>(&["XLEN", "orders"]).await, 10);
    world.redis::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]).await;
    world.reconcile().await;
    relay.lost_nothing();
}
