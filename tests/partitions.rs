//! Partitions: rows of one stream go to several Redis streams by their key, and keys keep their order also
//! while the number of partitions changes.

use std::time::Duration;

use crate::support::eventually;
use crate::support::relay::Relay;
use crate::support::workers::{Workers, make_group};
use crate::support::world::{APPLICATION, RELAY, World};
use crate::support::writers::{Writers, write_rows};

const STREAM: &str = "orders";
const GROUP: &str = "mail";
const BOUND: Duration = Duration::from_secs(60);
const SHORT: [(&str, &str); 1] = [("OUTBOX_CHECKPOINT", "100ms")];

/// A relay, a group in the stream, and writers at work.
async fn running() -> (World, Relay, Writers) {
    let world = World::new().await;
    let relay = world.relay("relay", &SHORT);
    make_group(&world, STREAM, GROUP).await;
    let writers = Writers::start(&world, 3);
    writers.write_more(200).await;
    world.checkpointed_somehow(STREAM).await;
    (world, relay, writers)
}

fn names(partitions: u32) -> Vec<String> {
    (0..partitions).map(|n| format!("{STREAM}:{{{n}}}")).collect()
}

impl World {
    /// Waits until a checkpoint of the stream with a group is stored.
    async fn checkpointed_somehow(&self, stream: &str) {
        eventually("a checkpoint has a group", BOUND, || async { self.floor(stream).await.1 > 0 })
            .await;
    }

    async fn split(&self, stream: &str, partitions: i32) -> Result<(), String> {
        let sql = "select outbox.set_partitions($1, $2)";
        let asked = self.owner().await.execute(sql, &[&stream, &partitions]).await;
        asked.map(drop).map_err(|error| {
            let error = error.as_db_error().unwrap();
            format!("{} ({})", error.message(), error.hint().unwrap_or_default())
        })
    }

    /// How many partitions are in force, once nothing waits for a change any more.
    async fn is_split(&self, stream: &str, partitions: i32) {
        let sql = "select count(*) from outbox.partitioning \
                   where stream = $1 and partitions = $2 and before is null and wanted is null";
        eventually("the change is over", BOUND, || async {
            let row = self.owner().await.query_one(sql, &[&stream, &partitions]).await.unwrap();
            row.get::<_, i64>(0) == 1
        })
        .await;
    }

