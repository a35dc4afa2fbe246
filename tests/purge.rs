//! Rows and log that nobody needs go, leaf by leaf; nothing else does, and no writer waits.

use std::time::{Duration, Instant};

use crate::support::dice::Dice;
use crate::support::eventually;
use crate::support::journal::{Note, read_stream};
use crate::support::leaves;
use crate::support::workers::{Workers, make_group};
use crate::support::world::World;
use crate::support::writers::write_rows;

const BOUND: Duration = Duration::from_secs(60);
/// Rows are old after two seconds.
const SHORT: [(&str, &str); 2] = [("OUTBOX_RETENTION", "2s"), ("OUTBOX_CHECKPOINT", "100ms")];

fn now() -> f64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64()
}

impl World {
    async fn count(&self, table: &str) -> i64 {
        let sql = format!("select count(*) from outbox.{table}");
        self.owner().await.query_one(&sql, &[]).await.unwrap().get(0)
    }

    async fn becomes_empty(&self, table: &str) {
        eventually(&format!("outbox.{table} is empty"), BOUND, || async {
            self.count(table).await == 0
        })
        .await;
    }

    /// Writes rows, and lets a group acknowledge them.
    async fn write_and_read(&self, rows: usize) {
        if self.group("orders", "mail").await.is_none() {
            make_group(self, "orders", "mail").await;
        }
        write_rows(self, "orders", rows).await;
        let workers = Workers::join(self, "mail", &["orders"]);
        workers.acknowledges_all(self, "orders").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_every_group_has_acknowledged_goes_when_it_is_old() {
    let world = World::new().await;
    let relay = world.relay("relay", &SHORT);
    world.write_and_read(500).await;
    world.becomes_empty("entry").await;
    world.becomes_empty("batch").await;
    relay.logged("purged about 500 rows of outbox.entry").await;
    let status = world.status_text();
    assert!(status.contains("purged: 500 entries"), "{status}");
    // The numbering goes on, with and without a restart.
    world.write_and_read(3).await;
    world.becomes_empty("batch").await;
    drop(relay);
    world.end_lease().await;
    let _relay = world.relay("successor", &SHORT);
    write_rows(&world, "orders", 1).await;
    world.holds("orders", 1).await;
    assert_eq!(read_stream(&world, "orders").await[0].position().1, 504);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_group_has_not_acknowledged_stays_however_old() {
    let world = World::new().await;
    let relay = world.relay("relay", &SHORT);
    make_group(&world, "slow", "mail").await;
    write_rows(&world, "slow", 10).await;
    world.write_and_read(10).await;
    write_rows(&world, "nobody", 10).await;
    world.settled().await;
    let address = crate::metrics::address(&relay).await;
    let last = "outbox_relay_last_purge_timestamp_seconds";
    let begun = now() + 4.0;
    eventually("the purge has looked after the retention", BOUND, || async {
        crate::metrics::value(&address, last).await.unwrap() > begun
    })
    .await;
    assert_eq!(world.count("entry").await, 30, "one leaf holds all of them");
    world.redis::<()>(&["FLUSHALL"]).await;
    world.holds("slow", 10).await;
    world.holds("nobody", 10).await;
    world.reconcile().await;
}

/// A schema whose leaves are small from the start.
async fn with_small_leaves() -> World {
    let world = World::new().await;
    leaves::make_small(&world).await;
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_open_for_long_holds_back_its_own_leaf_and_loses_no_row() {
    let world = with_small_leaves().await;
    let _relay = world.relay("relay", &SHORT);
    world.write_and_read(50).await;
    // Its row is in the first leaf, and stays invisible.
    let late = world.application().await;
    late.batch_execute("begin").await.unwrap();
    let note = Note::new("orders");
    note.insert(&late).await.unwrap();
    // Another one that writes nothing of the outbox keeps an old snapshot.
    let old = world.owner().await;
    old.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    world.write_and_read(400).await;
    for leaf in ["entry_100", "entry_200", "entry_300"] {
        let sql = format!("select to_regclass('outbox.{leaf}') is null");
        eventually(&format!("{leaf} is emptied"), BOUND, || async {
            let client = world.owner().await;
            let is_gone: bool = client.query_one(&sql, &[]).await.unwrap().get(0);
            is_gone || world.count(leaf).await == 0
        })
        .await;
    }
    assert!(world.count("entry_0").await >= 50, "the late row's leaf is left alone");
    late.batch_execute("commit").await.unwrap();
    world.journal.write([note]);
    world.write_and_read(1).await;
    world.becomes_empty("entry").await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_writer_waits_for_the_purge() {
    let world = with_small_leaves().await;
    let _relay = world.relay("relay", &SHORT);
    // Somebody who writes now and then, and reads the whole table for long.
    let reader = world.owner().await;
    reader.batch_execute("begin; select count(*) from outbox.entry").await.unwrap();
    let client = world.application().await;
    let workers = {
        make_group(&world, "orders", "mail").await;
        Workers::join(&world, "mail", &["orders"])
    };
    let (begun, mut longest) = (Instant::now(), Duration::ZERO);
    while begun.elapsed() < Duration::from_secs(8) {
        let note = Note::new("orders");
        let before = Instant::now();
        note.insert(&client).await.unwrap();
        longest = longest.max(before.elapsed());
        world.journal.write([note]);
        crate::support::pause().await;
    }
    // A lock wait of at most 50 ms, and slack for a busy machine.
    assert!(longest < Duration::from_millis(500), "an insert took {longest:?}");
    reader.batch_execute("commit").await.unwrap();
    workers.acknowledges_all(&world, "orders").await;
    world.becomes_empty("entry").await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_the_net_are_moved_into_a_leaf_and_arrive_once() {
    let world = World::new().await;
    // No leaf for ids from 10,000,000 on, as after hours in which none could be attached.
    world
        .sql(
            "do $$ declare l record; begin \
                 for l in select * from outbox.leaf where tree = 'entry' and lower > 0 loop \
                     execute format('drop table outbox.%I', l.name); \
                     delete from outbox.leaf where name = l.name; \
                 end loop; end $$; \
             select setval('outbox.entry_id_seq', 9999998)",
        )
        .await;
    write_rows(&world, "orders", 40).await;
    assert_eq!(world.count("entry_net").await, 39);
    let relay = world.relay("relay", &[("OUTBOX_RETENTION", "5s"), SHORT[1]]);
    world.becomes_empty("entry_net").await;
    relay.logged("39 rows had no partition of their own").await;
    world.write_and_read(5).await;
    world.reconcile().await;
    assert_eq!(world.count("entry_net").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_fills_slowly_comes_to_its_end() {
    let world = World::new().await;
    let _relay = world.relay("relay", &SHORT);
    make_group(&world, "orders", "mail").await;
    let workers = Workers::join(&world, "mail", &["orders"]);
    let client = world.application().await;
    // Rows keep coming, so no leaf in use is ever old as a whole.
    eventually("the first leaf is emptied and dropped", BOUND, || async {
        let note = Note::new("orders");
        note.insert(&client).await.unwrap();
        world.journal.write([note]);
        let sql = "select to_regclass('outbox.entry_0') is null and to_regclass('outbox.batch_0') is null";
        world.owner().await.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
    workers.acknowledges_all(&world, "orders").await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_backup_older_than_the_purge_moves_on_to_the_floor() {
    let world = World::new().await;
    let relay = world.relay("relay", &SHORT);
    world.write_and_read(30).await;
    let old: Vec<u8> = world.redis(&["DUMP", "orders"]).await;
    world.write_and_read(30).await;
    world.becomes_empty("batch").await;
    make_group(&world, "other", "mail").await;
    write_rows(&world, "orders", 5).await;
    world.settled().await;
    world.checkpointed("orders").await;
    let state = world.group("orders", "mail").await.unwrap();
    let mut restore = redis::cmd("RESTORE");
    restore.arg("orders").arg(0).arg(old).arg("REPLACE");
    restore.exec_async(&mut world.streams().await).await.unwrap();
    relay.logged("Redis lost entries 61 to 65 of stream orders").await;
    eventually("the group is where it was", BOUND, || async {
        world.group("orders", "mail").await.as_ref() == Some(&state)
    })
    .await;
    write_rows(&world, "orders", 1).await;
    world.settled().await;
    let workers = Workers::join(&world, "mail", &["orders"]);
    workers.acknowledges_all(&world, "orders").await;
    assert_eq!(relay.lost("orders").len(), 1, "no loop of losses:\n{}", relay.log());
    world.reconcile().await;
}

/// What the purge does at once, without a relay beside it.
async fn purge_at_once(world: &World) -> i32 {
    let sql = "select leaves from outbox.purge_entries('0s')";
    world.owner().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_not_sealed_keeps_its_leaf() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", "100ms")]);
    let late = world.application().await;
    late.batch_execute("begin").await.unwrap();
    let note = Note::new("orders");
    note.insert(&late).await.unwrap();
    world.write_and_read(20).await;
    assert!(relay.stop().success());
    assert_eq!(purge_at_once(&world).await, 0, "its lock holds the leaf");
    late.batch_execute("commit").await.unwrap();
    world.journal.write([note]);
    assert_eq!(purge_at_once(&world).await, 0, "committed, and not sealed");
    assert_eq!(world.count("entry").await, 21);
    let _relay = world.relay("successor", &[("OUTBOX_CHECKPOINT", "100ms")]);
    world.write_and_read(1).await;
    world.reconcile().await;
    assert_eq!(purge_at_once(&world).await, 1, "nothing is in the way");
    assert_eq!(world.count("entry").await, 0);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_stream_whose_group_is_behind_keeps_the_leaf_of_all() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", "100ms")]);
    make_group(&world, "slow", "mail").await;
    write_rows(&world, "slow", 10).await;
    world.write_and_read(10).await;
    assert_eq!(purge_at_once(&world).await, 0);
    let slow = Workers::join(&world, "mail", &["slow"]);
    slow.acknowledges_all(&world, "slow").await;
    assert_eq!(purge_at_once(&world).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_killed_while_they_purge_leave_nothing_by_halves() {
    let world = with_small_leaves().await;
    make_group(&world, "orders", "mail").await;
    let workers = Workers::join(&world, "mail", &["orders"]);
    let (mut dice, more) = (Dice::new(), [("OUTBOX_RETENTION", "1s"), SHORT[1]]);
    for _ in 0..2 {
        let mut dying = world.relay("dying", &more);
        dying.logged("leading with token").await;
        write_rows(&world, "orders", 150).await;
        dying.logged("purged about").await;
        write_rows(&world, "orders", 150).await;
        // The moment is what is random here; there is nothing to wait for.
        tokio::time::sleep(Duration::from_millis(dice.below(1_200))).await;
        dying.kill();
        std::fs::remove_file(world.folder.path().join("dying.log")).unwrap();
        world.end_lease().await;
    }
    let _relay = world.relay("successor", &more);
    workers.acknowledges_all(&world, "orders").await;
    world.becomes_empty("entry").await;
    world.becomes_empty("batch").await;
    write_rows(&world, "orders", 1).await;
    world.holds("orders", 1).await;
    assert_eq!(read_stream(&world, "orders").await[0].position().1, 601);
    world.reconcile().await;
}
