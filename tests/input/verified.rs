//! `verify`: equal, different in each way that there is, and not to be misled by a backlog.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::command::{Ended, command};
use crate::support::journal::{Found, Note, read_stream};
use crate::support::world::World;
use crate::support::{contents, eventually};

const EACH: u64 = 5;

/// Runs `verify --json`; its JSON and its exit code must say the same, and it changes nothing.
async fn verify(world: &World) -> Value {
    let mut redis = world.streams().await;
    let owner = world.owner().await;
    let before = (contents::of_postgres(&owner).await, contents::of_redis(&mut redis).await);
    let ended = run(world, &["verify", "--json"]);
    let after = (contents::of_postgres(&owner).await, contents::of_redis(&mut redis).await);
    assert_eq!(before, after, "verify changed something");
    let said: Value =
        serde_json::from_str(&ended.out).unwrap_or_else(|e| panic!("{e}: {ended:#?}"));
    assert_eq!(ended.code, Some(i32::from(said["ok"] == json!(false))), "{ended:#?}");
    said
}

fn run(world: &World, words: &[&str]) -> Ended {
    let (database, redis) = world.urls();
    command(words, &[("DATABASE_URL", &database), ("REDIS_URL", &redis)])
}

/// What the contract says about one stream: these keys, and no others.
fn line(stream: &str, checked: u64, different: &[(&str, u64)]) -> Value {
    let mut line = json!({
        "stream": stream, "checked": checked, "missing": 0, "duplicate": 0, "out_of_order": 0,
        "altered": 0, "foreign": 0,
    });
    for (kind, count) in different {
        line[*kind] = json!(count);
    }
    line
}

/// A world in which a relay has carried five entries into each of these streams, and has stopped.
/// A group has read none of them, so none may be absent.
async fn carried(streams: &[&str]) -> World {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    let client = world.application().await;
    for stream in streams {
        for _ in 0..EACH {
            Note::new(stream).key("k").insert(&client).await.unwrap();
        }
    }
    world.settled().await;
    assert!(relay.stop().success());
    for stream in streams {
        world.redis::<String>(&["XGROUP", "CREATE", stream, "group", "0"]).await;
    }
    world
}

async fn add(world: &World, stream: &str, entry: &Found) -> String {
    let mut words = vec!["XADD", stream, &entry.id];
    words.extend(entry.fields.iter().flat_map(|(name, value)| [name.as_str(), value]));
    world.redis(&words).await
}

/// Makes a stream anew from these entries.
async fn remake(world: &World, stream: &str, entries: &[Found]) {
    world.redis::<i64>(&["DEL", stream]).await;
    for entry in entries {
        add(world, stream, entry).await;
    }
    world.redis::<String>(&["XGROUP", "CREATE", stream, "group", "0"]).await;
}

fn behind(entry: &Found) -> String {
    let (ms, n) = entry.position();
    format!("{ms}-{}", n + 1)
}

