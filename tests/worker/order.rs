//! Events of a key are worked on in their order.

use outbox_relay::worker::{Outcome, Settings};

use super::shop::{BOUND, Shop};
use crate::support::eventually;
use crate::support::world::World;

/// Pairs of receipts of one order that were made in the wrong order.
const CROSSED: &str = "select count(*) from work.receipts a join work.receipts b \
                       on a.order_id = b.order_id and a.step < b.step and a.number > b.number";

#[tokio::test(flavor = "multi_thread")]
async fn events_of_a_key_are_done_in_their_order_and_others_beside_them() {
    let shop = Shop::open().await;
    let gate = shop.gate().await;
    shop.order(1, -300, "wait").await;
    // More than are read ahead.
    let sql = "insert into outbox.entry (stream, key, payload) \
               select 'orders', '1', jsonb_build_object('order', 1, 'step', -n, 'do', 'work') \
               from generate_series(200, 1, -1) n";
    shop.world.sql(sql).await;
    for step in 2..=30 {
        for order in 1..=8 {
            shop.order(order, step, "sleep 0.001").await;
        }
    }
    let worker = shop.start(shop.settings("worker-1"));
    shop.waiting(1).await;
    // All but those behind the one that waits.
    shop.done(7 * 29).await;
    drop(gate);
    shop.done(8 * 29 + 201).await;
    assert_eq!(shop.number(CROSSED).await, 0);
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(8 * 29 + 201).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_is_tried_again_holds_back_those_of_its_key_and_no_others() {
    let shop = Shop::open().await;
    let failing = shop.order(1, 1, "fail 2").await;
    let behind = shop.order(1, 2, "work").await;
    shop.orders(100..300, "work").await;
    let hour = std::time::Duration::from_secs(3_600);
    let worker =
        shop.start(Settings { wait: hour, longest_wait: hour, ..shop.settings("worker-1") });
    shop.done(200).await;
    eventually("it has failed", BOUND, || async { worker.outcomes_of(failing).len() == 1 }).await;
    assert_eq!(worker.outcomes_of(behind), []);
    worker.stop().await;
    // Also by one that reads them again.
    let worker = shop.start(shop.settings("worker-1"));
    shop.done(202).await;
    assert_eq!(shop.number(CROSSED).await, 0);
    assert_eq!(worker.outcomes_of(behind), [Outcome::Done]);
    shop.nothing_is_pending().await;
    shop.every_event_was_done_once(202).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_key_does_not_stop_a_stream_however_much_waits_behind_it() {
    let shop = Shop::open().await;
    shop.order(1, 1, "fail").await;
    let sql = "insert into outbox.entry (stream, key, payload) \
               select 'orders', '1', jsonb_build_object('order', 1, 'step', n, 'do', 'work') \
               from generate_series(2, 2000) n";
    shop.world.sql(sql).await;
    shop.orders(100..200, "work").await;
    let hour = std::time::Duration::from_secs(3_600);
    let worker =
        shop.start(Settings { wait: hour, longest_wait: hour, ..shop.settings("worker-1") });
    shop.done(100).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_a_cluster_have_a_worker_each() {
    let shop = Shop::open_with(World::with_cluster(0).await).await;
    shop.world.sql("select outbox.set_partitions('orders', 4)").await;
    let sql = "select count(*) from outbox.partitioning where partitions = 4";
    shop.becomes("rows go to the partitions", sql, 1).await;
    let partitions: Vec<String> = (0..4).map(|n| format!("orders:{{{n}}}")).collect();
    let start = |stream: &String| {
        shop.start(Settings { stream: stream.clone(), ..shop.settings("worker-1") })
    };
    let workers: Vec<_> = partitions.iter().map(start).collect();
    for step in 1..=10 {
        for order in 1..=20 {
            shop.order(order, step, "work").await;
        }
    }
    shop.done(200).await;
    assert_eq!(shop.number(CROSSED).await, 0);
    shop.every_event_was_done_once(200).await;
    for worker in workers {
        worker.stop().await;
    }
}
