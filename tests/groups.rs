//! Consumer groups after a loss: where they were, with what they had not acknowledged.

use std::time::Duration;

use crate::support::eventually;
use crate::support::relay::Relay;
use crate::support::workers::{GroupState, Reply, Workers, make_group};
use crate::support::world::{World, redis_is_at_least};
use crate::support::writers::{STREAMS, Writers, write_rows};

const BOUND: Duration = Duration::from_secs(30);

/// Short times, so that a test need not wait long.
const SHORT: [(&str, &str); 1] = [("OUTBOX_CHECKPOINT", "100ms")];

/// A stream with 12 entries, of which group "mail" was given 10 and has acknowledged 1, 2, 3, 5 and 8;
/// entry 6 was given twice, entries 9 and 10 to another consumer.
async fn read_in_part(relay_more: &[(&str, &str)]) -> (World, Relay, GroupState) {
    let world = World::new().await;
    let more: Vec<_> = SHORT.iter().chain(relay_more).copied().collect();
    let relay = world.relay("relay", &more);
    write_rows(&world, "orders", 12).await;
    world.holds("orders", 12).await;
    make_group(&world, "orders", "mail").await;
    let ids = world.ids("orders").await;
    world.read("orders", "mail", "one", 8).await;
    world.read("orders", "mail", "two", 2).await;
    for n in [1, 2, 3, 5, 8] {
        world.acknowledge("orders", "mail", &ids[n - 1]).await;
    }
    let again = ["XCLAIM", "orders", "mail", "one", "0", &ids[5]];
    world.redis::<redis::Value>(&again).await;
    world.checkpointed("orders").await;
    world.holds("orders", 9).await;
    let state = world.group("orders", "mail").await.unwrap();
    let listed = |n: usize, c: &str, times| (ids[n - 1].clone(), c.to_owned(), times);
    let pending = [
        listed(4, "one", 1),
        listed(6, "one", 2),
        listed(7, "one", 1),
        listed(9, "two", 1),
        listed(10, "two", 1),
    ];
    assert_eq!(state.pending, pending);
    (world, relay, state)
}

impl World {
    /// IDs of all entries of a stream.
    async fn ids(&self, stream: &str) -> Vec<String> {
        let entries = crate::support::journal::read_stream(self, stream).await;
        entries.into_iter().map(|entry| entry.id).collect()
    }

    /// Numbers of all entries of a stream.
    async fn numbers(&self, stream: &str) -> Vec<u64> {
        let entries = crate::support::journal::read_stream(self, stream).await;
        entries.iter().map(|entry| entry.position().1).collect()
    }

    /// Lets a consumer be given up to `count` new entries; returns their numbers.
    async fn read(&self, stream: &str, group: &str, consumer: &str, count: usize) -> Vec<u64> {
        let count = count.to_string();
        let words =
            ["XREADGROUP", "GROUP", group, consumer, "COUNT", &count, "STREAMS", stream, ">"];
        let found: Option<Reply> = self.redis(&words).await;
        let entries = found.into_iter().flatten().flat_map(|(_, entries)| entries);
        entries.map(|(id, _)| id.split_once('-').unwrap().1.parse().unwrap()).collect()
    }

    async fn acknowledge(&self, stream: &str, group: &str, id: &str) {
        assert_eq!(self.redis::<u64>(&["XACK", stream, group, id]).await, 1, "{id}");
    }

    /// Waits until a group is in this state.
    async fn group_becomes(&self, stream: &str, group: &str, state: &GroupState) {
        let what = format!("group {group} of {stream} is {state:?}");
        let info: String = self.redis(&["INFO", "server"]).await;
        // Redis 6 knows no lag, and Redis 8 does not tell that of a group that was put where it was.
        let tells_lag = info.contains("redis_version:7.");
        eventually(&what, BOUND, || async {
            let found = self.group(stream, group).await;
            let lag =
                if tells_lag { state.lag } else { found.as_ref().and_then(|group| group.lag) };
            let expected = GroupState { lag, ..state.clone() };
            found == Some(expected)
        })
        .await;
        if !tells_lag {
            // What comes behind the group is not there yet.
            self.settled().await;
        }
    }
}

