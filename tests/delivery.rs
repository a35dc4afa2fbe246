//! Rows committed in a real Postgres arrive in a real Redis, each exactly once, in order.

use std::time::Duration;

use crate::support::eventually;
use crate::support::journal::{Fate, Note, read_stream};
use crate::support::world::World;

/// Waits until `stream` holds this many entries.
async fn arrived(world: &World, stream: &str, count: usize) {
    let what = format!("{stream} holds {count} entries");
    let mut connection = world.streams().await;
    let begun = std::time::Instant::now();
    loop {
        let length: usize =
            redis::cmd("XLEN").arg(stream).query_async(&mut connection).await.unwrap();
        if length == count {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}, not {length}");
        crate::support::pause().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_arrives_and_what_is_rolled_back_does_not() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    let client = world.application().await;
    let notes: Vec<Note> = (0..6).map(|_| Note::new("orders")).collect();
    let rolled_back = |note: &Note| note.clone().fate(Fate::RolledBack);
    notes[0].insert(&client).await.unwrap();
    client.batch_execute("begin").await.unwrap();
    notes[1].insert(&client).await.unwrap();
    client.batch_execute("rollback; begin").await.unwrap();
    notes[2].insert(&client).await.unwrap();
    client.batch_execute("savepoint a").await.unwrap();
    notes[3].insert(&client).await.unwrap();
    client.batch_execute("rollback to a; savepoint b").await.unwrap();
    notes[4].insert(&client).await.unwrap();
    client.batch_execute("release b; commit").await.unwrap();
    notes[5].insert(&client).await.unwrap();
    world.journal.write([rolled_back(&notes[1]), rolled_back(&notes[3])]);
    world.journal.write([0, 2, 4, 5].map(|at| notes[at].clone()));
    world.reconcile().await;
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepared_transaction_arrives_when_it_is_committed() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    let client = world.application().await;
    let (kept, dropped, other) = (Note::new("a"), Note::new("a"), Note::new("a"));
    client.batch_execute("set outbox.wake = off; begin").await.unwrap();
    kept.insert(&client).await.unwrap();
    client.batch_execute("prepare transaction 'kept'; begin").await.unwrap();
    dropped.insert(&client).await.unwrap();
    client.batch_execute("prepare transaction 'dropped'").await.unwrap();
    other.insert(&client).await.unwrap();
    arrived(&world, "a", 1).await;
    client.batch_execute("commit prepared 'kept'").await.unwrap();
    client.batch_execute("rollback prepared 'dropped'").await.unwrap();
    arrived(&world, "a", 2).await;
    world.journal.write([kept, dropped.fate(Fate::RolledBack), other]);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_in_another_order_than_ids_all_arrive() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    let mut open = Vec::new();
    for _ in 0..8 {
        let client = world.application().await;
        client.batch_execute("begin").await.unwrap();
        let note = Note::new("a");
        note.insert(&client).await.unwrap();
        open.push((client, note));
    }
    let mut count = 0;
    for at in [3, 7, 0, 6, 1, 5, 2, 4] {
        open[at].0.batch_execute("commit").await.unwrap();
        count += 1;
        arrived(&world, "a", count).await;
    }
    world.journal.write(open.into_iter().map(|(_, note)| note));
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_drawn_long_before_the_transaction_has_an_xid_is_not_skipped() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    let owner = world.owner().await;
    let draw = "select nextval('outbox.entry_id_seq')";
    let early: i64 = owner.query_one(draw, &[]).await.unwrap().get(0);
    let client = world.application().await;
    let rows = |from: i32, to: i32| {
        format!(
            "insert into outbox.entry (stream, payload) \
             select 'a', to_jsonb(i) from generate_series({from}, {to}) i"
        )
    };
    client.batch_execute(&rows(1, 500)).await.unwrap();
    arrived(&world, "a", 500).await;
    let later: i64 = owner.query_one(draw, &[]).await.unwrap().get(0);
    client.batch_execute(&rows(501, 1000)).await.unwrap();
    arrived(&world, "a", 1000).await;
    let insert = "insert into outbox.entry (id, stream, payload) overriding system value \
                  values ($1, 'a', '0')";
    // Many new rows at once, two of them with ids from long ago.
    owner.batch_execute("begin").await.unwrap();
    owner.execute(insert, &[&later]).await.unwrap();
    owner.execute(insert, &[&early]).await.unwrap();
    owner.batch_execute(&rows(1001, 1500)).await.unwrap();
    owner.batch_execute("commit").await.unwrap();
    arrived(&world, "a", 1502).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_left_open_holds_up_nobody_and_its_rows_come_last() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    let (long, client) = (world.application().await, world.application().await);
    long.batch_execute("begin").await.unwrap();
    let late: Vec<Note> = (0..50).map(|_| Note::new("a")).collect();
    for note in &late {
        note.insert(&long).await.unwrap();
    }
    for count in 1..=100 {
        let note = Note::new("a");
        note.insert(&client).await.unwrap();
        world.journal.write([note]);
        arrived(&world, "a", count).await;
    }
    for note in &late[..10] {
        let more = Note::new("b");
        more.insert(&long).await.unwrap();
        world.journal.write([more, note.clone()]);
    }
    world.journal.write(late[10..].iter().cloned());
    long.batch_execute("commit").await.unwrap();
    arrived(&world, "a", 150).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_rows_of_one_transaction_arrive_in_order_beside_others() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    let (bulk, client) = (world.application().await, world.application().await);
    let sql = "insert into outbox.entry (stream, key, payload) \
               select 'bulk', 'k', jsonb_build_object('i', i) from generate_series(1, 100000) i";
    bulk.batch_execute("begin").await.unwrap();
    bulk.batch_execute(sql).await.unwrap();
    let small: Vec<Note> = (0..20).map(|_| Note::new("small")).collect();
    for note in &small {
        note.insert(&client).await.unwrap();
    }
    arrived(&world, "small", 20).await;
    bulk.batch_execute("commit").await.unwrap();
    arrived(&world, "bulk", 100_000).await;
    let most = relay.status_of_linux("VmHWM");
    assert!(most < 64 * 1_024, "it took {most} KiB of memory");
    let entries = read_stream(&world, "bulk").await;
    for (i, entry) in (1..).zip(&entries) {
        assert_eq!(entry.field("payload"), Some(format!("{{\"i\": {i}}}").as_str()));
    }
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_of_one_batch_come_in_the_order_of_ids_and_not_of_transactions() {
    let world = World::new().await;
    let mut writers = Vec::new();
    for _ in 0..4 {
        let client = world.application().await;
        client.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
        writers.push(client);
    }
    // The youngest transaction has the key first.
    for client in writers.iter().rev() {
        let mut note = Note::new("a").key("k");
        note.insert(client).await.unwrap();
        note.number = Some(world.journal.next_number("a", "k"));
        world.journal.write([note]);
        client.batch_execute("commit").await.unwrap();
    }
    let _relay = world.relay("relay", &[]);
    world.reconcile().await;
}

/// 16 writers over a few keys; each takes `lock`, then inserts with `insert`.
async fn ordered_writers(world: &World, lock: &'static str, insert: &'static str) {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..16u64 {
        let client = world.application().await;
        let journal = world.journal.clone();
        writers.spawn(async move {
            for round in 0..60 {
                let key = format!("k{}", (writer + round) % 5);
                client.batch_execute("begin").await.unwrap();
                client.query(lock, &[&key]).await.unwrap();
                let mut note = Note::new("orders").key(&key);
                let sql = insert;
                client
                    .query(sql, &[&note.event_id, &note.stream, &note.key, &note.payload])
                    .await
                    .unwrap();
                // The key is held by now, in either way of holding it.
                note.number = Some(journal.next_number("orders", &key));
                journal.write([note]);
                client.batch_execute("commit").await.unwrap();
            }
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_that_lock_the_key_get_its_order() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    let lock = "select pg_advisory_xact_lock(hashtext($1::text))";
    let insert =
        "insert into outbox.entry (event_id, stream, key, payload) values ($1, $2, $3, $4)";
    ordered_writers(&world, lock, insert).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn emit_with_ordered_gives_the_order_of_the_key() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    let nothing = "select $1::text";
    let emit = "select outbox.emit($2, $4, key => $3, event_id => $1, ordered => true)";
    ordered_writers(&world, nothing, emit).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payloads_arrive_as_postgres_prints_them() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    let client = world.application().await;
    let deep = format!("{}1{}", "[".repeat(500), "]".repeat(500));
    let planes: String = (0..=16u32)
        .flat_map(|plane| [plane << 16 | 0x41, plane << 16 | 0xFFFD, plane << 16 | 0xABCD])
        .filter_map(char::from_u32)
        .collect();
    let texts = [
        deep,
        serde_json::json!({ "planes": planes, "": "", "quote\"\\": "\r\n\t\u{1}" }).to_string(),
        "null".into(),
        "-0.0".into(),
        "1e1000".into(),
        "[]".into(),
        format!("\"{}\"", "x".repeat(65_534)),
        "\"$6\\r\\nfoobar\\r\\n*1\\r\\n\"".into(),
    ];
    for text in &texts {
        let sql = "insert into outbox.entry (stream, key, type, payload, headers) \
                   values ('a', $1, '', $2::text::jsonb, $2::text::jsonb -> 'none')";
        client.execute(sql, &[&"ключ\r\n$3\r\n\u{10FFFF}", text]).await.unwrap();
    }
    arrived(&world, "a", texts.len()).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_hostile_application_can_write_harm_nobody() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    let client = world.application().await;
    let longest = "s".repeat(128);
    let streams = ["0", "a.b_c-d:e", "x{y}", "x{", "x}{", "KEYS", "redis.call", &longest];
    let event = uuid::Uuid::new_v4();
    for stream in streams {
        let sql = "insert into outbox.entry (event_id, stream, key, type, payload, headers) \
                   values ($1, $2, $3, $3, '{\"id\": \"payload\"}', '{\"payload\": 1}')";
        for text in ["", "id", "\r\n+OK\r\n", "'; return 1 --", &"k".repeat(1_024)] {
            client.execute(sql, &[&event, &stream, &text]).await.unwrap();
        }
    }
    // Thousands of streams of one row each are a nuisance and nothing worse.
    let many = "insert into outbox.entry (stream, payload) \
                select 'many.' || i, '1' from generate_series(1, 2000) i";
    client.batch_execute(many).await.unwrap();
    world.settled().await;
    for stream in streams {
        assert_eq!(read_stream(&world, stream).await.len(), 5, "{stream}");
    }
    let kept: usize = world.redis(&["DBSIZE"]).await;
    assert_eq!(kept, streams.len() + 2_000 + 1, "one key per stream, and the identity");
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_backlog_written_before_the_relay_ran_is_carried_with_a_prefix() {
    let world = World::new().await;
    let client = world.application().await;
    let sql = "insert into outbox.entry (stream, payload) \
               select 'a.' || i % 3, to_jsonb(i) from generate_series(1, 30000) i";
    client.batch_execute(sql).await.unwrap();
    let _relay = world.relay("relay", &[("OUTBOX_PREFIX", "shop:"), ("OUTBOX_BATCH_ROWS", "700")]);
    arrived(&world, "shop:a.0", 10_000).await;
    arrived(&world, "shop:a.1", 10_000).await;
    arrived(&world, "shop:a.2", 10_000).await;
    let mut keys: Vec<String> = world.redis(&["KEYS", "*"]).await;
    keys.sort();
    assert_eq!(keys, ["shop:a.0", "shop:a.1", "shop:a.2", "shop:outbox:identity"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_scrub_finds_what_was_written_around_the_schema() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    let client = world.application().await;
    Note::new("a").insert(&client).await.unwrap();
    arrived(&world, "a", 1).await;
    // As a copy from another cluster would bring it: a transaction id of long ago.
    world.sql("insert into outbox.entry (xid, stream, payload) values ('3', 'a', '1')").await;
    eventually("the scrub has found the row", Duration::from_secs(40), || async {
        // Seals move the search on, which lets the scrub prove more.
        Note::new("b").insert(&client).await.unwrap();
        relay.log().contains("the scrub found 1 committed rows")
    })
    .await;
    arrived(&world, "a", 2).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_far_apart_that_are_sealed_together_have_their_status() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    let one = "insert into outbox.entry (stream, payload) values ('a', '1')";
    let open = world.application().await;
    open.batch_execute(&format!("begin; {one}")).await.unwrap();
    let many =
        "insert into outbox.entry (stream, payload) select 'a', '2' from generate_series(1, 20000)";
    world.application().await.batch_execute(many).await.unwrap();
    arrived(&world, "a", 20_000).await;
    open.batch_execute(&format!("{one}; commit")).await.unwrap();
    arrived(&world, "a", 20_002).await;
    world.settled().await;
    let sql = "select count(*), max(last_id - first_id) from outbox.batch where last_n > 20000";
    let row = world.owner().await.query_one(sql, &[]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), (1, 20_001));
    let sql = "select id, n from outbox.entry_status where state = 'dispatched' and id = any ($1) \
               order by id";
    let rows = world.owner().await.query(sql, &[&vec![1_i64, 2, 20_001, 20_002]]).await.unwrap();
    let found: Vec<(i64, i64)> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
    assert_eq!(found, [(1, 20_001), (2, 1), (20_001, 20_000), (20_002, 20_002)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_stream_begins_behind_its_floor() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    let client = world.application().await;
    for _ in 0..10 {
        Note::new("a").insert(&client).await.unwrap();
    }
    arrived(&world, "a", 10).await;
    world.settled().await;
    assert!(relay.stop().success());
    let floor = read_stream(&world, "a").await[5].position();
    world
        .sql(&format!("update outbox.stream set purged_ms = {}, purged_n = {}", floor.0, floor.1))
        .await;
    world.redis::<()>(&["FLUSHALL"]).await;
    let relay = world.relay("relay", &[]);
    relay.logged("Redis lost entries 7 to 10 of stream a").await;
    Note::new("a").insert(&client).await.unwrap();
    arrived(&world, "a", 5).await;
    let numbers: Vec<u64> = read_stream(&world, "a").await.iter().map(|e| e.position().1).collect();
    assert_eq!(numbers, [7, 8, 9, 10, 11]);
}
