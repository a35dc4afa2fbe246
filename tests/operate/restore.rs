//! A database that is dumped, and restored into another cluster.

use std::process::Command;
use std::time::Duration;

use outbox_relay::sandbox::{Postgres, PostgresOptions};

use super::{run, variables};
use crate::support::command::{fails, to_the_end};
use crate::support::world::{APPLICATION, RELAY, WORKER, World, connect};
use crate::support::writers::write_rows;

#[tokio::test(flavor = "multi_thread")]
async fn a_dump_that_is_restored_elsewhere_goes_on_where_it_was_once_somebody_consents() {
    let mut world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 50).await;
    world.settled().await;
    assert!(relay.stop().success());
    // Not sealed when the dump is taken.
    write_rows(&world, "orders", 10).await;
    // Not copied from the one that all tests share: that would be the same cluster.
    let mut elsewhere = Postgres::start(PostgresOptions::default()).unwrap();
    let roles = format!(
        "create role {APPLICATION} login; create role {RELAY} login; create role {WORKER} login"
    );
    connect(&elsewhere.url()).await.batch_execute(&roles).await.unwrap();
    let file = world.folder.path().join("dump.sql");
    let tool = |name: &str| Command::new(world.postgres.bin_dir().join(name));
    let (mut dump, mut restore) = (tool("pg_dump"), tool("psql"));
    dump.arg("-f").arg(&file).arg(world.postgres.url());
    restore.args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).arg(elsewhere.url());
    for command in [dump, restore] {
        let ended = to_the_end(command, Duration::from_secs(60));
        assert_eq!(ended.code, Some(0), "{ended:#?}");
    }
    std::mem::swap(&mut world.postgres, &mut elsewhere);
    let urls = world.urls();
    fails(&["run"], &variables(&urls), 1, &["made in cluster", "outbox-relay adopt"]);
    let adopted = run(&world, &["adopt"]);
    assert!(adopted.out.contains("sealed 10 rows that the log did not have"), "{adopted:#?}");
    let relay = world.relay("here", &[]);
    write_rows(&world, "orders", 20).await;
    world.reconcile().await;
    relay.lost_nothing();
}
