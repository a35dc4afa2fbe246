//! A dump that is restored where transaction ids are far behind, or far ahead.

use outbox_relay::sandbox::Postgres;

use super::{another_cluster, begin, dump_and_restore, end, go_on, succeeds, tool};
use crate::support::world::{World, connect};
use crate::support::writers::Writers;

/// Lets transaction ids go on `epochs` times four thousand million later.
fn leap(postgres: &mut Postgres, epochs: u32) {
    postgres.stop_fast().unwrap();
    let mut reset = tool(postgres, "pg_resetwal");
    reset.args(["-e", &epochs.to_string()]).arg(postgres.data_dir());
    succeeds(reset);
    postgres.restart().unwrap();
}

async fn next_transaction(postgres: &Postgres) -> u64 {
    let sql = "select pg_current_xact_id()::text";
    let row = connect(&postgres.url()).await.query_one(sql, &[]).await.unwrap();
    row.get::<_, String>(0).parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_goes_on_where_transactions_are_far_behind_and_when_they_catch_up() {
    let mut world = World::new().await;
    leap(&mut world.postgres, 5);
    let (relay, writers) = begin(&world).await;
    let before = end(&world, relay, writers).await;
    let mut elsewhere = another_cluster().await;
    assert!(
        next_transaction(&elsewhere).await + (4 << 32) < next_transaction(&world.postgres).await
    );
    dump_and_restore(&world, &[], &elsewhere);
    std::mem::swap(&mut world.postgres, &mut elsewhere);
    let (mut relay, adopted) = go_on(&world, before).await;
    assert!(adopted.out.contains("carried transaction ids"), "{adopted:#?}");
    // Those of the old cluster come up, and are past.
    leap(&mut world.postgres, 6);
    let writers = Writers::start(&world, 4);
    writers.write_more(100).await;
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_goes_on_where_transactions_are_far_ahead() {
    let mut world = World::new().await;
    let (relay, writers) = begin(&world).await;
    let before = end(&world, relay, writers).await;
    let mut elsewhere = another_cluster().await;
    leap(&mut elsewhere, 5);
    assert!(
        next_transaction(&world.postgres).await + (4 << 32) < next_transaction(&elsewhere).await
    );
    dump_and_restore(&world, &[], &elsewhere);
    std::mem::swap(&mut world.postgres, &mut elsewhere);
    let (_relay, adopted) = go_on(&world, before).await;
    assert!(!adopted.out.contains("carried transaction ids"), "{adopted:#?}");
}