    async fn exists(&self, key: &str) -> bool {
        self.redis(&["EXISTS", key]).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_goes_to_new_partitions_waits_until_the_groups_have_read_what_came_before() {
    let (world, relay, writers) = running().await;
    world.split(STREAM, 4).await.unwrap();
    relay.logged("rows of orders go to 4 partitions from now on").await;
    writers.write_more(200).await;
    for name in names(4) {
        let reason = world.becomes(&name, "paused").await.unwrap();
        assert!(reason.contains("acknowledged what came before: orders up to "), "{reason}");
    }
    let told = world.split(STREAM, 8).await.unwrap_err();
    assert!(told.contains("still under way") && told.contains("orders up to "), "{told}");
    for name in names(4) {
        assert!(!world.exists(&name).await, "{name} has something before its turn");
    }
    let all: Vec<String> = std::iter::once(STREAM.to_owned()).chain(names(4)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let workers = Workers::join(&world, GROUP, &all);
    relay.logged("the new ones flow").await;
    world.is_split(STREAM, 4).await;
    writers.write_more(100).await;
    writers.stop().await;
    workers.finish(&world, &all).await;
    world.reconcile().await;
    relay.lost_nothing();
    for name in names(4) {
        assert!(world.group(&name, GROUP).await.is_some(), "{name} has the group");
    }
    // Where a row is says its status, and where a key is, the owner can ask.
    let sql = "select count(*), count(e.key), count(*) filter (where s.stream = \
                   outbox.partition_of(e.stream, e.key, e.id) and s.state = 'dispatched') \
               from outbox.entry_status s join outbox.entry e using (id) \
               where e.stream = $1 and s.stream <> $1";
    let row = world.owner().await.query_one(sql, &[&STREAM]).await.unwrap();
    let (all, keyed, right): (i64, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert!(keyed > 10 && all > keyed && right == all, "{all} rows, {keyed} keyed, {right} right");
}

/// Grows by a multiple and goes back to one, under load, with consumers that read all there is.
#[tokio::test(flavor = "multi_thread")]
async fn keys_keep_their_order_however_often_the_number_of_partitions_changes() {
    let (world, mut relay, writers) = running().await;
    let all: Vec<String> = std::iter::once(STREAM.to_owned()).chain(names(6)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    // Whoever reads partitions is at work before anybody reads what came earlier.
    for name in names(6) {
        make_group(&world, &name, GROUP).await;
    }
    let mut workers = Workers::join(&world, GROUP, &all[1..]);
    for partitions in [2, 6, 1, 3] {
        world.split(STREAM, partitions).await.unwrap();
        writers.write_more(50).await;
        if partitions == 2 {
            world.becomes("orders:{0}", "paused").await;
            writers.write_more(200).await;
            workers.join_more(&world, &all[..1]);
        }
        world.is_split(STREAM, partitions).await;
        writers.write_more(50).await;
    }
    let told = world.split(STREAM, 4).await.unwrap_err();
    assert!(told.contains("has 3 partitions and cannot get 4 in one step"), "{told}");
    writers.stop().await;
    workers.finish(&world, &all).await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_dies_in_the_middle_of_a_change_is_followed_by_one_that_goes_on_with_it() {
    for step in ["before_split", "after_split"].map(|step| format!("{step}:1")) {
        let (world, mut relay, writers) = running().await;
        relay.kill();
        world.end_lease().await;
        let fails = [("OUTBOX_FAILPOINT", step.as_str()), SHORT[0]];
        let mut dying = world.relay("dying", &fails);
        world.split(STREAM, 2).await.unwrap();
        assert!(!dying.wait(BOUND).success(), "{step}");
        writers.write_more(50).await;
        world.end_lease().await;
        let _relay = world.relay("heir", &SHORT);
        let partitions = names(2);
        let all = [STREAM, &partitions[0], &partitions[1]];
        let workers = Workers::join(&world, GROUP, &all);
        world.is_split(STREAM, 2).await;
        writers.write_more(50).await;
        writers.stop().await;
        workers.finish(&world, &all).await;
        world.reconcile().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_of_partitions_come_back_also_where_nothing_is_in_them_yet() {
    let world = World::new().await;
    let relay = world.relay("relay", &SHORT);
    make_group(&world, "few", GROUP).await;
    write_rows(&world, "few", 1).await;
    world.settled().await;
    world.checkpointed_somehow("few").await;
    world.split("few", 200).await.unwrap();
    relay.logged("rows of few go to 200 partitions").await;
    // Lost before anybody has read it.
    world.redis::<()>(&["FLUSHALL"]).await;
    relay.logged("Redis lost its identity key").await;
    let workers = Workers::join(&world, GROUP, &["few"]);
    relay.logged("the new ones flow").await;
    let last = "few:{199}";
    let is_made = || async { world.exists(last).await && world.group(last, GROUP).await.is_some() };
    eventually("the last partition has the group", BOUND, is_made).await;
    world.redis::<()>(&["FLUSHALL"]).await;
    relay.logged_times("Redis lost its identity key", 2).await;
    eventually("the last partition has the group again", BOUND, is_made).await;
    write_rows(&world, "few", 50).await;
    workers.acknowledges_all(&world, "few").await;
    world.reconcile().await;
}

/// Of a stream with nothing to do, what is stored may be half a minute old; each has a turn of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_group_made_just_before_a_change_is_made_in_new_partitions() {
    const FEW: [&str; 4] = ["one", "two", "three", "four"];
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    for stream in FEW {
        make_group(&world, stream, GROUP).await;
        write_rows(&world, stream, 10).await;
    }
    let workers = Workers::join(&world, GROUP, &FEW);
    workers.acknowledges_all_of(&world, &FEW).await;
    // Two rounds later none of them has anything to do.
    let raised = || async { world.redis::<u64>(&["HGET", "outbox:identity", "count"]).await };
    for stream in FEW {
        eventually("the stream is trimmed", BOUND, || async {
            world.redis::<u64>(&["XLEN", stream]).await == 0
        })
        .await;
    }
    let before = raised().await;
    eventually("two rounds are over", BOUND, || async { raised().await >= before + 6 }).await;
    for stream in FEW {
        make_group(&world, stream, "audit").await;
        world.split(stream, 2).await.unwrap();
    }
    for stream in FEW {
        relay.logged(&format!("every consumer group of {stream} has acknowledged")).await;
        write_rows(&world, stream, 10).await;
    }
    world.settled().await;
    for name in FEW.iter().flat_map(|stream| [format!("{stream}:{{0}}"), format!("{stream}:{{1}}")])
    {
        assert!(
            world.group(&name, "audit").await.is_some(),
            "{name} has no group:\n{}",
            relay.log()
        );
    }
    world.reconcile().await;
}

/// Every stream would wait for a seal that waits for a lock.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_left_open_holds_up_the_change_and_nothing_else() {
    let world = World::new().await;
    world.split("new", 2).await.unwrap();
    let held = world.owner().await;
    held.batch_execute("begin; select from outbox.partitioning for update").await.unwrap();
    let relay = world.relay("relay", &SHORT);
    write_rows(&world, "other", 20).await;
    world.holds("other", 20).await;
    // It has asked what is wanted more than once by then, and tried.
    let asked = "select query_start::text from pg_stat_activity \
                 where application_name = 'outbox-relay holds' and query like '%outbox.holds%'";
    let mut polls = std::collections::BTreeSet::<String>::new();
    let (owner, begun) = (world.owner().await, std::time::Instant::now());
    while polls.len() < 4 {
        polls.extend(owner.query(asked, &[]).await.unwrap().iter().map(|row| row.get(0)));
        assert!(begun.elapsed() < BOUND, "the relay does not ask: {polls:?}");
        crate::support::pause().await;
    }
    write_rows(&world, "other", 20).await;
    world.holds("other", 40).await;
    held.batch_execute("rollback").await.unwrap();
    world.is_split("new", 2).await;
    world.reconcile().await;
    assert!(!relay.log().contains("trying again"), "{}", relay.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_cannot_be_made_is_refused_in_words() {
    let world = World::new().await;
    let _relay = world.relay("relay", &SHORT);
    write_rows(&world, "lonely", 3).await;
    world.settled().await;
    let told = world.split("lonely", 2).await.unwrap_err();
    assert!(
        told.contains("stream lonely has no consumer group") && told.contains("Make one"),
        "{told}"
    );
    for (stream, partitions, said) in [
        ("orders", 0, "1 to 256"),
        ("orders", 257, "1 to 256"),
        ("orders:{eu}", 2, "no braces"),
        ("outbox:x", 2, "cannot have partitions"),
    ] {
        let told = world.split(stream, partitions).await.unwrap_err();
        assert!(told.contains(said), "{stream} {partitions}: {told}");
    }
    // One that has had no row needs no group, and is split at once.
    world.split("new", 3).await.unwrap();
    world.is_split("new", 3).await;
    write_rows(&world, "new", 30).await;
    world.settled().await;
    for n in 0..3 {
        let name = format!("new:{{{n}}}");
        assert_eq!(world.redis::<u64>(&["XLEN", &name]).await, 10, "rows without a key take turns");
    }
    world.reconcile().await;
    for role in [APPLICATION, RELAY] {
        let client = crate::support::world::connect(&world.postgres.url_of("postgres", role)).await;
        let asked = client.execute("select outbox.set_partitions('new', 6)", &[]).await;
        let told = asked.unwrap_err().as_db_error().unwrap().message().to_owned();
        assert!(told.contains("permission denied for function set_partitions"), "{role}: {told}");
    }
}
