//! A relay that ends at the worst moment: what it had begun is finished once, by the next one.

use std::time::Duration;

use crate::support::dice::Dice;
use crate::support::world::World;
use crate::support::writers::Writers;

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_killed_at_random_moments_loses_and_doubles_nothing() {
    let world = World::new().await;
    let writers = Writers::start(&world, 4);
    let mut dice = Dice::new();
    for life in 0..15 {
        let mut relay = world.relay("relay", &[("OUTBOX_BATCH_ROWS", "50")]);
        if life % 3 > 0 {
            relay.logged_times("leading with token", life - life / 3).await;
        }
        // The moment is what is random here; there is nothing to wait for.
        tokio::time::sleep(Duration::from_millis(dice.below(700))).await;
        relay.kill();
        if dice.one_in(5) {
            world.redis::<()>(&["FLUSHALL"]).await;
        }
        world.end_lease().await;
    }
    let mut relay = world.relay("relay", &[]);
    writers.write_more(200).await;
    writers.stop().await;
    world.reconcile().await;
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_drains_and_leaves_nothing_sealed_behind() {
    let world = World::new().await;
    let writers = Writers::start(&world, 4);
    for _ in 0..3 {
        let mut relay = world.relay("relay", &[("OUTBOX_BATCH_ROWS", "20")]);
        writers.write_more(500).await;
        assert!(relay.stop().success());
        assert!(!relay.log().contains("the next relay goes on with them"));
        let sql = "select count(*) from outbox.batch where dispatched_at is null";
        let left: i64 = world.owner().await.query_one(sql, &[]).await.unwrap().get(0);
        assert_eq!(left, 0, "batches that it sealed and did not append");
    }
    let _relay = world.relay("relay", &[]);
    writers.stop().await;
    world.reconcile().await;
}

/// Needs a build with fail-points: the step at which the process dies is exact.
#[cfg(feature = "failpoints")]
mod at_a_step {
    use std::collections::HashMap;
    use std::os::unix::process::ExitStatusExt as _;
    use std::time::Duration;

    use crate::support::relay::Relay;
    use crate::support::workers::{Reply, Workers, make_group};
    use crate::support::world::World;
    use crate::support::writers::{STREAMS, Writers, write_rows};

    /// A relay that dies at the `visit`th time it comes to `step`; returns when it is dead.
    async fn dies(world: &World, step: &str, visit: u32) -> Relay {
        let fail = format!("{step}:{visit}");
        let mut relay =
            world.relay("dying", &[("OUTBOX_FAILPOINT", &fail), ("OUTBOX_BATCH_ROWS", "50")]);
        assert_eq!(relay.wait(Duration::from_secs(60)).signal(), Some(9), "{}", relay.log());
        world.end_lease().await;
        relay
    }

    /// The ID of each entry that has one, by row.
    async fn entry_ids(world: &World) -> HashMap<i64, String> {
        let sql = "select id, entry_id from outbox.entry_status where n is not null";
        let rows = world.owner().await.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }

    async fn entries_in_redis(world: &World, stream: &str) -> u64 {
        world.redis(&["XLEN", stream]).await
    }

    /// Dies at `step` several times under load; the successor goes on with the same IDs.
    async fn killed_under_load(step: &str) {
        let world = World::new().await;
        let writers = Writers::start(&world, 4);
        for visit in [1, 2, 5, 20] {
            dies(&world, step, visit).await;
            let sealed = entry_ids(&world).await;
            let mut relay = world.relay("relay", &[]);
            writers.write_more(50).await;
            world.holds_all_of(&sealed).await;
            relay.kill();
            world.end_lease().await;
        }
        let relay = world.relay("relay", &[]);
        writers.stop().await;
        world.reconcile().await;
        relay.lost_nothing();
    }

    impl World {
        /// Waits until everything sealed by then is marked, and fails if an ID changed.
        async fn holds_all_of(&self, sealed: &HashMap<i64, String>) {
            let sql = "select count(*) from outbox.entry_status \
                       where id = any ($1) and state <> 'dispatched'";
            let ids: Vec<i64> = sealed.keys().copied().collect();
            crate::support::eventually(
                "what was sealed is dispatched",
                Duration::from_secs(60),
                || async {
                    self.owner().await.query_one(sql, &[&ids]).await.unwrap().get::<_, i64>(0) == 0
                },
            )
            .await;
            let now = entry_ids(self).await;
            for (row, id) in sealed {
                assert_eq!(now.get(row), Some(id), "row {row} was given another position");
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_before_a_seal_it_has_sent_nothing() {
        let world = World::new().await;
        write_rows(&world, "orders", 10).await;
        dies(&world, "before_seal", 1).await;
        assert_eq!(
            (world.sealed("orders").await, entries_in_redis(&world, "orders").await),
            (0, 0)
        );
        let _relay = world.relay("relay", &[]);
        world.reconcile().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_after_a_seal_its_successor_sends_it_once() {
        let world = World::new().await;
        write_rows(&world, "orders", 10).await;
        dies(&world, "after_seal", 1).await;
        assert_eq!(
            (world.sealed("orders").await, entries_in_redis(&world, "orders").await),
            (10, 0)
        );
        let _relay = world.relay("relay", &[]);
        world.reconcile().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_after_an_append_its_successor_does_not_repeat_it() {
        let world = World::new().await;
        write_rows(&world, "orders", 10).await;
        dies(&world, "after_append", 1).await;
        assert_eq!(
            (entries_in_redis(&world, "orders").await, world.dispatched("orders").await),
            (10, 0)
        );
        let relay = world.relay("relay", &[]);
        world.reconcile().await;
        relay.lost_nothing();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_while_it_puts_back_what_redis_lost() {
        let world = World::new().await;
        write_rows(&world, "orders", 300).await;
        let mut relay = world.relay("relay", &[]);
        world.settled().await;
        relay.kill();
        world.end_lease().await;
        world.redis::<()>(&["FLUSHALL"]).await;
        let mut dead = Vec::new();
        for visit in [1, 1, 2] {
            dead.push(dies(&world, "after_replay", visit).await);
        }
        let relay = world.relay("successor", &[]);
        world.reconcile().await;
        // Once told, what is missing is backlog: whoever goes on does not report it again.
        assert_eq!(dead[0].lost("orders"), [(1, 300)], "by all that died");
        relay.lost_nothing();
    }

    const STEPS: [&str; 5] =
        ["before_restore", "after_restore", "after_replay", "before_pend", "after_pend"];

    /// Dies at `step` while it puts back what `loss` took; the successor finds the groups where they were,
    /// with what they had not acknowledged.
    async fn killed_while_groups_come_back(loss: &[&str], step: &str) {
        let world = World::new().await;
        let mut relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", "100ms")]);
        write_rows(&world, "orders", 120).await;
        world.holds("orders", 120).await;
        make_group(&world, "orders", "mail").await;
        let read = ["XREADGROUP", "GROUP", "mail", "one", "COUNT", "90", "STREAMS", "orders", ">"];
        let given: Reply = world.redis(&read).await;
        for (id, _) in given[0].1.iter().filter(|(id, _)| !id.ends_with('7')) {
            world.redis::<u64>(&["XACK", "orders", "mail", id]).await;
        }
        world.checkpointed("orders").await;
        let state = world.group("orders", "mail").await.unwrap();
        assert_eq!(state.pending.len(), 9);
        relay.kill();
        world.end_lease().await;
        world.redis::<()>(loss).await;
        let fail = format!("{step}:1");
        let more = [("OUTBOX_FAILPOINT", fail.as_str()), ("OUTBOX_BATCH_ROWS", "20")];
        let mut dying = world.relay("dying", &more);
        assert_eq!(dying.wait(Duration::from_secs(60)).signal(), Some(9), "{}", dying.log());
        world.end_lease().await;
        let _successor = world.relay("successor", &[("OUTBOX_CHECKPOINT", "100ms")]);
        world.settled().await;
        crate::support::eventually("the group is as it was", Duration::from_secs(30), || async {
            world.group("orders", "mail").await.as_ref() == Some(&state)
        })
        .await;
        world.reconcile().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_while_groups_come_back_with_all_of_redis() {
        for step in STEPS {
            killed_while_groups_come_back(&["FLUSHALL"], step).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_while_groups_come_back_with_one_stream() {
        for step in STEPS {
            killed_while_groups_come_back(&["DEL", "orders"], step).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_at_checkpoints_and_trims_no_group_skips_an_entry() {
        let world = World::new().await;
        let mail = Workers::start(&world, "mail", &STREAMS).await;
        let writers = Writers::start(&world, 3);
        for step in ["before_checkpoint", "after_checkpoint", "before_trim", "after_trim"] {
            for visit in [1, 4] {
                let fail = format!("{step}:{visit}");
                let more = [("OUTBOX_FAILPOINT", fail.as_str()), ("OUTBOX_CHECKPOINT", "100ms")];
                let mut dying = world.relay("dying", &more);
                assert_eq!(
                    dying.wait(Duration::from_secs(60)).signal(),
                    Some(9),
                    "{}",
                    dying.log()
                );
                world.end_lease().await;
            }
        }
        let relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", "100ms")]);
        writers.stop().await;
        world.settled().await;
        assert_eq!(
            mail.finish(&world, &STREAMS).await,
            0,
            "nothing was lost, so nothing comes again"
        );
        world.reconcile().await;
        relay.lost_nothing();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_before_seals_under_load() {
        killed_under_load("before_seal").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_after_seals_under_load() {
        killed_under_load("after_seal").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_before_appends_under_load() {
        killed_under_load("before_append").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn killed_after_appends_under_load() {
        killed_under_load("after_append").await;
    }
}
