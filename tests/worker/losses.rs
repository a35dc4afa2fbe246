//! Workers, Redis and Postgres die in the middle.

use std::time::{Duration, Instant};

use outbox_relay::worker::{Outcome, Settings};

use super::shop::{BOUND, Shop};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stopped_halfway_through_a_job_retries_safely() {
    let shop = Shop::open().await;
    let gate = shop.gate().await;
    shop.order(1, 1, "wait").await;
    let worker = shop.process("worker-1");
    // Its effect is written and not committed.
    shop.waiting(1).await;
    worker.kill();
    assert_eq!(shop.number("select count(*) from work.receipts").await, 0);
    assert_eq!(shop.number("select count(*) from outbox.done").await, 0);
    let again = shop.process("worker-1");
    shop.waiting(1).await;
    drop(gate);
    shop.done(1).await;
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(1).await;
    drop(again);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_database_write_is_delayed_and_the_queue_does_not_say_done_too_soon() {
    let shop = Shop::open().await;
    let gate = shop.gate().await;
    let event = shop.order(1, 1, "wait").await;
    let worker = shop.start(shop.settings("worker-1"));
    shop.waiting(1).await;
    // What comes behind it is done and acknowledged meanwhile.
    shop.order(2, 1, "work").await;
    shop.done(1).await;
    eventually("the other one is acknowledged", BOUND, || async { shop.pending().await == 1 })
        .await;
    assert_eq!(worker.outcomes_of(event), []);
    assert_eq!(shop.number("select count(*) from outbox.done").await, 1);
    drop(gate);
    shop.done(2).await;
    shop.nothing_is_pending().await;
    assert_eq!(worker.outcomes_of(event), [Outcome::Done]);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_restarts_in_the_middle_and_the_durable_data_still_tells_the_full_story() {
    let mut shop = Shop::open().await;
    let worker = shop.start(Settings { handlers: 4, ..shop.settings("worker-1") });
    shop.orders(0..300, "work").await;
    let some = "select least(count(*), 100) from work.receipts";
    shop.becomes("some events are done", some, 100).await;
    // Nothing of it is on disk.
    shop.world.redis.kill().unwrap();
    shop.orders(300..400, "work").await;
    shop.world.redis.start_again().unwrap();
    shop.done(400).await;
    shop.world.redis::<()>(&["FLUSHALL"]).await;
    shop.orders(400..450, "work").await;
    shop.done(450).await;
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(450).await;
    worker.stop().await;
    shop.world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_of_one_group_are_killed_in_turn_for_a_minute_and_every_order_is_handled_once()
{
    let shop = Shop::open().await;
    let (begun, mut orders, mut kills) = (Instant::now(), 0, 0);
    let (mut first, mut second) = (shop.process("worker-1"), shop.process("worker-2"));
    while begun.elapsed() < Duration::from_secs(60) {
        shop.orders(orders..orders + 60, "sleep 0.01").await;
        orders += 60;
        let some = format!("select least(count(*), {0}) from work.receipts", orders - 40);
        shop.becomes("some are handled", &some, orders - 40).await;
        first.kill();
        (first, second) = (second, shop.process(["worker-1", "worker-2"][kills % 2]));
        kills += 1;
    }
    shop.done(orders).await;
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(orders).await;
    println!("{orders} orders, {kills} workers killed");
    assert!(kills > 5, "{kills}");
    drop((first, second));
}

#[tokio::test(flavor = "multi_thread")]
async fn postgres_lost_in_the_middle_costs_waiting_and_no_attempt() {
    let mut shop = Shop::open().await;
    let settings = Settings { attempts: 2, handlers: 4, ..shop.settings("worker-1") };
    let worker = shop.start(settings);
    // The second attempt is the last one, and is interrupted.
    shop.orders(0..400, "fail_then_sleep").await;
    for _ in 0..3 {
        let done = shop.number("select count(*) from work.receipts").await;
        let more = format!("select least(count(*), {0}) from work.receipts", done + 30);
        shop.becomes("more are done", &more, done + 30).await;
        shop.world.postgres.stop_immediate().unwrap();
        // What it remembers of its attempts is read again.
        shop.world.redis::<u64>(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]).await;
        shop.world.postgres.restart().unwrap();
    }
    shop.done(400).await;
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(400).await;
    let outcomes = worker.outcomes.lock().unwrap().clone();
    let interrupted = |outcome: &Outcome| matches!(outcome, Outcome::Interrupted { .. });
    assert!(outcomes.iter().any(|(_, outcome)| interrupted(outcome)), "{outcomes:?}");
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_dead_worker_was_given_is_taken_over() {
    let shop = Shop::open().await;
    let gate = shop.gate().await;
    shop.order(1, 1, "wait").await;
    shop.order(2, 1, "wait").await;
    let dead = shop.process("worker-1");
    shop.waiting(2).await;
    // One that lives keeps what it was given, however long that takes.
    let other = shop.start(shop.settings("worker-2"));
    shop.read_by(2).await;
    let held_since = Instant::now();
    while held_since.elapsed() < Duration::from_millis(2_500) {
        let taken = ["XPENDING", "orders", super::shop::GROUP, "-", "+", "10", "worker-2"];
        assert_eq!(shop.world.redis::<Vec<redis::Value>>(&taken).await, []);
        shop.waiting(2).await;
    }
    dead.kill();
    shop.waiting(2).await;
    drop(gate);
    shop.done(2).await;
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(2).await;
    other.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_asked_to_stop_ends_what_it_has_begun_and_leaves_the_rest() {
    let shop = Shop::open().await;
    let gate = shop.gate().await;
    shop.orders(0..20, "wait").await;
    let worker = shop.start(Settings { handlers: 2, ..shop.settings("worker-1") });
    shop.waiting(2).await;
    let stopping = tokio::spawn(worker.stop());
    shop.world.settled().await;
    drop(gate);
    stopping.await.unwrap();
    assert_eq!(shop.number("select count(*) from work.receipts").await, 2);
    let next = shop.start(shop.settings("worker-1"));
    shop.done(20).await;
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(20).await;
    next.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_somebody_removed_is_not_taken_for_done() {
    let shop = Shop::open().await;
    let event = shop.order(1, 1, "fail 1").await;
    // Given, failed once, and removed before it is tried again.
    let slow = Settings {
        wait: Duration::from_secs(3_600),
        longest_wait: Duration::from_secs(3_600),
        ..shop.settings("worker-1")
    };
    let worker = shop.start(slow);
    eventually("it has failed", BOUND, || async { worker.outcomes_of(event).len() == 1 }).await;
    worker.stop().await;
    let ids: Vec<(String, Vec<String>)> = shop.world.redis(&["XRANGE", "orders", "-", "+"]).await;
    let removed: u64 = shop.world.redis(&["XDEL", "orders", &ids[0].0]).await;
    assert_eq!(removed, 1);
    let worker = shop.start(shop.settings("worker-1"));
    shop.order(2, 1, "work").await;
    shop.done(1).await;
    eventually("the other one is acknowledged", BOUND, || async { shop.pending().await == 1 })
        .await;
    let urls = shop.world.urls();
    let variables = [("DATABASE_URL", urls.0.as_str()), ("REDIS_URL", &urls.1)];
    let rebuilt = crate::support::command::command(&["rebuild", "orders", "--yes"], &variables);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:#?}");
    shop.done(2).await;
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(2).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_back_behind_its_back_is_done_although_the_stream_is_never_quiet() {
    let shop = Shop::open().await;
    let event = shop.order(1, 1, "work").await;
    shop.world.settled().await;
    let group = ["XGROUP", "CREATE", "orders", super::shop::GROUP, "0"];
    shop.world.redis::<redis::Value>(&group).await;
    let read = ["XREADGROUP", "GROUP", super::shop::GROUP, "other", "STREAMS", "orders", ">"];
    let mut streams = shop.world.streams().await;
    redis::cmd(read[0]).arg(&read[1..]).exec_async(&mut streams).await.unwrap();
    let hour = Duration::from_secs(3_600);
    let worker = shop.start(Settings { claim_after: hour, ..shop.settings("worker-1") });
    shop.orders(10..11, "work").await;
    shop.done(1).await;
    // As the relay does it when it puts a group back.
    let ids: Vec<(String, Vec<String>)> = shop.world.redis(&["XRANGE", "orders", "-", "+"]).await;
    let claim = ["XCLAIM", "orders", super::shop::GROUP, "worker-1", "0", &ids[0].0, "JUSTID"];
    let given = redis::cmd(claim[0]).arg(&claim[1..]).exec_async(&mut streams).await;
    given.unwrap();
    let (begun, mut order) = (Instant::now(), 11);
    while worker.outcomes_of(event).is_empty() {
        assert!(begun.elapsed() < BOUND, "it was never looked for");
        shop.orders(order..order + 1, "work").await;
        order += 1;
    }
    shop.done(order - 9).await;
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(order - 9).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_is_lost_before_it_was_stored_is_made_again() {
    let world = crate::support::world::World::new().await;
    let shop = Shop::open_with_checkpoints(world, "1m").await;
    shop.order(1, 1, "work").await;
    let worker = shop.start(shop.settings("worker-1"));
    shop.done(1).await;
    shop.world.redis::<()>(&["FLUSHALL"]).await;
    shop.order(2, 1, "work").await;
    shop.world.holds("orders", 2).await;
    shop.done(2).await;
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(2).await;
    worker.stop().await;
}
