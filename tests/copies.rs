//! The database moves to another cluster: by an upgrade in place, a dump, logical replication, or because a
//! standby is promoted. No row is stuck, none is sent twice.

mod dump;
mod hosts;
mod logical;
mod upgrade;

use std::os::unix::fs::MetadataExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::Duration;

use outbox_relay::sandbox::{Postgres, PostgresOptions};

use crate::support::command::{Ended, command, fails, to_the_end};
use crate::support::eventually;
use crate::support::journal::{Found, read_stream};
use crate::support::relay::Relay;
use crate::support::world::{APPLICATION, RELAY, WORKER, World, connect};
use crate::support::writers::{STREAMS, Writers, write_rows};

const BOUND: Duration = Duration::from_secs(60);
/// Rows that are not in the log when the database moves: of a stream that has some, and of a new one.
const UNSEALED: [(&str, usize); 2] = [("orders", 10), ("refunds", 3)];

/// A cluster of its own, with the roles: what is copied from the template of all tests is one cluster.
async fn another_cluster() -> Postgres {
    let postgres = Postgres::start(PostgresOptions::default()).unwrap();
    let roles = format!(
        "create role {APPLICATION} login; create role {RELAY} login; create role {WORKER} login"
    );
    connect(&postgres.url()).await.batch_execute(&roles).await.unwrap();
    postgres
}

/// A program that works on the files of a server that is stopped, as the user that owns them.
fn tool(postgres: &Postgres, name: &str) -> Command {
    let data = postgres.data_dir();
    let owner = std::fs::metadata(&data).unwrap();
    let mut tool = Command::new(postgres.bin_dir().join(name));
    tool.current_dir(data.parent().unwrap());
    if rustix::process::geteuid().is_root() {
        tool.uid(owner.uid()).gid(owner.gid());
    }
    tool
}

#[track_caller]
fn succeeds(command: Command) -> Ended {
    let ended = to_the_end(command, BOUND);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended
}

/// Takes a dump with these options and reads it in elsewhere.
fn dump_and_restore(world: &World, options: &[&str], elsewhere: &Postgres) {
    let file = world.folder.path().join("dump.sql");
    let client = |name: &str| Command::new(world.postgres.bin_dir().join(name));
    let (mut dump, mut restore) = (client("pg_dump"), client("psql"));
    dump.args(options).arg("-f").arg(&file).arg(world.postgres.url());
    restore.args(["-q", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&file).arg(elsewhere.url());
    succeeds(dump);
    succeeds(restore);
}

#[track_caller]
fn run(world: &World, words: &[&str]) -> Ended {
    let urls = world.urls();
    let ended = command(words, &[("DATABASE_URL", &urls.0), ("REDIS_URL", &urls.1)]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended
}

/// A relay under load, and a group that has acknowledged what was there.
async fn begin(world: &World) -> (Relay, Writers) {
    let relay = world.relay("relay", &[("OUTBOX_BATCH_ROWS", "20")]);
    let writers = Writers::start(world, 4);
    writers.write_more(200).await;
    eventually("orders has entries", BOUND, || async {
        world.redis::<u64>(&["XLEN", "orders"]).await > 0
    })
    .await;
    world.redis::<()>(&["XGROUP", "CREATE", "orders", "mail", "0"]).await;
    acknowledge(world).await;
    (relay, writers)
}

/// The group of `orders` takes and acknowledges what is there.
async fn acknowledge(world: &World) {
    let entries = read_stream(world, "orders").await;
    let words = ["XREADGROUP", "GROUP", "mail", "one", "COUNT", "100000", "STREAMS", "orders", ">"];
    world.redis::<redis::Value>(&words).await;
    let mut acknowledged = vec!["XACK", "orders", "mail"];
    acknowledged.extend(entries.iter().map(|entry| entry.id.as_str()));
    if !entries.is_empty() {
        world.redis::<u64>(&acknowledged).await;
    }
}

/// Ends what [`begin`] began, with rows in every state: in Redis, sealed and held, not sealed. Returns what
/// Redis has.
async fn end(world: &World, mut relay: Relay, writers: Writers) -> Vec<(&'static str, Vec<Found>)> {
    run(world, &["pause", "payments"]);
    writers.write_more(100).await;
    writers.stop().await;
    eventually("payments is held", BOUND, || async {
        write_rows(world, "payments", 1).await;
        world.all_sealed().await;
        world.sealed("payments").await > world.redis::<u64>(&["XLEN", "payments"]).await + 5
    })
    .await;
    assert!(relay.stop().success());
    relay.lost_nothing();
    for (stream, rows) in UNSEALED {
        write_rows(world, stream, rows).await;
    }
    let mut found = Vec::new();
    for stream in STREAMS {
        found.push((stream, read_stream(world, stream).await));
    }
    found
}

/// In the new cluster the relay runs only once somebody has consented, and then all goes on where it was.
async fn go_on(world: &World, before: Vec<(&'static str, Vec<Found>)>) -> (Relay, Ended) {
    let urls = world.urls();
    let variables = [("DATABASE_URL", urls.0.as_str()), ("REDIS_URL", &urls.1)];
    fails(&["run"], &variables, 1, &["made in cluster", "outbox-relay adopt"]);
    let adopted = run(world, &["adopt"]);
    let unsealed: usize = UNSEALED.iter().map(|(_, rows)| rows).sum();
    let told = format!("sealed {unsealed} rows that the log did not have");
    assert!(adopted.out.contains(&told), "{adopted:#?}");
    // What came to a net is moved at the pace of the purge.
    let relay = world.relay("here", &[("OUTBOX_BATCH_ROWS", "20"), ("OUTBOX_RETENTION", "60s")]);
    let writers = Writers::start(world, 4);
    writers.write_more(100).await;
    writers.stop().await;
    run(world, &["resume", "payments"]);
    world.reconcile().await;
    acknowledge(world).await;
    world.checkpointed("orders").await;
    for (stream, before) in before {
        let after = read_stream(world, stream).await;
        let is_trimmed = stream == "orders";
        let kept = before.iter().filter(|entry| !is_trimmed || after.contains(entry));
        assert!(after.iter().zip(kept).all(|(is, was)| is == was), "{stream} is not what it was");
        assert!(is_trimmed || after.len() >= before.len(), "{stream} has lost entries");
    }
    let sql = "select count(*) from outbox.phantom";
    assert_eq!(world.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
    relay.lost_nothing();
    (relay, adopted)
}
