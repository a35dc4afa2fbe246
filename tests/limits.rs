//! Streams are trimmed by what their groups have acknowledged, and hold no more than their limit.

use std::time::Duration;

use crate::support::eventually;
use crate::support::workers::{Reply, Workers, make_group};
use crate::support::world::World;
use crate::support::writers::write_rows;

const BOUND: Duration = Duration::from_secs(30);

async fn length(world: &World, stream: &str) -> u64 {
    world.redis(&["XLEN", stream]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_is_trimmed_as_far_as_its_slowest_group_and_no_further() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", "100ms")]);
    write_rows(&world, "orders", 300).await;
    world.holds("orders", 300).await;
    make_group(&world, "orders", "slow").await;
    let fast = Workers::start(&world, "fast", &["orders"]).await;
    assert_eq!(fast.finish(&world, &["orders"]).await, 0);
    world.checkpointed("orders").await;
    assert_eq!(length(&world, "orders").await, 300, "the slow group needs all of it");
    let slow = ["XREADGROUP", "GROUP", "slow", "one", "COUNT", "120", "STREAMS", "orders", ">"];
    let given: Reply = world.redis(&slow).await;
    for (id, _) in &given[0].1 {
        world.redis::<u64>(&["XACK", "orders", "slow", id]).await;
    }
    world.holds("orders", 180).await;
    assert_eq!(world.floor("orders").await, (120, 2));
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_waits_for_its_group_alone_and_says_so() {
    let world = World::new().await;
    let more = [("OUTBOX_CHECKPOINT", "100ms"), ("OUTBOX_STREAM_LIMIT", "100")];
    let relay = world.relay("relay", &more);
    make_group(&world, "orders", "mail").await;
    write_rows(&world, "orders", 1_000).await;
    write_rows(&world, "other", 50).await;
    world.holds("orders", 100).await;
    let reason = world.becomes("orders", "full").await.unwrap();
    assert!(reason.contains("group mail") && reason.contains("100 entries"), "{reason}");
    world.holds("other", 50).await;
    assert_eq!(world.becomes("other", "active").await, None);
    relay.logged("stream orders is full").await;
    let status = world.status_text();
    assert!(status.contains("consumer group mail has no consumer, 100 entries wait"), "{status}");
    let mail = Workers::join(&world, "mail", &["orders"]);
    let repeats = mail.finish(&world, &["orders"]).await;
    assert_eq!(repeats, 0);
    world.reconcile().await;
    assert_eq!(world.becomes("orders", "active").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_group_is_held_at_its_limit() {
    let world = World::new().await;
    let more = [("OUTBOX_CHECKPOINT", "100ms"), ("OUTBOX_STREAM_LIMIT", "100")];
    let _relay = world.relay("relay", &more);
    write_rows(&world, "orders", 250).await;
    let reason = world.becomes("orders", "full").await.unwrap();
    assert!(reason.contains("no consumer group"), "{reason}");
    assert_eq!(length(&world, "orders").await, 100);
    // A loss does not make more of it.
    world.redis::<()>(&["FLUSHALL"]).await;
    world.holds("orders", 100).await;
    make_group(&world, "orders", "mail").await;
    let mail = Workers::join(&world, "mail", &["orders"]);
    assert_eq!(mail.finish(&world, &["orders"]).await, 0);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_group_is_trimmed_where_that_is_wanted() {
    let world = World::new().await;
    let more = [
        ("OUTBOX_CHECKPOINT", "100ms"),
        ("OUTBOX_STREAM_LIMIT", "100"),
        ("OUTBOX_UNGROUPED", "trim"),
    ];
    let relay = world.relay("relay", &more);
    write_rows(&world, "orders", 1_050).await;
    eventually("the newest entries are there", BOUND, || async {
        world.dispatched("orders").await == 1_050
    })
    .await;
    assert_eq!(length(&world, "orders").await, 100);
    eventually("its trim point is its floor", BOUND, || async {
        world.floor("orders").await == (950, 0)
    })
    .await;
    world.redis::<()>(&["FLUSHALL"]).await;
    relay.logged("Redis lost entries 951 to 1050 of stream orders").await;
    world.holds("orders", 100).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_without_a_group_is_trimmed_by_age_where_that_is_wanted() {
    let world = World::new().await;
    let more =
        [("OUTBOX_CHECKPOINT", "100ms"), ("OUTBOX_RETENTION", "2s"), ("OUTBOX_UNGROUPED", "trim")];
    let _relay = world.relay("relay", &more);
    write_rows(&world, "orders", 20).await;
    world.settled().await;
    world.holds("orders", 0).await;
    write_rows(&world, "orders", 1).await;
    world.holds("orders", 1).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_bound_a_stream_as_well() {
    let world = World::new().await;
    let more = [("OUTBOX_CHECKPOINT", "100ms"), ("OUTBOX_STREAM_BYTES", "256KiB")];
    let more = [more[0], more[1], ("OUTBOX_BATCH_ROWS", "20")];
    let _relay = world.relay("relay", &more);
    make_group(&world, "orders", "mail").await;
    let client = world.application().await;
    let sql = "insert into outbox.entry (stream, payload) \
               select 'orders', to_jsonb(repeat('x', 10000)) from generate_series(1, 100)";
    client.batch_execute(sql).await.unwrap();
    let reason = world.becomes("orders", "full").await.unwrap();
    assert!(reason.contains("OUTBOX_STREAM_BYTES"), "{reason}");
    let held: u64 = world.redis(&["MEMORY", "USAGE", "orders", "SAMPLES", "0"]).await;
    // One append more than the limit.
    assert!(held < (256 << 10) + 20 * 12_000, "{held} bytes");
    let entries = length(&world, "orders").await;
    let mail = Workers::join(&world, "mail", &["orders"]);
    mail.acknowledges_all(&world, "orders").await;
    assert!(entries < 100);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lag_and_fill_are_in_the_metrics_and_end_with_the_group() {
    let world = World::new().await;
    let more = [("OUTBOX_CHECKPOINT", "100ms"), ("OUTBOX_STREAM_LIMIT", "80")];
    let relay = world.relay("relay", &more);
    make_group(&world, "orders", "mail").await;
    write_rows(&world, "orders", 40).await;
    world.settled().await;
    let address = crate::metrics::address(&relay).await;
    let lag = r#"outbox_relay_group_lag_entries{stream="orders",group="mail"}"#;
    crate::metrics::becomes(&address, lag, 40.0).await;
    let ratio = r#"outbox_relay_stream_limit_ratio{stream="orders"}"#;
    crate::metrics::becomes(&address, ratio, 0.5).await;
    let last = "outbox_relay_last_checkpoint_timestamp_seconds";
    assert!(crate::metrics::value(&address, last).await.unwrap() > 1e9);
    world.redis::<()>(&["XGROUP", "DESTROY", "orders", "mail"]).await;
    crate::metrics::becomes(&address, lag, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_redis_gets_room_by_what_is_acknowledged() {
    let world = World::new().await;
    let more = [("OUTBOX_CHECKPOINT", "100ms"), ("OUTBOX_BATCH_ROWS", "50")];
    let relay = world.relay("relay", &more);
    make_group(&world, "orders", "mail").await;
    write_rows(&world, "orders", 3_000).await;
    world.settled().await;
    // No memory for anything more, and nobody raises the limit.
    let info: String = world.redis(&["INFO", "memory"]).await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", used.trim()]).await;
    write_rows(&world, "orders", 3_000).await;
    let reason = world.becomes("orders", "full").await.unwrap();
    assert!(reason.contains("OOM"), "{reason}");
    let mail = Workers::join(&world, "mail", &["orders"]);
    assert_eq!(mail.finish(&world, &["orders"]).await, 0);
    world.reconcile().await;
    relay.lost_nothing();
}

/// Number of the floor of a stream, and whatever a checkpoint has of its groups, with the canary.
async fn stored(world: &World, stream: &str) -> (i64, String) {
    let sql =
        "select n, format('%s %s %s', nonce, count, groups) from outbox.floor where stream = $1";
    let row = world.owner().await.query_one(sql, &[&stream]).await.unwrap();
    (row.get(0), row.get(1))
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_full_redis_the_floor_is_stored_and_its_groups_only_when_it_has_room_again() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", "100ms")]);
    make_group(&world, "orders", "mail").await;
    write_rows(&world, "orders", 300).await;
    world.settled().await;
    eventually("the group is stored", BOUND, || async {
        stored(&world, "orders").await.1.contains("mail")
    })
    .await;
    // Far below what it uses, so that nothing that is trimmed makes room.
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "100kb"]).await;
    write_rows(&world, "orders", 10).await;
    world.becomes("orders", "full").await.unwrap();
    let (floor, groups) = stored(&world, "orders").await;
    assert_eq!(floor, 0);
    let read = ["XREADGROUP", "GROUP", "mail", "w", "COUNT", "200", "STREAMS", "orders", ">"];
    let entries: Reply = world.redis(&read).await;
    let mut acknowledge = vec!["XACK", "orders", "mail"];
    acknowledge.extend(entries[0].1.iter().map(|(id, _)| id.as_str()));
    assert_eq!(world.redis::<u64>(&acknowledge).await, 200);
    eventually("the floor is stored", BOUND, || async { stored(&world, "orders").await.0 == 200 })
        .await;
    // By the count of the canary nobody would see that Redis went back to before it was full.
    assert_eq!(stored(&world, "orders").await.1, groups);
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    eventually("the group is stored as it is", BOUND, || async {
        stored(&world, "orders").await.1 != groups
    })
    .await;
    world.settled().await;
}
