//! pg_upgrade.

use super::{another_cluster, begin, end, go_on, succeeds, tool};
use crate::support::world::{World, connect};

#[tokio::test(flavor = "multi_thread")]
async fn after_pg_upgrade_it_goes_on_where_it_was_once_somebody_consents() {
    let mut world = World::new().await;
    let bin = world.postgres.bin_dir().to_owned();
    if !bin.join("pg_upgrade").is_file() {
        eprintln!("SKIPPED: there is no pg_upgrade in {}", bin.display());
        return;
    }
    let (relay, writers) = begin(&world).await;
    let before = end(&world, relay, writers).await;
    let mut elsewhere = another_cluster().await;
    // The new one has to be as initdb left it.
    let roles = "drop role shop; drop role relay; drop role worker";
    connect(&elsewhere.url()).await.batch_execute(roles).await.unwrap();
    world.postgres.stop_fast().unwrap();
    elsewhere.stop_fast().unwrap();
    let mut upgrade = tool(&elsewhere, "pg_upgrade");
    upgrade.args(["-U", "postgres", "-b"]).arg(&bin).arg("-B").arg(&bin);
    upgrade.arg("-d").arg(world.postgres.data_dir()).arg("-D").arg(elsewhere.data_dir());
    succeeds(upgrade);
    elsewhere.restart().unwrap();
    std::mem::swap(&mut world.postgres, &mut elsewhere);
    let (_relay, adopted) = go_on(&world, before).await;
    assert!(
        !adopted.out.contains("carried transaction ids"),
        "they are those of the old: {adopted:#?}"
    );
}
