//! What a poll and the views cost does not grow with the rows that are kept.

use crate::support::world::World;

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
                    set plan_cache_mode = force_generic_plan";
    client.batch_execute(settings).await.unwrap();
    let prepare = format!("prepare find (text[], text, text, bigint, bigint, bigint) as {find}");
    client.batch_execute(&prepare).await.unwrap();
    let cursor = "select base::text, high from outbox.cursor";
    let row = client.query_one(cursor, &[]).await.unwrap();
    let (base, high): (String, i64) = (row.get(0), row.get(1));
    let parts: Vec<&str> = base.splitn(3, ':').collect();
    let execute = format!(
        "execute find ('{{{}}}', '{}', null, {high}, {}, 5000)",
        parts[2],
        parts[1],
        i64::MIN
    );
    let touched = blocks(&client, &execute).await;
    assert!(touched < 300, "a poll touched {touched} blocks");
}
