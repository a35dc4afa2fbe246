//! Redis loses data while applications write: noticed, reported with its exact range, put back.

use std::time::{Duration, Instant};

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};

use crate::support::eventually;
use crate::support::relay::Relay;
use crate::support::world::{World, redis_is_at_least};
use crate::support::writers::{STREAMS, Writers, write_rows};

/// A stream that nobody writes to while it is lost, so that what it held is known exactly.
const QUIET: &str = "quiet";

/// A relay, writers at work, and 50 rows in a stream of their own, all in Redis.
async fn running() -> (World, Relay, Writers) {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, QUIET, 50).await;
    world.reconcile().await;
    let writers = Writers::start(&world, 3);
    writers.write_more(300).await;
    (world, relay, writers)
}

/// Everything is back, and the quiet stream was reported lost once, with this range.
async fn recovers(world: &World, relay: &Relay, writers: Writers, quiet: &[(u64, u64)]) {
    writers.write_more(100).await;
    writers.stop().await;
    world.reconcile().await;
    assert_eq!(relay.lost(QUIET), quiet, "{}", relay.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn flushall_under_load() {
    let (world, relay, writers) = running().await;
    let mut was = redis::pipe();
    was.atomic();
    for stream in STREAMS {
        was.cmd("XLEN").arg(stream);
    }
    was.cmd("FLUSHALL").ignore();
    let was: Vec<u64> = was.query_async(&mut world.streams().await).await.unwrap();
    relay.logged("Redis lost its identity key").await;
    relay.logged(&format!("Redis lost entries 1 to 50 of stream {QUIET};")).await;
    recovers(&world, &relay, writers, &[(1, 50)]).await;
    for (stream, had) in STREAMS.iter().zip(was) {
        assert_eq!(relay.lost(stream), [(1, had)], "{stream}:\n{}", relay.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_that_was_emptied_while_it_was_made_is_made_whole() {
    let world = World::new().await;
    let relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", "100ms")]);
    write_rows(&world, QUIET, 50).await;
    world.settled().await;
    // What FLUSHALL leaves between two commands of the relay.
    world.redis::<u64>(&["HDEL", "outbox:identity", "id"]).await;
    relay.logged("Redis lost its identity key").await;
    assert!(world.redis::<bool>(&["HEXISTS", "outbox:identity", "id"]).await);
    let told = |relay: &Relay| relay.log().matches("went back to an older state").count();
    let before = told(&relay);
    crate::support::workers::make_group(&world, QUIET, "mail").await;
    world.checkpointed(QUIET).await;
    assert_eq!(told(&relay), before, "it is the same Redis from then on");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_is_deleted() {
    let (world, relay, writers) = running().await;
    world.redis::<()>(&["DEL", "orders"]).await;
    relay.logged("of stream orders;").await;
    world.redis::<()>(&["DEL", QUIET]).await;
    relay.logged(&format!("Redis lost entries 1 to 50 of stream {QUIET};")).await;
    recovers(&world, &relay, writers, &[(1, 50)]).await;
    for stream in &STREAMS[1..] {
        assert_eq!(relay.lost(stream), [], "only what was lost is put back");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_is_deleted_and_made_again_by_a_consumer() {
    let (world, relay, writers) = running().await;
    for stream in [QUIET, "orders"] {
        let mut again = redis::pipe();
        again.atomic().cmd("DEL").arg(stream).ignore();
        again.cmd("XGROUP").arg(&["CREATE", stream, "group", "$", "MKSTREAM"]).ignore();
        again.exec_async(&mut world.streams().await).await.unwrap();
        relay.logged(&format!("of stream {stream};")).await;
    }
    recovers(&world, &relay, writers, &[(1, 50)]).await;
}

/// Somebody else's entry halts a stream, visibly, while all others go on; DEL of the key ends it.
async fn halted_by_a_stranger(delete_first: bool, stream: &str) {
    let (world, relay, writers) = running().await;
    let mut intrusion = redis::pipe();
    intrusion.atomic();
    if delete_first {
        intrusion.cmd("DEL").arg(stream).ignore();
    }
    intrusion.cmd("XADD").arg(&[stream, "*", "not", "ours"]).ignore();
    intrusion.exec_async(&mut world.streams().await).await.unwrap();
    let reason = world.becomes(stream, "halted").await.unwrap();
    assert!(
        reason.contains("did not write")
            && reason.contains(&format!("outbox-relay rebuild {stream}")),
        "{reason}"
    );
    relay.logged(&format!("stream {stream} is halted")).await;
    let held: u64 = world.redis(&["XLEN", stream]).await;
    write_rows(&world, "other", 20).await;
    write_rows(&world, stream, 20).await;
    world.holds("other", 20).await;
    world.all_sealed().await;
    assert_eq!(world.redis::<u64>(&["XLEN", stream]).await, held, "nothing follows a stranger");
    assert_eq!(world.status(stream).await.unwrap().0, "halted");
    writers.stop().await;
    world.redis::<()>(&["DEL", stream]).await;
    world.reconcile().await;
    assert_eq!(world.becomes(stream, "active").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_made_again_by_a_stranger_halts_until_it_is_deleted() {
    halted_by_a_stranger(true, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_stranger_halts_a_busy_stream_until_it_is_deleted() {
    halted_by_a_stranger(false, "orders").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_of_a_stranger_halts_an_idle_stream_until_it_is_deleted() {
    halted_by_a_stranger(false, QUIET).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_state_of_a_stream_comes_back() {
    let (world, relay, writers) = running().await;
    let old: Vec<u8> = world.redis(&["DUMP", QUIET]).await;
    write_rows(&world, QUIET, 20).await;
    world.holds(QUIET, 70).await;
    // Reported is what was known to be there, and that is known when it is marked.
    eventually("the rows are marked", Duration::from_secs(30), || async {
        world.dispatched(QUIET).await == 70
    })
    .await;
    let mut restore = redis::cmd("RESTORE");
    restore.arg(QUIET).arg(0).arg(old).arg("REPLACE");
    restore.exec_async(&mut world.streams().await).await.unwrap();
    relay.logged(&format!("Redis lost entries 51 to 70 of stream {QUIET};")).await;
    recovers(&world, &relay, writers, &[(51, 70)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_back_with_an_older_snapshot() {
    let (mut world, relay, writers) = running().await;
    world.redis::<()>(&["SAVE"]).await;
    write_rows(&world, QUIET, 20).await;
    eventually("the rows are marked", Duration::from_secs(30), || async {
        world.dispatched(QUIET).await == 70
    })
    .await;
    world.redis.kill().unwrap();
    world.redis.start_again().unwrap();
    relay.logged(&format!("Redis lost entries 51 to 70 of stream {QUIET};")).await;
    recovers(&world, &relay, writers, &[(51, 70)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_comes_back_empty() {
    let (mut world, relay, writers) = running().await;
    for _ in 0..2 {
        world.redis.kill().unwrap();
        writers.write_more(50).await;
        world.redis.start_again().unwrap();
        world.holds(QUIET, 50).await;
        // Reported is what was known to be there, and that is known when it is marked.
        eventually("the rows are marked", Duration::from_secs(30), || async {
            world.dispatched(QUIET).await == 50
        })
        .await;
    }
    recovers(&world, &relay, writers, &[(1, 50), (1, 50)]).await;
    assert!(relay.log().contains("kind=\"all\""), "all of it was lost:\n{}", relay.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_is_noticed_by_the_next_append_without_any_audit() {
    let world = World::new().await;
    let relay = world.relay("relay", &[("OUTBOX_AUDIT", "10m")]);
    write_rows(&world, QUIET, 50).await;
    world.reconcile().await;
    world.redis::<()>(&["DEL", QUIET]).await;
    write_rows(&world, QUIET, 1).await;
    relay.logged(&format!("Redis lost entries 1 to 50 of stream {QUIET};")).await;
    world.reconcile().await;
    assert_eq!(relay.lost(QUIET), [(1, 50)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loss_of_an_idle_stream_is_noticed_by_the_audit() {
    let world = World::new().await;
    let relay = world.relay("relay", &[("OUTBOX_AUDIT", "1s")]);
    write_rows(&world, QUIET, 50).await;
    world.reconcile().await;
    for times in 1..=3 {
        world.redis::<()>(&["DEL", QUIET]).await;
        let lost = Instant::now();
        relay.logged_times(&format!("Redis lost entries 1 to 50 of stream {QUIET};"), times).await;
        // One interval, and slack for a slow machine.
        assert!(lost.elapsed() < Duration::from_secs(3), "took {:?}", lost.elapsed());
        world.holds(QUIET, 50).await;
        world.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_while_the_relay_was_down_is_noticed_when_it_comes_back() {
    let (world, mut relay, writers) = running().await;
    let old: Vec<u8> = world.redis(&["DUMP", QUIET]).await;
    write_rows(&world, QUIET, 20).await;
    write_rows(&world, "gone", 30).await;
    world.holds(QUIET, 70).await;
    world.holds("gone", 30).await;
    assert!(relay.stop().success());
    let mut losses = redis::pipe();
    losses.cmd("RESTORE").arg(QUIET).arg(0).arg(old).arg("REPLACE").ignore();
    losses.cmd("DEL").arg("gone").ignore();
    losses.exec_async(&mut world.streams().await).await.unwrap();
    let relay = world.relay("successor", &[]);
    recovers(&world, &relay, writers, &[(51, 70)]).await;
    assert_eq!(relay.lost("gone"), [(1, 30)]);
    for stream in STREAMS {
        assert_eq!(relay.lost(stream), []);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_put_right_while_the_relay_was_down_is_active_afterwards() {
    let (world, mut relay, writers) = running().await;
    writers.stop().await;
    world.redis::<()>(&["XADD", QUIET, "*", "not", "ours"]).await;
    world.becomes(QUIET, "halted").await;
    relay.kill();
    world.end_lease().await;
    world.redis::<()>(&["DEL", QUIET]).await;
    let relay = world.relay("successor", &[]);
    world.holds(QUIET, 50).await;
    assert_eq!(world.becomes(QUIET, "active").await, None);
    world.reconcile().await;
    assert_eq!(relay.lost(QUIET), [(1, 50)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_lost_no_loss_is_reported() {
    let world = World::new().await;
    let more = [("OUTBOX_AUDIT", "100ms"), ("OUTBOX_BATCH_ROWS", "20")];
    let relay = world.relay("relay", &more);
    let writers = Writers::start(&world, 6);
    writers.write_more(6_000).await;
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(!relay.log().contains("rebuilding"), "{}", relay.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_an_append_only_file_is_lost_and_its_range_is_told() {
    if !redis_is_at_least((7, 0), "folder of append-only files") {
        return;
    }
    let options = RedisOptions::default().with("appendonly", "yes").with("appendfsync", "always");
    let mut world = World::with(PostgresOptions::default(), options).await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, QUIET, 50).await;
    world.settled().await;
    let folder = world.redis.data_dir().join("appendonlydir");
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let file = files.filter(|file| file.to_string_lossy().ends_with(".incr.aof")).max().unwrap();
    let length = std::fs::metadata(&file).unwrap().len();
    write_rows(&world, QUIET, 20).await;
    world.settled().await;
    world.redis.kill().unwrap();
    std::fs::File::options().write(true).open(file).unwrap().set_len(length).unwrap();
    world.redis.start_again().unwrap();
    relay.logged(&format!("Redis lost entries 51 to 70 of stream {QUIET};")).await;
    world.reconcile().await;
    assert_eq!(relay.lost(QUIET), [(51, 70)]);
}
