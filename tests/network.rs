//! A network that swallows, delays, cuts and holds back what the relay and its servers say.

use std::time::{Duration, Instant};

use crate::support::eventually;
use crate::support::proxy::{Direction, Proxy};
use crate::support::relay::Relay;
use crate::support::world::{RELAY, World};
use crate::support::writers::{Writers, write_rows};

const SMALL: (&str, &str) = ("OUTBOX_BATCH_ROWS", "20");

fn before_redis(world: &World) -> Proxy {
    Proxy::start(([127, 0, 0, 1], world.redis.port()).into())
}

fn before_postgres(world: &World) -> Proxy {
    Proxy::start(([127, 0, 0, 1], world.postgres.port()).into())
}

/// A relay that reaches Postgres through `proxy`.
fn relay_behind(world: &World, proxy: &Proxy) -> Relay {
    let url = format!("postgres://{RELAY}@127.0.0.1:{}/postgres", proxy.port());
    let urls = (url, world.urls().1);
    Relay::start(world.folder.path(), "relay", &world.variables(&urls, &[SMALL]))
}

/// Waits until the relay has connected `times` times.
async fn connected(relay: &Relay, times: usize) {
    relay.logged_times("leading with token", times).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn appends_whose_replies_are_lost_are_not_repeated() {
    let (world, more) = (World::new().await, [SMALL, ("OUTBOX_AUDIT", "10s")]);
    let proxy = before_redis(&world);
    let relay = world.relay_through("relay", &proxy, &more);
    for times in 1..=4 {
        let stream = format!("lost-{times}");
        write_rows(&world, "before", 1).await;
        world.settled().await;
        proxy.swallow_replies(true);
        write_rows(&world, &stream, 30).await;
        // Redis has carried out what the relay never hears of.
        eventually("an append without a reply", Duration::from_secs(30), || async {
            world.redis::<u64>(&["XLEN", &stream]).await > 0
        })
        .await;
        assert_eq!(world.dispatched(&stream).await, 0, "nobody told the relay");
        proxy.swallow_replies(false);
        proxy.cut();
    }
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_arrive_after_their_sender_has_reconnected_change_nothing() {
    let world = World::new().await;
    let proxy = before_redis(&world);
    let relay = world.relay_through("relay", &proxy, &[SMALL, ("OUTBOX_AUDIT", "10s")]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    proxy.hold_requests(Duration::from_secs(5));
    proxy.hold_only_current();
    let held = Instant::now();
    write_rows(&world, "orders", 100).await;
    write_rows(&world, "new", 10).await;
    world.all_sealed().await;
    // Its session ends, and with it the connection to Redis, whose requests are still on the way.
    world.terminate("lease").await;
    connected(&relay, 2).await;
    world.settled().await;
    assert!(held.elapsed() < Duration::from_secs(5), "the requests must still be on their way");
    write_rows(&world, "orders", 30).await;
    world.settled().await;
    // One of the session, one of the watch.
    let others_are_left = || async { proxy.connections() == 2 };
    let what = "the old connection delivered all and ended";
    eventually(what, Duration::from_secs(30), others_are_left).await;
    assert!(held.elapsed() >= Duration::from_secs(5));
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_a_dead_relay_that_arrive_late_change_nothing() {
    let world = World::new().await;
    let proxy = before_redis(&world);
    let mut relay = world.relay_through("first", &proxy, &[SMALL]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    proxy.hold_requests(Duration::from_secs(4));
    write_rows(&world, "orders", 100).await;
    world.all_sealed().await;
    relay.kill();
    world.end_lease().await;
    let relay = world.relay("second", &[]);
    world.settled().await;
    write_rows(&world, "orders", 30).await;
    world.settled().await;
    let none_is_left = || async { proxy.connections() == 0 };
    eventually("the old connection delivered all and ended", Duration::from_secs(30), none_is_left)
        .await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_redis_carries_old_requests_out_after_the_relay_gave_them_up() {
    let world = World::new().await;
    let relay = world.relay("relay", &[SMALL]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    world.redis.freeze().unwrap();
    write_rows(&world, "orders", 100).await;
    relay.logged("lost the connection to Redis").await;
    write_rows(&world, "orders", 100).await;
    world.redis.thaw().unwrap();
    world.reconcile().await;
    relay.lost_nothing();
}

/// Cuts all connections of a relay after so many bytes, again and again, under load.
async fn cut_under_load(world: &World, relay: &Relay, proxy: &Proxy, direction: Direction) {
    let writers = Writers::start(world, 3);
    for bytes in [0, 1, 100, 3_000, 20_000] {
        let before = proxy.accepted();
        proxy.cut_after_bytes(direction, bytes);
        let again = || async { proxy.accepted() > before };
        eventually("the relay connects again", Duration::from_secs(60), again).await;
        writers.write_more(50).await;
    }
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_redis_are_cut_in_the_middle() {
    let world = World::new().await;
    let proxy = before_redis(&world);
    let relay = world.relay_through("relay", &proxy, &[SMALL]);
    connected(&relay, 1).await;
    cut_under_load(&world, &relay, &proxy, Direction::ToServer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_of_redis_are_cut_in_the_middle() {
    let world = World::new().await;
    let proxy = before_redis(&world);
    let relay = world.relay_through("relay", &proxy, &[SMALL]);
    connected(&relay, 1).await;
    cut_under_load(&world, &relay, &proxy, Direction::ToClient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_to_postgres_are_cut_in_the_middle() {
    let world = World::new().await;
    let proxy = before_postgres(&world);
    let relay = relay_behind(&world, &proxy);
    connected(&relay, 1).await;
    cut_under_load(&world, &relay, &proxy, Direction::ToServer).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_of_postgres_are_cut_in_the_middle() {
    let world = World::new().await;
    let proxy = before_postgres(&world);
    let relay = relay_behind(&world, &proxy);
    connected(&relay, 1).await;
    cut_under_load(&world, &relay, &proxy, Direction::ToClient).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_vanishes_without_a_word_is_given_up_and_found_again() {
    let world = World::new().await;
    let proxy = before_redis(&world);
    let relay = world.relay_through("relay", &proxy, &[SMALL]);
    let writers = Writers::start(&world, 2);
    connected(&relay, 1).await;
    writers.write_more(100).await;
    proxy.black_hole(true);
    // Sealing goes on for a while, and writers are not slowed down at all.
    relay.logged("lost the connection to Redis").await;
    writers.write_more(100).await;
    proxy.black_hole(false);
    connected(&relay, 2).await;
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_that_hangs_for_seconds_is_waited_for() {
    let world = World::new().await;
    let proxy = before_postgres(&world);
    let relay = relay_behind(&world, &proxy);
    let writers = Writers::start(&world, 2);
    connected(&relay, 1).await;
    proxy.black_hole(true);
    writers.write_more(500).await;
    proxy.black_hole(false);
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_far_away_redis_costs_latency_and_not_throughput() {
    let world = World::new().await;
    let proxy = before_redis(&world);
    let more = [("OUTBOX_BATCH_ROWS", "50"), ("OUTBOX_AUDIT", "10m")];
    let relay = world.relay_through("relay", &proxy, &more);
    connected(&relay, 1).await;
    proxy.set_delay(Duration::from_millis(50));
    write_rows(&world, "orders", 5_000).await;
    let begun = Instant::now();
    world.holds("orders", 5_000).await;
    // 100 batches of a round trip of 100 ms each would take 10 s one by one.
    assert!(begun.elapsed() < Duration::from_secs(6), "took {:?}", begun.elapsed());
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn audits_of_a_far_away_redis_do_not_disturb_a_stream_that_is_in_step() {
    let world = World::new().await;
    let proxy = before_redis(&world);
    let more = [SMALL, ("OUTBOX_AUDIT", "100ms")];
    let relay = world.relay_through("relay", &proxy, &more);
    proxy.set_delay(Duration::from_millis(20));
    let writers = Writers::start(&world, 4);
    writers.write_more(4_000).await;
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(!relay.log().contains("is rebuilding"), "{}", relay.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_whose_relay_died_before_it_heard_of_it_is_not_repeated() {
    let world = World::new().await;
    let proxy = before_redis(&world);
    let mut dying = world.relay_through("dying", &proxy, &[SMALL, ("OUTBOX_AUDIT", "10s")]);
    write_rows(&world, "before", 1).await;
    world.settled().await;
    proxy.swallow_replies(true);
    write_rows(&world, "orders", 30).await;
    eventually("an append without a reply", Duration::from_secs(30), || async {
        world.redis::<u64>(&["XLEN", "orders"]).await > 0
    })
    .await;
    dying.kill();
    assert_eq!(world.dispatched("orders").await, 0, "nobody told the relay");
    world.end_lease().await;
    let relay = world.relay("successor", &[SMALL]);
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_narrow_link_that_wavers_is_filled() {
    let world = World::new().await;
    let proxy = before_redis(&world);
    let more = [("OUTBOX_BATCH_ROWS", "50"), ("OUTBOX_AUDIT", "10m")];
    let relay = world.relay_through("relay", &proxy, &more);
    connected(&relay, 1).await;
    proxy.set_delay(Duration::from_millis(100));
    proxy.set_jitter(Duration::from_millis(50));
    proxy.set_bandwidth(500_000);
    write_rows(&world, "orders", 3_000).await;
    let begun = Instant::now();
    world.holds("orders", 3_000).await;
    // 60 batches of a round trip of 200 ms and more each would take 12 s one by one.
    assert!(begun.elapsed() < Duration::from_secs(7), "took {:?}", begun.elapsed());
    world.reconcile().await;
    relay.lost_nothing();
}
