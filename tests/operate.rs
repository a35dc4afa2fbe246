//! Commands for people: status, trace, pause, rebuild, adopt, and their JSON.

mod restore;

use std::time::Duration;

use serde_json::Value;

use crate::support::command::{Ended, command, fails};
use crate::support::eventually;
use crate::support::journal::Note;
use crate::support::world::World;
use crate::support::writers::{Writers, write_rows};

const BOUND: Duration = Duration::from_secs(30);

#[track_caller]
fn run(world: &World, words: &[&str]) -> Ended {
    let urls = world.urls();
    command(words, &[("DATABASE_URL", &*urls.0), ("REDIS_URL", &*urls.1)])
}

#[track_caller]
fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn status_as_json_has_stable_keys_and_says_what_the_view_says() {
    let world = World::new().await;
    let empty = json(&run(&world, &["status", "--json"]));
    assert_eq!(empty["ok"], false, "nobody leads: {empty}");
    assert!(empty["leader"].is_null());
    let _relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 7).await;
    world.settled().await;
    let status = json(&run(&world, &["status", "--json"]));
    let expected = [
        "dead_letters",
        "leader",
        "ok",
        "oldest_transaction_age_seconds",
        "oldest_undispatched_age_seconds",
        "postgres",
        "problems",
        "redis",
        "streams",
        "undispatched",
    ];
    assert_eq!(keys(&status), expected);
    assert_eq!((&status["ok"], &status["undispatched"]), (&true.into(), &0.into()), "{status}");
    assert_eq!(keys(&status["postgres"]), ["address", "answers", "problem"]);
    let leader = ["holder", "holds", "lease_remaining_seconds", "since", "token"];
    assert_eq!(keys(&status["leader"]), leader);
    let stream = &status["streams"][0];
    let expected = [
        "acked",
        "dispatched",
        "entries",
        "groups",
        "oldest_undispatched_age_seconds",
        "oldest_undispatched_at",
        "purged",
        "reason",
        "sealed",
        "state",
        "stream",
        "undispatched",
    ];
    assert_eq!(keys(stream), expected);
    assert_eq!((&stream["stream"], &stream["sealed"]), (&"orders".into(), &7.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn status_hides_idle_streams_until_asked() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    let rows = "select 'idle-' || i, '1' from generate_series(1, 30) i";
    world.sql(&format!("insert into outbox.entry (stream, payload) {rows}")).await;
    world.settled().await;
    let short = run(&world, &["status"]);
    assert!(short.out.contains("10 more streams are active with nothing waiting"), "{}", short.out);
    let all = run(&world, &["status", "--all"]);
    assert_eq!(all.out.matches("idle-").count(), 30, "{}", all.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn trace_follows_an_event_from_its_row_to_its_groups() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    let client = world.application().await;
    let notes = [Note::new("orders").key("42"), Note::new("orders").key("42")];
    for note in &notes {
        note.insert(&client).await.unwrap();
    }
    world.journal.write(notes.clone());
    world.settled().await;
    let (first, second) = (notes[0].event_id.to_string(), notes[1].event_id.to_string());
    for group in ["billing", "mail", "idle"] {
        world.redis::<()>(&["XGROUP", "CREATE", "orders", group, "0"]).await;
    }
    let read = |group| ["XREADGROUP", "GROUP", group, "w1", "COUNT", "1", "STREAMS", "orders", ">"];
    world.redis::<redis::Value>(&read("billing")).await;
    let given: Vec<(String, Vec<(String, redis::Value)>)> = world.redis(&read("mail")).await;
    world.redis::<u64>(&["XACK", "orders", "mail", &given[0].1[0].0]).await;
    let traced = json(&run(&world, &["trace", &first, "--json"]));
    assert_eq!(keys(&traced), ["entries", "event_id", "redis_answers"]);
    let entry = &traced["entries"][0];
    let expected = [
        "created_at",
        "dispatched_at",
        "entry_id",
        "groups",
        "id",
        "in_redis",
        "key",
        "n",
        "state",
        "stream",
        "trimmed",
        "type",
    ];
    assert_eq!(keys(entry), expected);
    assert_eq!((&entry["state"], &entry["n"]), (&"dispatched".into(), &1.into()), "{entry}");
    assert_eq!((&entry["in_redis"], &entry["key"]), (&true.into(), &"42".into()));
    let state = |entry: &Value, group: &str| {
        let groups = entry["groups"].as_array().unwrap();
        groups.iter().find(|g| g["group"] == group).unwrap()["state"].as_str().unwrap().to_owned()
    };
    let states = ["billing", "mail", "idle"].map(|group| state(entry, group));
    assert_eq!(states, ["pending", "acknowledged", "waiting"]);
    let told = run(&world, &["trace", &second]);
    assert_eq!(told.out.matches("not given to it yet").count(), 3, "{}", told.out);
    let unknown = uuid::Uuid::new_v4().to_string();
    let told = run(&world, &["trace", &unknown]);
    assert!(told.code == Some(1) && told.out.contains("was rolled back"), "{told:#?}");
    relay.stop();
    let pending = Note::new("orders");
    pending.insert(&client).await.unwrap();
    let told = run(&world, &["trace", &pending.event_id.to_string()]);
    assert!(told.out.contains("pending: committed, and not sealed yet"), "{}", told.out);
    fails(&["trace", "42"], &[], 64, &["EVENT_ID"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_outlives_the_relay_and_what_is_lost_meanwhile_is_put_back() {
    let world = World::new().await;
    let mut relay = world.relay("first", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    assert_eq!(run(&world, &["pause", "orders"]).code, Some(0));
    assert!(run(&world, &["pause", "orders"]).out.contains("was paused already"));
    relay.logged("stream orders is paused").await;
    relay.kill();
    world.end_lease().await;
    let relay = world.relay("second", &[]);
    relay.logged("stream orders is paused").await;
    world.redis::<()>(&["DEL", "orders"]).await;
    write_rows(&world, "orders", 10).await;
    world.all_sealed().await;
    write_rows(&world, "other", 1).await;
    world.holds("other", 1).await;
    assert_eq!(world.redis::<u64>(&["XLEN", "orders"]).await, 0);
    assert_eq!(run(&world, &["resume", "orders"]).code, Some(0));
    world.reconcile().await;
    assert_eq!(relay.lost("orders"), [(1, 10)]);
    assert!(run(&world, &["resume", "orders"]).out.contains("was not paused"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_without_a_relay_puts_back_missing_entries_and_beside_one_changes_nothing() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 3_000).await;
    world.settled().await;
    relay.stop();
    let ids: Vec<(String, redis::Value)> =
        world.redis(&["XRANGE", "orders", "-", "+", "COUNT", "5"]).await;
    world.redis::<u64>(&["XDEL", "orders", &ids[2].0, &ids[4].0]).await;
    assert_eq!(run(&world, &["verify"]).code, Some(1));
    let rebuilt = run(&world, &["rebuild", "orders", "--yes"]);
    assert!(rebuilt.out.contains("3,000 entries from the log"), "{rebuilt:#?}");
    assert_eq!(run(&world, &["verify"]).code, Some(0));
    let relay = world.relay("again", &[]);
    let writers = Writers::start(&world, 8);
    for _ in 0..20 {
        writers.write_more(50).await;
        let rebuilt = run(&world, &["rebuild", "orders", "--yes"]);
        assert_eq!(rebuilt.code, Some(0), "{rebuilt:#?}");
        assert!(rebuilt.out.contains("the log knows every entry"), "{rebuilt:#?}");
    }
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    let left: Vec<String> = world.redis(&["KEYS", "outbox:*"]).await;
    assert_eq!(left, ["outbox:identity"], "a rebuild leaves nothing behind");
    fails(
        &["rebuild", "nobody", "--yes"],
        &variables(&world.urls()),
        1,
        &["nobody", "status --all"],
    );
}

fn variables(urls: &(String, String)) -> [(&str, &str); 2] {
    [("DATABASE_URL", &urls.0), ("REDIS_URL", &urls.1)]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_gone_halts_a_lost_stream_and_a_rebuild_goes_on_without_it() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    let first = "select id from outbox.entry order by id limit 3";
    world.sql(&format!("delete from outbox.entry where id in ({first})")).await;
    world.redis::<()>(&["DEL", "orders"]).await;
    let reason = world.becomes("orders", "halted").await.unwrap();
    assert!(reason.contains("outbox-relay rebuild orders"), "{reason}");
    let rebuilt = run(&world, &["rebuild", "orders", "--yes"]);
    assert!(rebuilt.out.contains("7 entries from the log"), "{rebuilt:#?}");
    assert!(rebuilt.out.contains("3 sealed entries have no row any more"), "{rebuilt:#?}");
    world.becomes("orders", "active").await;
    write_rows(&world, "orders", 2).await;
    world.settled().await;
    assert_eq!(run(&world, &["verify"]).code, Some(0));
    assert_eq!(world.redis::<u64>(&["XLEN", "orders"]).await, 9);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_is_let_go_while_a_relay_begins_to_lead_flows_again() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 5).await;
    world.settled().await;
    run(&world, &["pause", "orders"]);
    assert!(relay.stop().success());
    write_rows(&world, "orders", 5).await;
    // It has read what is held, and has not yet looked whether that has changed.
    let blocker = world.owner().await;
    blocker.batch_execute("begin; lock table outbox.entry in access exclusive mode").await.unwrap();
    let relay = world.relay("again", &[]);
    relay.logged("looked at 1 streams").await;
    assert_eq!(run(&world, &["resume", "orders"]).code, Some(0));
    blocker.batch_execute("commit").await.unwrap();
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restore_into_another_cluster_adopt_lets_every_row_through_once() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 20).await;
    world.settled().await;
    relay.stop();
    write_rows(&world, "orders", 5).await;
    // As a restore into a younger cluster leaves it: another system, ids that are still to come.
    world
        .sql(
            "update outbox.identity set system_identifier = '42'; \
             update outbox.entry set xid = (pg_current_xact_id()::text::bigint + 40 + id)::text::xid8",
        )
        .await;
    world.redis::<i64>(&["HSET", "outbox:identity", "system", "42"]).await;
    let urls = world.urls();
    let refused =
        fails(&["run"], &variables(&urls), 1, &["made in cluster 42", "outbox-relay adopt"]);
    assert!(refused.took < BOUND);
    let dry = run(&world, &["adopt", "--dry-run"]);
    assert!(dry.code == Some(0) && dry.out.contains("cluster 42"), "{dry:#?}");
    fails(&["run"], &variables(&urls), 1, &["outbox-relay adopt"]);
    let adopted = run(&world, &["adopt"]);
    assert!(adopted.out.contains("sealed 5 rows that the log did not have"), "{adopted:#?}");
    assert!(adopted.out.contains("25 rows carried transaction ids"), "{adopted:#?}");
    let relay = world.relay("here", &[]);
    world.settled().await;
    // The ids of the other cluster come up in this one: nothing is found again.
    let client = world.application().await;
    for _ in 0..120 {
        let note = Note::new("orders");
        note.insert(&client).await.unwrap();
        world.journal.write([note]);
    }
    world.reconcile().await;
    relay.lost_nothing();
    assert!(run(&world, &["adopt"]).out.contains("nothing to adopt"));
}

#[tokio::test(flavor = "multi_thread")]
async fn two_copies_of_an_outbox_do_not_share_a_redis() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 3).await;
    world.settled().await;
    // As the copy's `adopt` leaves it.
    world.redis::<i64>(&["HSET", "outbox:identity", "system", "4711"]).await;
    relay.logged("last filled from Postgres cluster 4711").await;
    let adopted = run(&world, &["adopt"]);
    assert!(adopted.out.contains("filled by another copy"), "{adopted:#?}");
    write_rows(&world, "orders", 3).await;
    world.reconcile().await;
    // A cluster that the outbox lived in before is no stranger: an older snapshot names it.
    world.sql("update outbox.identity set former_systems = '{42}'").await;
    drop(relay);
    world.end_lease().await;
    world.redis::<i64>(&["HSET", "outbox:identity", "system", "42"]).await;
    let _relay = world.relay("again", &[]);
    eventually("it is ours again", BOUND, || async {
        world.redis::<String>(&["HGET", "outbox:identity", "system"]).await != "42"
    })
    .await;
}
