//! What polls, views and checkpoints cost does not grow with rows kept, streams asleep, or time.

use std::time::Duration;

use crate::support::eventually;
use crate::support::world::World;
use crate::support::writers::write_rows;

/// Blocks that a statement touches, by the server's own count.
async fn blocks(client: &tokio_postgres::Client, statement: &str) -> i64 {
    let explain = format!("explain (analyze, buffers, format json) {statement}");
    // Once to plan and warm up, once to count.
    client.query_one(&explain, &[]).await.unwrap();
    let plan: serde_json::Value = client.query_one(&explain, &[]).await.unwrap().get(0);
    let root = &plan[0]["Plan"];
    root["Shared Hit Blocks"].as_i64().unwrap() + root["Shared Read Blocks"].as_i64().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn polls_and_views_do_not_read_the_rows_that_are_kept() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    let fill = "insert into outbox.entry (stream, payload) \
                select 's' || i % 4, to_jsonb(i) from generate_series(1, 200000) i";
    world.application().await.batch_execute(fill).await.unwrap();
    world.settled().await;
    drop(relay);
    // Somebody's transaction stays open: it is listed in every snapshot from now on.
    let open = world.application().await;
    let one = "insert into outbox.entry (stream, payload) values ('s0', '1')";
    open.batch_execute(&format!("begin; {one}")).await.unwrap();
    let mut relay = world.relay("relay", &[]);
    world.application().await.batch_execute(one).await.unwrap();
    world.settled().await;
    assert!(relay.stop().success());

    let client = world.owner().await;
    client.batch_execute("vacuum analyze outbox.entry, outbox.batch").await.unwrap();
    let views = [
        "select * from outbox.pending",
        "select * from outbox.stream_status",
        "select * from outbox.entry_status where id = 100000",
    ];
    for view in views {
        let touched = blocks(&client, view).await;
        assert!(touched < 300, "{view} touched {touched} blocks");
    }
    let find = include_str!("../sql/queries/find.sql");
    let settings = "set enable_seqscan = off; set enable_bitmapscan = off; \
                    set enable_hashjoin = off; set enable_mergejoin = off; \
                    set plan_cache_mode = force_generic_plan";
    client.batch_execute(settings).await.unwrap();
    let prepare =
        format!("prepare find (text[], text, text, bigint, bigint, bigint, bigint) as {find}");
    client.batch_execute(&prepare).await.unwrap();
    let cursor = "select base::text, high from outbox.cursor";
    let row = client.query_one(cursor, &[]).await.unwrap();
    let (base, high): (String, i64) = (row.get(0), row.get(1));
    let parts: Vec<&str> = base.splitn(3, ':').collect();
    let execute = format!(
        "execute find ('{{{}}}', '{}', null, {high}, {}, 5000, 5000)",
        parts[2],
        parts[1],
        i64::MIN
    );
    let touched = blocks(&client, &execute).await;
    assert!(touched < 300, "a poll touched {touched} blocks");
}

/// Calls of scripts that Redis has answered.
async fn scripts(world: &World) -> u64 {
    let stats: String = world.redis(&["INFO", "commandstats"]).await;
    let calls = |name: &str| {
        let line = stats.lines().find_map(|line| line.strip_prefix(name))?;
        line.split(',').next()?.parse::<u64>().ok()
    };
    let counts = ["cmdstat_evalsha:calls=", "cmdstat_eval:calls="].map(calls);
    counts.into_iter().flatten().sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_streams_that_sleep_are_looked_at_seldom() {
    const STREAMS: u64 = 10_000;
    let world = World::new().await;
    let relay = world.relay("relay", &[("OUTBOX_AUDIT", "10m"), ("OUTBOX_CHECKPOINT", "100ms")]);
    let sql = "insert into outbox.entry (stream, payload) \
               select 'stream-' || i, '1' from generate_series(1, $1) i";
    let streams = STREAMS as i32;
    world.application().await.execute(sql, &[&streams]).await.unwrap();
    world.settled().await;
    let mut groups = redis::pipe();
    for i in (1..=STREAMS).step_by(10) {
        groups.cmd("XGROUP").arg("CREATE").arg(format!("stream-{i}")).arg("mail").arg("$").ignore();
    }
    groups.exec_async(&mut world.streams().await).await.unwrap();
    let address = crate::metrics::address(&relay).await;
    let last = "outbox_relay_last_checkpoint_timestamp_seconds";
    let rounds = async |count: usize| {
        let seen = std::sync::Mutex::new(std::collections::BTreeSet::new());
        eventually("checkpoints go on", Duration::from_secs(60), || async {
            let value = crate::metrics::value(&address, last).await.unwrap();
            let mut seen = seen.lock().unwrap();
            seen.insert(value.to_bits());
            seen.len() > count
        })
        .await;
    };
    // All of them are new at first, a thousand at a time; then each has its turn to be seen asleep.
    rounds(60).await;
    let before = scripts(&world).await;
    rounds(30).await;
    let asked = scripts(&world).await - before;
    // Each of them about once, and two for the canary in each round.
    assert!(asked < STREAMS * 3 / 2, "{asked} scripts in about 30 rounds");
    // One that wakes up is not kept waiting.
    write_rows(&world, "stream-1", 5).await;
    // The first entry was acknowledged when its group was made behind it.
    world.holds("stream-1", 5).await;
    world.checkpointed("stream-1").await;
    assert_eq!(world.floor("stream-1").await, (1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn checkpoints_of_the_past_go_although_a_transaction_stays_open() {
    let world = World::new().await;
    let relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", "100ms")]);
    crate::support::workers::make_group(&world, "orders", "mail").await;
    write_rows(&world, "orders", 50).await;
    world.settled().await;
    let open = world.owner().await;
    open.batch_execute("begin isolation level repeatable read; select 1").await.unwrap();
    let read = ["XREADGROUP", "GROUP", "mail", "one", "COUNT", "1", "STREAMS", "orders", ">"];
    for _ in 0..10 {
        world.redis::<redis::Value>(&read).await;
        world.checkpointed("orders").await;
    }
    drop(relay);
    let client = world.owner().await;
    let latest = "select groups::text from outbox.floor where stream = 'orders'";
    let before: String = client.query_one(latest, &[]).await.unwrap().get(0);
    let halves = "select (select count(*) from outbox.checkpoint_0), \
                  (select count(*) from outbox.checkpoint_1)";
    let row = client.query_one(halves, &[]).await.unwrap();
    assert!(row.get::<_, i64>(0) >= 10 && row.get::<_, i64>(1) == 0, "one row per checkpoint");
    for (half, held) in [(1, (0, 1)), (1, (0, 1))] {
        let rotate = "select outbox.rotate_checkpoints(1)::int";
        assert_eq!(client.query_one(rotate, &[]).await.unwrap().get::<_, i32>(0), half);
        let row = client.query_one(halves, &[]).await.unwrap();
        assert_eq!((row.get::<_, i64>(0), row.get::<_, i64>(1)), held);
    }
    assert_eq!(client.query_one(latest, &[]).await.unwrap().get::<_, String>(0), before);
    let _relay = world.relay("successor", &[("OUTBOX_CHECKPOINT", "100ms")]);
    world.redis::<redis::Value>(&read).await;
    world.checkpointed("orders").await;
}
