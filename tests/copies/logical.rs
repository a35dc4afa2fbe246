//! Logical replication, as "Moving to another Postgres cluster" in the README has it.

use outbox_relay::outbox::{Database, Grants, migrate};
use outbox_relay::sandbox::{Postgres, PostgresOptions, RedisOptions};

use super::{BOUND, another_cluster, begin, dump_and_restore, end, go_on};
use crate::support::eventually;
use crate::support::world::{APPLICATION, RELAY, World, connect};

/// Not the leaves, which are tables of one cluster, nor the versions of the schema, which come with it.
const TABLES: [&str; 12] = [
    "outbox.entry",
    "outbox.seal",
    "outbox.batch",
    "outbox.stream",
    "outbox.checkpoint",
    "outbox.phantom",
    "outbox.lease",
    "outbox.scrub",
    "outbox.identity",
    "outbox.partitioning",
    "outbox.done",
    "outbox.dead_letter",
];

async fn sql(postgres: &Postgres, statement: &str) {
    connect(&postgres.url()).await.batch_execute(statement).await.unwrap();
}

async fn holds(postgres: &Postgres, condition: &str) -> bool {
    let row = connect(&postgres.url()).await.query_one(condition, &[]).await.unwrap();
    row.get::<_, Option<bool>>(0) == Some(true)
}

/// Where ids and checkpoints would go on.
async fn sequences(postgres: &Postgres) -> (i64, i64) {
    let ask = "select coalesce(pg_sequence_last_value('outbox.entry_id_seq'), 0), \
               coalesce(pg_sequence_last_value('outbox.checkpoint_id_seq'), 0)";
    let row = connect(&postgres.url()).await.query_one(ask, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

#[test]
fn the_readme_publishes_the_same_tables() {
    let readme = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let publication = format!("{} with (publish_via_partition_root = true)", TABLES.join(", "));
    assert!(text.contains(&publication), "README.md does not say {publication}");
}

/// Copies `world` into `elsewhere`, which has the schema, while writers write, and moves there.
async fn replicate(mut world: World, mut elsewhere: Postgres) {
    let (relay, writers) = begin(&world).await;
    world.checkpointed("orders").await;
    let publication = format!(
        "create publication outbox for table {} with (publish_via_partition_root = true)",
        TABLES.join(", ")
    );
    sql(&world.postgres, &publication).await;
    let source = format!("host=127.0.0.1 port={} user=postgres", world.postgres.port());
    let subscription =
        format!("create subscription outbox connection '{source}' publication outbox");
    sql(&elsewhere, &subscription).await;
    writers.write_more(100).await;
    // The old one gets a leaf that the new one has not, and ids go on in it.
    sql(&world.postgres, "select outbox.attach_leaves(ahead => 4)").await;
    sql(&world.postgres, "select setval('outbox.entry_id_seq', 20000000)").await;
    writers.write_more(100).await;
    let copied = format!(
        "select count(*) = {} and bool_and(srsubstate = 'r') from pg_subscription_rel",
        TABLES.len()
    );
    eventually("all tables are copied", BOUND, || holds(&elsewhere, &copied)).await;
    let before = end(&world, relay, writers).await;
    let written = "select pg_current_wal_lsn()::text";
    let written = world.owner().await.query_one(written, &[]).await.unwrap();
    let has_all = format!(
        "select bool_and(replay_lsn >= '{}') from pg_stat_replication where application_name = 'outbox'",
        written.get::<_, &str>(0)
    );
    eventually("the new one has all", BOUND, || holds(&world.postgres, &has_all)).await;
    sql(&elsewhere, "drop subscription outbox").await;
    std::mem::swap(&mut world.postgres, &mut elsewhere);
    assert_eq!(
        sequences(&world.postgres).await,
        (0, 0),
        "sequences were copied: this shows little"
    );
    let (relay, _) = go_on(&world, before).await;
    let (old, new) = (sequences(&elsewhere).await, sequences(&world.postgres).await);
    assert!(new.0 > old.0 && new.1 > old.1, "{new:?} goes on behind {old:?}");
    let is_empty = "select not exists (select from outbox.entry_net)";
    eventually("rows have leaves again", BOUND, || holds(&world.postgres, is_empty)).await;
    // The group goes on where it was here, not where it was on the day of the copy.
    let group = world.group("orders", "mail").await.unwrap().delivered;
    world.redis::<()>(&["FLUSHALL"]).await;
    relay.logged("Redis lost").await;
    eventually("the group is back", BOUND, || async {
        world.group("orders", "mail").await.is_some_and(|found| found.delivered == group)
    })
    .await;
    world.reconcile().await;
}

async fn source() -> World {
    let options = PostgresOptions::default().with("wal_level", "logical");
    World::with(options, RedisOptions::default()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logical_copy_whose_schema_was_dumped_goes_on_where_it_was() {
    let (world, elsewhere) = (source().await, another_cluster().await);
    dump_and_restore(&world, &["--schema-only"], &elsewhere);
    let known = ["--data-only", "--table=outbox.leaf", "--table=outbox.migration"];
    dump_and_restore(&world, &known, &elsewhere);
    replicate(world, elsewhere).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logical_copy_whose_schema_was_made_by_migrate_goes_on_where_it_was() {
    let (world, elsewhere) = (source().await, another_cluster().await);
    let grants = Grants {
        applications: vec![APPLICATION.into()],
        relays: vec![RELAY.into()],
        ..Grants::default()
    };
    migrate(&Database::from_url(&elsewhere.url()).unwrap(), &grants).await.unwrap();
    // Another outbox would begin here, and its rows would stand in the way of those of the old one.
    sql(&elsewhere, "truncate outbox.identity, outbox.lease, outbox.scrub").await;
    replicate(world, elsewhere).await;
}
