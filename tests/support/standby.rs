//! A streaming standby of a private Postgres.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use outbox_relay::sandbox::{Postgres, PostgresOptions};

use super::command::to_the_end;
use super::eventually;
use super::world::{World, connect};

/// Starts a standby of `world`'s Postgres that is fed through `port`.
pub(crate) fn standby(world: &World, port: u16) -> Postgres {
    let mut standby = World::postgres(PostgresOptions::default());
    standby.stop_fast().unwrap();
    let data = standby.data_dir();
    let owner = std::fs::metadata(&data).unwrap();
    std::fs::remove_dir_all(&data).unwrap();
    let mut copy = Command::new(world.postgres.bin_dir().join("pg_basebackup"));
    copy.args(["-h", "127.0.0.1", "-U", "postgres", "-p", &port.to_string()]);
    copy.args(["-R", "-X", "stream", "-c", "fast", "-D"]).arg(&data);
    let copied = to_the_end(copy, Duration::from_secs(60));
    assert_eq!(copied.code, Some(0), "{copied:#?}");
    own(&data, owner.uid(), owner.gid());
    standby.restart().unwrap();
    standby
}

/// The server runs as another user than the one that has copied the files.
fn own(folder: &Path, user: u32, group: u32) {
    std::os::unix::fs::chown(folder, Some(user), Some(group)).unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => own(&entry.path(), user, group),
            false => std::os::unix::fs::lchown(entry.path(), Some(user), Some(group)).unwrap(),
        }
    }
}

/// Makes commits of `world`'s Postgres wait for a standby of this name.
pub(crate) async fn wait_for_standby(world: &World, name: &str) {
    world.sql(&format!("alter system set synchronous_standby_names = '{name}'")).await;
    world.sql("select pg_reload_conf()").await;
}

/// Waits until `standby` has replayed all that `world`'s Postgres has written by now.
pub(crate) async fn caught_up(world: &World, standby: &Postgres) {
    let sql = "select pg_current_wal_flush_lsn()::text";
    let written: String = world.owner().await.query_one(sql, &[]).await.unwrap().get(0);
    let client = connect(&standby.url()).await;
    eventually("the standby has caught up", Duration::from_secs(30), || async {
        let sql = "select pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
        client.query_one(sql, &[&written]).await.unwrap().get(0)
    })
    .await;
}

/// Makes a primary of a standby.
pub(crate) async fn promote(standby: &Postgres) {
    let client = connect(&standby.url()).await;
    let promoted: bool = client.query_one("select pg_promote()", &[]).await.unwrap().get(0);
    assert!(promoted);
}