/// After a loss, and whatever a consumer did to it meanwhile, the group is as it was.
async fn comes_back(world: &World, state: &GroupState) {
    world.group_becomes("orders", "mail", state).await;
    assert_eq!(world.numbers("orders").await, (4..=12).collect::<Vec<_>>());
    assert_eq!(world.read("orders", "mail", "three", 10).await, [11, 12], "the next ones");
    write_rows(world, "orders", 1).await;
    world.settled().await;
    assert_eq!(world.read("orders", "mail", "three", 10).await, [13]);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_flushall_a_group_is_where_it_was_with_what_it_had_not_acknowledged() {
    let (world, relay, state) = read_in_part(&[]).await;
    world.redis::<()>(&["FLUSHALL"]).await;
    comes_back(&world, &state).await;
    assert_eq!(relay.lost("orders"), [(4, 12)], "what nobody needs any more was not lost");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_stream_comes_back_with_its_group() {
    let (world, relay, state) = read_in_part(&[]).await;
    world.redis::<()>(&["DEL", "orders"]).await;
    comes_back(&world, &state).await;
    assert_eq!(relay.lost("orders"), [(4, 12)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_a_consumer_made_again_at_the_end_is_put_back() {
    for loss in ["FLUSHALL", "DEL"] {
        let (world, _relay, state) = read_in_part(&[]).await;
        let mut again = redis::pipe();
        again.atomic().cmd(loss).arg(if loss == "DEL" { &["orders"][..] } else { &[] }).ignore();
        again.cmd("XGROUP").arg(&["CREATE", "orders", "mail", "$", "MKSTREAM"]).ignore();
        again.exec_async(&mut world.streams().await).await.unwrap();
        comes_back(&world, &state).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_loss_while_no_relay_runs_is_made_good_by_the_next_one() {
    let (world, mut relay, state) = read_in_part(&[]).await;
    assert!(relay.stop().success());
    let mut again = redis::pipe();
    again.atomic().cmd("FLUSHALL").ignore();
    again.cmd("XGROUP").arg(&["CREATE", "orders", "mail", "$", "MKSTREAM"]).ignore();
    again.exec_async(&mut world.streams().await).await.unwrap();
    let relay = world.relay("successor", &SHORT);
    comes_back(&world, &state).await;
    assert_eq!(relay.lost("orders"), [(4, 12)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_blocked_during_the_loss_goes_on_by_calling_again() {
    if !redis_is_at_least((7, 0), "lag of a group") {
        return;
    }
    let (world, _relay, _) = read_in_part(&[]).await;
    world.read("orders", "mail", "three", 10).await;
    world.checkpointed("orders").await;
    let mut blocked = world.streams().await;
    let reading = tokio::spawn(async move {
        let words = ["GROUP", "mail", "three", "BLOCK", "20000", "STREAMS", "orders", ">"];
        let mut errors = Vec::new();
        loop {
            let read = redis::cmd("XREADGROUP").arg(&words).query_async(&mut blocked).await;
            match read as redis::RedisResult<Option<Reply>> {
                Ok(Some(found)) => return (errors, found[0].1[0].0.clone()),
                Ok(None) => {}
                Err(error) => errors.push(error.code().unwrap_or_default().to_owned()),
            }
            crate::support::pause().await;
        }
    });
    eventually("a consumer is blocked", BOUND, || async {
        let info: String = world.redis(&["INFO", "clients"]).await;
        info.contains("blocked_clients:1")
    })
    .await;
    world.redis::<()>(&["FLUSHALL"]).await;
    eventually("the stream is back", BOUND, || async {
        world.group("orders", "mail").await.is_some_and(|group| group.lag == Some(0))
    })
    .await;
    write_rows(&world, "orders", 1).await;
    let (errors, id) = reading.await.unwrap();
    assert!(id.ends_with("-13"), "{id}");
    let known = |code: &String| ["UNBLOCKED", "NOGROUP"].contains(&code.as_str());
    assert!(errors.iter().all(known), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_went_back_are_put_back_also_where_no_entry_is_missing() {
    let (mut world, relay, _) = read_in_part(&[]).await;
    world.redis::<()>(&["SAVE"]).await;
    let ids = world.ids("orders").await;
    // Entries 4 to 12: 4 and 7 are acknowledged, 11 is given.
    for at in [0, 3] {
        world.acknowledge("orders", "mail", &ids[at]).await;
    }
    assert_eq!(world.read("orders", "mail", "three", 1).await, [11]);
    world.checkpointed("orders").await;
    let state = world.group("orders", "mail").await.unwrap();
    world.redis.kill().unwrap();
    world.redis.start_again().unwrap();
    relay.logged("Redis went back to an older state").await;
    world.group_becomes("orders", "mail", &state).await;
    relay.logged("Redis lost the positions of 1 consumer group of stream orders").await;
    assert_eq!(relay.lost("orders"), [], "no entry was lost");
    assert_eq!(world.read("orders", "mail", "three", 10).await, [12]);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_younger_than_the_snapshot_that_came_back_is_put_back() {
    let (mut world, relay, _) = read_in_part(&[]).await;
    world.redis::<()>(&["SAVE"]).await;
    make_group(&world, "orders", "young").await;
    assert_eq!(world.read("orders", "young", "one", 2).await, [4, 5]);
    world.checkpointed("orders").await;
    let state = world.group("orders", "young").await.unwrap();
    world.redis.kill().unwrap();
    world.redis.start_again().unwrap();
    // A consumer that meets NOGROUP makes its group at the end, before or after the relay has come.
    let _ = redis::cmd("XGROUP")
        .arg(&["CREATE", "orders", "young", "$"])
        .exec_async(&mut world.streams().await)
        .await;
    relay.logged("Redis went back to an older state").await;
    world.group_becomes("orders", "young", &state).await;
    assert_eq!(world.read("orders", "young", "one", 100).await, (6..=12).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tail_that_is_lost_takes_no_position_with_it() {
    let (world, relay, _) = read_in_part(&[]).await;
    let old: Vec<u8> = world.redis(&["DUMP", "orders"]).await;
    write_rows(&world, "orders", 5).await;
    world.settled().await;
    assert_eq!(world.read("orders", "mail", "three", 4).await, [11, 12, 13, 14]);
    let ids = world.ids("orders").await;
    world.acknowledge("orders", "mail", &ids[13 - 4]).await;
    world.checkpointed("orders").await;
    let state = world.group("orders", "mail").await.unwrap();
    let mut restore = redis::cmd("RESTORE");
    restore.arg("orders").arg(0).arg(old).arg("REPLACE");
    restore.exec_async(&mut world.streams().await).await.unwrap();
    relay.logged("Redis lost entries 13 to 17 of stream orders").await;
    world.group_becomes("orders", "mail", &state).await;
    assert_eq!(world.read("orders", "mail", "three", 100).await, [15, 16, 17]);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_state_that_is_moved_on_to_its_floor_keeps_that_floor() {
    if !redis_is_at_least((7, 0), "highest ID removed") {
        return;
    }
    let world = World::new().await;
    let relay = world.relay("relay", &SHORT);
    make_group(&world, "orders", "mail").await;
    write_rows(&world, "orders", 3).await;
    world.settled().await;
    let old: Vec<u8> = world.redis(&["DUMP", "orders"]).await;
    write_rows(&world, "orders", 9).await;
    world.settled().await;
    let ids = world.ids("orders").await;
    world.read("orders", "mail", "one", 8).await;
    for id in &ids[..8] {
        world.acknowledge("orders", "mail", id).await;
    }
    eventually("the floor is 8", BOUND, || async { world.floor("orders").await == (8, 1) }).await;
    let mut restore = redis::cmd("RESTORE");
    restore.arg("orders").arg(0).arg(old).arg("REPLACE");
    restore.exec_async(&mut world.streams().await).await.unwrap();
    relay.logged("Redis lost entries 9 to 12 of stream orders").await;
    relay.logged("stream orders is active").await;
    assert_eq!(world.read("orders", "mail", "one", 100).await, [9, 10, 11, 12]);
    world.checkpointed("orders").await;
    // Entries 4 to 7 are in no stream any more, nor does anybody need them.
    let sql = "select min(floor_n) from outbox.checkpoint where taken_at > (select min(taken_at) \
               from outbox.checkpoint where floor_n = 8)";
    let least: Option<i64> = world.owner().await.query_one(sql, &[]).await.unwrap().get(0);
    assert!(least.is_none_or(|least| least >= 8), "the floor went back to {least:?}");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_stream_whose_groups_were_not_back_when_a_relay_died_flows_again() {
    let world = World::new().await;
    let more = [SHORT[0], ("OUTBOX_STREAM_LIMIT", "10")];
    let mut relay = world.relay("first", &more);
    make_group(&world, "orders", "mail").await;
    write_rows(&world, "orders", 10).await;
    world.holds("orders", 10).await;
    assert_eq!(world.read("orders", "mail", "one", 3).await, [1, 2, 3]);
    world.checkpointed("orders").await;
    write_rows(&world, "orders", 5).await;
    world.becomes("orders", "full").await;
    relay.kill();
    world.end_lease().await;
    // As when it had put the entries back, and no checkpoint had seen the groups yet.
    world.sql("update outbox.stream set groups_lost = true").await;
    let _relay = world.relay("second", &more);
    eventually("the groups are back", BOUND, || async {
        let sql = "select count(*) from outbox.stream where groups_lost";
        world.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    for id in &world.ids("orders").await[..3] {
        world.acknowledge("orders", "mail", id).await;
    }
    let workers = Workers::join(&world, "mail", &["orders"]);
    workers.acknowledges_all(&world, "orders").await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_who_sets_a_group_back_is_obeyed() {
    if !redis_is_at_least((7, 0), "lag of a group") {
        return;
    }
    let (world, relay, state) = read_in_part(&[]).await;
    world.redis::<()>(&["XGROUP", "SETID", "orders", "mail", "0"]).await;
    let back = GroupState { delivered: "0-0".into(), lag: Some(9), ..state };
    world.checkpointed("orders").await;
    world.group_becomes("orders", "mail", &back).await;
    assert_eq!(world.floor("orders").await, (3, 1), "what was trimmed is gone, the rest stays");
    assert_eq!(world.read("orders", "mail", "one", 3).await, [4, 5, 6]);
    world.redis::<()>(&["FLUSHALL"]).await;
    relay.logged("Redis lost entries 4 to 12 of stream orders").await;
    eventually("the group is back", BOUND, || async {
        world.group("orders", "mail").await.is_some_and(|group| !group.pending.is_empty())
    })
    .await;
    // What it had been given comes before the rest.
    world.holds("orders", 9).await;
    let given = world.read("orders", "mail", "one", 100).await;
    assert_eq!(given.last(), Some(&12));
    assert!(given[0] <= 7, "nothing is skipped: {given:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_destroyed_on_purpose_stays_away_and_holds_nothing_back() {
    let (world, _relay, _) = read_in_part(&[]).await;
    make_group(&world, "orders", "other").await;
    world.checkpointed("orders").await;
    world.redis::<()>(&["XGROUP", "DESTROY", "orders", "mail"]).await;
    world.checkpointed("orders").await;
    assert_eq!(world.read("orders", "other", "one", 100).await, (4..=12).collect::<Vec<_>>());
    let ids = world.ids("orders").await;
    for id in &ids[..6] {
        world.acknowledge("orders", "other", id).await;
    }
    world.holds("orders", 3).await;
    world.redis::<()>(&["FLUSHALL"]).await;
    eventually("the other group is back", BOUND, || async {
        world.group("orders", "other").await.is_some_and(|group| group.pending.len() == 3)
    })
    .await;
    assert_eq!(world.group("orders", "mail").await, None);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pending_entries_that_somebody_removed_are_told_and_hold_the_floor_until_the_group_lets_go()
{
    if !redis_is_at_least((7, 0), "XAUTOCLAIM that lets go of what was removed") {
        return;
    }
    let (world, relay, _) = read_in_part(&[]).await;
    let ids = world.ids("orders").await;
    world.redis::<u64>(&["XDEL", "orders", &ids[0]]).await;
    relay.logged("somebody removed entries 4 to 4 of stream orders").await;
    let status = world.status_text();
    assert!(status.contains("no longer in the stream"), "{status}");
    assert!(status.contains("XAUTOCLAIM orders mail"), "{status}");
    world.acknowledge("orders", "mail", &ids[2]).await;
    world.checkpointed("orders").await;
    assert_eq!(world.floor("orders").await, (3, 1), "nobody has said that the work of 4 is done");
    // What the status says.
    world.redis::<redis::Value>(&["XAUTOCLAIM", "orders", "mail", "one", "0", "0"]).await;
    eventually("the floor goes on", BOUND, || async { world.floor("orders").await == (6, 1) })
        .await;
    let status = world.status_text();
    assert!(!status.contains("no longer in the stream"), "{status}");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_somebody_trimmed_are_told_and_rebuilt() {
    let (world, relay, _) = read_in_part(&[]).await;
    let ids = world.ids("orders").await;
    world.redis::<u64>(&["XTRIM", "orders", "MINID", &ids[5]]).await;
    relay.logged("somebody removed entries 4 to 8 of stream orders").await;
    let urls = world.urls();
    let variables = [("DATABASE_URL", urls.0.as_str()), ("REDIS_URL", urls.1.as_str())];
    let verified = crate::support::command::command(&["verify", "--json"], &variables);
    let verified: serde_json::Value = serde_json::from_str(&verified.out).unwrap();
    // 4, 6 and 7 are pending; 5 and 8 are acknowledged.
    assert_eq!(verified["streams"][0]["missing"], 3, "{verified}");
    let rebuilt = crate::support::command::command(&["rebuild", "orders", "--yes"], &variables);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:#?}");
    assert_eq!(world.numbers("orders").await, (4..=12).collect::<Vec<_>>());
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_somebody_emptied_keeps_its_floor_and_is_rebuilt() {
    let (world, relay, state) = read_in_part(&[]).await;
    world.redis::<u64>(&["XTRIM", "orders", "MAXLEN", "0"]).await;
    relay.logged("somebody removed entries 4 to 12 of stream orders").await;
    world.checkpointed("orders").await;
    assert_eq!(world.floor("orders").await, (3, 1));
    let urls = world.urls();
    let variables = [("DATABASE_URL", urls.0.as_str()), ("REDIS_URL", urls.1.as_str())];
    let rebuilt = crate::support::command::command(&["rebuild", "orders", "--yes"], &variables);
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:#?}");
    comes_back(&world, &state).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_set_to_the_end_of_a_millisecond_is_looked_at_like_any_other() {
    let (world, relay, _) = read_in_part(&[]).await;
    for id in
        ["1-18446744073709551615", "99999999999999-18446744073709551615", "5-99999999999999999"]
    {
        world.redis::<()>(&["XGROUP", "SETID", "orders", "mail", id]).await;
        let saved = "select groups->0->>'delivered' from outbox.floor where stream = 'orders'";
        eventually("it is stored, or as far as the stream goes", BOUND, || async {
            let row = world.owner().await.query_one(saved, &[]).await.unwrap();
            let delivered: String = row.get(0);
            delivered == id || id.starts_with('9') && delivered.ends_with("-12")
        })
        .await;
    }
    relay.lost_nothing();
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_no_text_survive() {
    let world = World::new().await;
    let relay = world.relay("relay", &SHORT);
    write_rows(&world, "orders", 5).await;
    world.holds("orders", 5).await;
    let (group, consumer) = (b"\xff\x00mail".to_vec(), b"\\x41 \xfe".to_vec());
    let mut connection = world.streams().await;
    let mut make = redis::cmd("XGROUP");
    make.arg("CREATE")
        .arg("orders")
        .arg(&group)
        .arg("0")
        .exec_async(&mut connection)
        .await
        .unwrap();
    let mut read = redis::cmd("XREADGROUP");
    read.arg("GROUP")
        .arg(&group)
        .arg(&consumer)
        .arg("COUNT")
        .arg(2)
        .arg("STREAMS")
        .arg("orders")
        .arg(">");
    read.exec_async(&mut connection).await.unwrap();
    let pending = async || {
        let mut command = redis::cmd("XPENDING");
        command.arg("orders").arg(&group).arg("-").arg("+").arg(10);
        type Pending = Vec<(String, Vec<u8>, u64, u64)>;
        let found = command.query_async(&mut world.streams().await).await;
        found.map(|f: Pending| f.into_iter().map(|(id, c, ..)| (id, c)).collect::<Vec<_>>()).ok()
    };
    let before = pending().await.unwrap();
    eventually("the group is stored", BOUND, || async { world.floor("orders").await.1 == 1 }).await;
    eventually("its entries are stored", BOUND, || async {
        let sql = "select groups->0->'waiting' = '2' from outbox.floor where stream = 'orders'";
        world.owner().await.query_one(sql, &[]).await.unwrap().get(0)
    })
    .await;
    world.redis::<()>(&["FLUSHALL"]).await;
    relay.logged("Redis lost entries 1 to 5 of stream orders").await;
    eventually("the group is back", BOUND, || async { pending().await.as_ref() == Some(&before) })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn under_load_and_loss_after_loss_no_group_skips_an_entry() {
    let mut world = World::new().await;
    let relay = world.relay("relay", &SHORT);
    let mail = Workers::start(&world, "mail", &STREAMS).await;
    let audit = Workers::start(&world, "audit", &STREAMS[..2]).await;
    let writers = Writers::start(&world, 3);
    writers.write_more(300).await;
    world.redis::<()>(&["FLUSHALL"]).await;
    writers.write_more(300).await;
    world.redis::<()>(&["SAVE"]).await;
    writers.write_more(300).await;
    world.redis.kill().unwrap();
    world.redis.start_again().unwrap();
    writers.write_more(300).await;
    for stream in STREAMS {
        world.redis::<()>(&["DEL", stream]).await;
        writers.write_more(50).await;
    }
    world.redis::<()>(&["FLUSHALL"]).await;
    writers.write_more(100).await;
    writers.stop().await;
    world.settled().await;
    let (committed, streams) = (world.journal.committed(), &STREAMS[..2]);
    let repeats = [mail.finish(&world, &STREAMS).await, audit.finish(&world, streams).await];
    assert!(repeats[0] < committed, "{repeats:?} repeats of {committed}: not all of it each time");
    world.reconcile().await;
    assert!(relay.log().contains("Redis went back to an older state"), "{}", relay.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nothing_is_lost_nothing_is_given_twice() {
    let world = World::new().await;
    let relay = world.relay("relay", &SHORT);
    let mail = Workers::start(&world, "mail", &STREAMS).await;
    let writers = Writers::start(&world, 3);
    writers.write_more(1_500).await;
    writers.stop().await;
    world.settled().await;
    assert_eq!(mail.finish(&world, &STREAMS).await, 0);
    for stream in STREAMS {
        world.holds(stream, 0).await;
    }
    world.reconcile().await;
    relay.lost_nothing();
    assert!(!relay.log().contains("put back"), "{}", relay.log());
}