#[tokio::test(flavor = "multi_thread")]
async fn equal_is_said_with_exactly_the_keys_of_the_contract() {
    let world = carried(&["orders", "payments"]).await;
    let said = verify(&world).await;
    let streams = [line("orders", EACH, &[]), line("payments", EACH, &[])];
    assert_eq!(said, json!({ "ok": true, "streams": streams }));
    let text = run(&world, &["verify"]);
    assert_eq!(text.code, Some(0), "{text:#?}");
    assert!(text.out.contains("equal: 10 entries in 2 streams"), "{text:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_outbox_is_equal_to_an_empty_redis() {
    let world = World::new().await;
    assert_eq!(verify(&world).await, json!({ "ok": true, "streams": [] }));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_difference_is_counted_where_it_is() {
    let names = ["altered", "duplicate", "fine", "foreign", "gone", "missing", "order", "typed"];
    let world = carried(&names).await;
    let mut entries = read_stream(&world, "altered").await;
    entries[2].fields.iter_mut().find(|(name, _)| name == "key").unwrap().1 = "K".into();
    remake(&world, "altered", &entries).await;

    let entries = read_stream(&world, "duplicate").await;
    let again = Found { id: behind(&entries[4]), fields: entries[1].fields.clone() };
    add(&world, "duplicate", &again).await;

    world.redis::<String>(&["XADD", "foreign", "*", "who", "knows"]).await;
    let stranger = uuid::Uuid::new_v4().to_string();
    world.redis::<String>(&["XADD", "foreign", "*", "id", &stranger]).await;

    world.redis::<i64>(&["DEL", "gone"]).await;

    let entries = read_stream(&world, "missing").await;
    world.redis::<i64>(&["XDEL", "missing", &entries[1].id, &entries[4].id]).await;

    let mut entries = read_stream(&world, "order").await;
    let mut moved = entries.remove(1);
    moved.id = behind(&entries[3]);
    entries.push(moved);
    remake(&world, "order", &entries).await;

    world.redis::<i64>(&["DEL", "typed"]).await;
    world.redis::<String>(&["SET", "typed", "a text"]).await;

    let said = verify(&world).await;
    let expected = [
        line("altered", EACH, &[("altered", 1)]),
        line("duplicate", EACH, &[("duplicate", 1)]),
        line("fine", EACH, &[]),
        line("foreign", EACH, &[("foreign", 2)]),
        line("gone", EACH, &[("missing", EACH)]),
        line("missing", EACH, &[("missing", 2)]),
        line("order", EACH, &[("out_of_order", 1)]),
    ];
    assert_eq!(said["ok"], json!(false));
    let streams = said["streams"].as_array().unwrap();
    assert_eq!(streams[..7], expected, "{said:#}");
    assert_eq!(streams[7]["missing"], json!(EACH), "{said:#}");
    let text = run(&world, &["verify"]);
    assert_eq!(text.code, Some(1), "{text:#?}");
    assert!(text.out.contains("DIFFERENT"), "{text:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_altered_entry_is_found_whatever_was_altered() {
    let world = carried(&["orders"]).await;
    let entries = read_stream(&world, "orders").await;
    type Alteration = fn(&mut Vec<(String, String)>);
    let alterations: [Alteration; 6] = [
        |fields| fields[0].1 = uuid::Uuid::new_v4().to_string(),
        |fields| fields.retain(|(name, _)| name != "key"),
        |fields| fields.push(("more".into(), String::new())),
        |fields| fields.swap(0, 1),
        |fields| fields.last_mut().unwrap().1.push(' '),
        |fields| {
            fields.iter_mut().find(|(name, _)| name == "at").unwrap().1.replace_range(0..1, "3");
        },
    ];
    for (index, alter) in alterations.iter().enumerate() {
        let mut altered = entries.clone();
        alter(&mut altered[3].fields);
        remake(&world, "orders", &altered).await;
        let said = verify(&world).await;
        assert_eq!(
            said["streams"],
            json!([line("orders", EACH, &[("altered", 1)])]),
            "alteration {index}"
        );
    }
    remake(&world, "orders", &entries).await;
    assert_eq!(verify(&world).await["ok"], json!(true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_is_no_difference() {
    let world = carried(&["orders"]).await;
    let mut relay = world.relay("stuck", &[]);
    relay.logged("leading with token").await;
    world.redis::<String>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let client = world.application().await;
    Note::new("orders").insert(&client).await.unwrap();
    eventually("a row is sealed and cannot be appended", Duration::from_secs(30), || async {
        let sql = "select count(*) from outbox.batch where dispatched_at is null";
        world.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    relay.kill();
    // Nobody seals this one.
    Note::new("orders").insert(&client).await.unwrap();
    let said = verify(&world).await;
    assert_eq!(said["ok"], json!(true), "{said:#}");
    let text = run(&world, &["verify"]);
    assert!(text.out.contains("that is no fault"), "{text:#?}");
}
