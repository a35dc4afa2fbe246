//! Leaves: attached ahead of need beside open transactions; the net takes what came too early.

use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::support::journal::Note;
use crate::support::world::{RELAY, World, connect};

async fn ids_begin_at(world: &World, id: i64) {
    world.sql(&format!("select setval('outbox.entry_id_seq', {id}, false)")).await;
}

/// Attaches leaves as the relay does, with its rights.
async fn attach(world: &World, arguments: &str) -> Result<i32, tokio_postgres::Error> {
    let relay = connect(&world.postgres.url_of("postgres", RELAY)).await;
    let row = relay.query_one(&format!("select outbox.attach_leaves({arguments})"), &[]).await?;
    Ok(row.get(0))
}

/// In which leaf each row is, in the order of ids.
async fn homes(world: &World) -> Vec<String> {
    let sql = "select tableoid::regclass::text from outbox.entry order by id";
    let rows = world.owner().await.query(sql, &[]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

async fn insert(world: &World, client: &Client) {
    let note = Note::new("orders");
    note.insert(client).await.unwrap();
    world.journal.write([note]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_is_attached_while_transactions_that_inserted_are_open() {
    let world = World::new().await;
    assert_eq!(attach(&world, "").await.unwrap(), 0, "migrate attached too few");
    let (open, busy) = (world.application().await, world.application().await);
    for client in [&open, &busy] {
        client.batch_execute("begin").await.unwrap();
    }
    insert(&world, &open).await;
    ids_begin_at(&world, 15_000_000).await;
    insert(&world, &busy).await;
    let begun = Instant::now();
    assert_eq!(attach(&world, "").await.unwrap(), 1);
    assert!(begun.elapsed() < Duration::from_secs(1), "it waited for the writers");
    ids_begin_at(&world, 20_000_000).await;
    for client in [&open, &busy] {
        insert(&world, client).await;
        client.batch_execute("commit").await.unwrap();
    }
    let leaves = ["entry_0", "entry_10000000", "entry_20000000", "entry_20000000"];
    assert_eq!(homes(&world).await, leaves.map(|leaf| format!("outbox.{leaf}")));
    let mut relay = world.relay("relay", &[]);
    world.reconcile().await;
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_relay_attaches_leaves_before_they_are_needed() {
    let world = World::new().await;
    ids_begin_at(&world, 15_000_000).await;
    let client = world.application().await;
    insert(&world, &client).await;
    let mut relay = world.relay("relay", &[]);
    let sql = "select count(*) from outbox.leaf where tree = 'entry' and upper >= 30000000";
    let bound = Duration::from_secs(30);
    crate::support::eventually("a leaf was attached", bound, || async {
        world.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) > 0
    })
    .await;
    ids_begin_at(&world, 25_000_000).await;
    insert(&world, &client).await;
    world.reconcile().await;
    assert_eq!(homes(&world).await, ["outbox.entry_10000000", "outbox.entry_20000000"]);
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_takes_each_id_at_its_edges() {
    let world = World::new().await;
    let client = world.application().await;
    for id in [1, 9_999_999, 10_000_000, 19_999_999] {
        ids_begin_at(&world, id).await;
        insert(&world, &client).await;
    }
    let leaves = ["entry_0", "entry_0", "entry_10000000", "entry_10000000"];
    assert_eq!(homes(&world).await, leaves.map(|leaf| format!("outbox.{leaf}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_beyond_every_leaf_go_to_the_net_and_are_delivered() {
    let world = World::new().await;
    let client = world.application().await;
    insert(&world, &client).await;
    ids_begin_at(&world, 1_234_567_890).await;
    for _ in 0..3 {
        insert(&world, &client).await;
    }
    let net = "outbox.entry_net";
    assert_eq!(homes(&world).await, ["outbox.entry_0", net, net, net]);
    let mut relay = world.relay("relay", &[]);
    world.reconcile().await;
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_in_the_net_do_not_keep_leaves_from_being_attached() {
    let world = World::new().await;
    let client = world.application().await;
    ids_begin_at(&world, 1_234_567_890).await;
    insert(&world, &client).await;
    let attached =
        attach(&world, "").await.unwrap_or_else(|e| panic!("rows stay in the net for ever: {e:?}"));
    assert!(
        (1..=3).contains(&attached),
        "{attached} leaves, also for ids that will not come again"
    );
    let sql = "select max(lower) from outbox.leaf where tree = 'entry'";
    let lower: i64 = world.owner().await.query_one(sql, &[]).await.unwrap().get(0);
    ids_begin_at(&world, lower.max(1_234_567_891)).await;
    insert(&world, &client).await;
    assert!(!homes(&world).await[1].contains("net"), "{:?}", homes(&world).await);
    let mut relay = world.relay("relay", &[]);
    world.reconcile().await;
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_reader_costs_upkeep_a_short_wait_and_writers_nothing() {
    let world = World::new().await;
    let reader = world.owner().await;
    reader.batch_execute("begin; select count(*) from outbox.entry").await.unwrap();
    ids_begin_at(&world, 15_000_000).await;
    insert(&world, &world.application().await).await;
    let begun = Instant::now();
    let error = attach(&world, "").await.expect_err("the reader holds the net");
    assert_eq!(error.code(), Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE));
    assert!(begun.elapsed() < Duration::from_secs(2), "it waited {:?}", begun.elapsed());
    // Nor do leaves that were made before the wait stay behind.
    let sql = "select count(*) from pg_class where relname = 'entry_20000000'";
    assert_eq!(reader.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
    let mut relay = world.relay("relay", &[]);
    insert(&world, &world.application().await).await;
    world.reconcile().await;
    reader.batch_execute("commit").await.unwrap();
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn leaves_of_nonsense_are_refused() {
    let world = World::new().await;
    for arguments in ["0", "-1", "10, 0", "10, -1"] {
        let error = attach(&world, arguments).await.expect_err(arguments);
        assert!(format!("{error:?}").contains("at least 1"), "{error:?}");
    }
}
