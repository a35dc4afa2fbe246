//! Two relays: one leads, the other stands by, and a leader that comes back from the dead does no
//! harm.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::proxy::Proxy;
use crate::support::relay::Relay;
use crate::support::world::{RELAY, World};
use crate::support::writers::{Writers, write_rows};

/// A leader, and a standby that knows it.
async fn pair(world: &World, more: &[(&str, &str)]) -> (Relay, Relay) {
    let first = world.relay("first", more);
    first.logged("leading with token").await;
    let second = world.relay("second", more);
    second.logged("standing by").await;
    assert!(!second.log().contains("leading"));
    (first, second)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_takes_over_when_the_lease_of_a_killed_leader_runs_out() {
    let world = World::new().await;
    let writers = Writers::start(&world, 3);
    let (mut first, second) = pair(&world, &[]).await;
    writers.write_more(200).await;
    first.kill();
    let killed = Instant::now();
    second.logged("leading with token").await;
    // The lease of 2 s, a look each second, and slack for a slow machine.
    assert!(killed.elapsed() < Duration::from_secs(6), "took {:?}", killed.elapsed());
    writers.write_more(200).await;
    writers.stop().await;
    world.reconcile().await;
    second.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_frozen_beyond_its_lease_does_no_harm_when_it_goes_on() {
    let world = World::new().await;
    let writers = Writers::start(&world, 4);
    let small = [("OUTBOX_BATCH_ROWS", "20")];
    let (mut first, second) = pair(&world, &small).await;
    writers.write_more(200).await;
    first.signal(Signal::STOP);
    second.logged("leading with token").await;
    writers.write_more(200).await;
    first.signal(Signal::CONT);
    first.logged("standing by").await;
    writers.write_more(200).await;
    writers.stop().await;
    world.reconcile().await;
    second.lost_nothing();
    assert!(first.is_running(), "{}", first.log());
    // It is of use again.
    drop(second);
    first.logged_times("leading with token", 2).await;
    write_rows(&world, "orders", 10).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_frozen_in_turn_take_over_from_each_other() {
    let world = World::new().await;
    let writers = Writers::start(&world, 4);
    let more = [("OUTBOX_LEASE", "1s"), ("OUTBOX_BATCH_ROWS", "20")];
    let (mut first, mut second) = pair(&world, &more).await;
    for turn in 1..=3 {
        first.signal(Signal::STOP);
        second.logged_times("leading with token", turn).await;
        first.signal(Signal::CONT);
        first.logged_times("standing by", turn).await;
        second.signal(Signal::STOP);
        first.logged_times("leading with token", turn + 1).await;
        second.signal(Signal::CONT);
        second.logged_times("standing by", turn + 1).await;
    }
    writers.stop().await;
    world.reconcile().await;
    first.lost_nothing();
    second.lost_nothing();
    assert!(first.is_running() && second.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_stop_hands_over_long_before_the_lease_ends() {
    let world = World::new().await;
    let writers = Writers::start(&world, 2);
    let (mut first, second) = pair(&world, &[("OUTBOX_LEASE", "30s")]).await;
    writers.write_more(100).await;
    assert!(first.stop().success());
    let stopped = Instant::now();
    second.logged("leading with token").await;
    assert!(stopped.elapsed() < Duration::from_secs(5), "took {:?}", stopped.elapsed());
    writers.stop().await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_stops_at_once() {
    let world = World::new().await;
    let (mut first, mut second) = pair(&world, &[]).await;
    let asked = Instant::now();
    assert!(second.stop().success());
    assert!(asked.elapsed() < Duration::from_secs(5), "took {:?}", asked.elapsed());
    write_rows(&world, "orders", 10).await;
    world.reconcile().await;
    assert!(first.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_from_postgres_is_replaced_and_stands_by_afterwards() {
    let world = World::new().await;
    let writers = Writers::start(&world, 3);
    let proxy = Proxy::start(([127, 0, 0, 1], world.postgres.port()).into());
    let url = format!("postgres://{RELAY}@127.0.0.1:{}/postgres", proxy.port());
    let urls = (url, world.urls().1);
    let mut first = Relay::start(world.folder.path(), "first", &world.variables(&urls, &[]));
    first.logged("leading with token").await;
    let second = world.relay("second", &[]);
    second.logged("standing by").await;
    writers.write_more(200).await;
    proxy.black_hole(true);
    let cut_off = Instant::now();
    second.logged("leading with token").await;
    // The lease of 2 s, a look each second, and slack for a slow machine.
    assert!(cut_off.elapsed() < Duration::from_secs(6), "took {:?}", cut_off.elapsed());
    writers.write_more(200).await;
    proxy.black_hole(false);
    first.logged("standing by").await;
    writers.stop().await;
    world.reconcile().await;
    second.lost_nothing();
    assert!(first.is_running());
}
