//! What a machine runs out of: disk, memory, files. The relay waits, or dies and loses nothing.

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::eventually;
use crate::support::relay::Relay;
use crate::support::world::World;
use crate::support::writers::write_rows;

const BOUND: Duration = Duration::from_secs(30);

/// A small disk; taken away when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// None where this user may not mount one.
    fn new(owner: &Path) -> Option<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let folder = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=2m,mode=755", "tmpfs"]).arg(folder.path());
        if !mount.output().is_ok_and(|done| done.status.success()) {
            return None;
        }
        let user = std::fs::metadata(owner).unwrap().uid();
        let data = folder.path().join("data");
        std::fs::create_dir(&data).unwrap();
        std::os::unix::fs::chown(&data, Some(user), None).unwrap();
        Some(Self(folder))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The server may be on it still.
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_of_postgres_is_full_nothing_is_sealed_by_halves() {
    let world = World::new().await;
    let Some(disk) = SmallDisk::new(&world.postgres.data_dir()) else {
        eprintln!("SKIPPED: only root may mount a small disk");
        return;
    };
    let place = disk.0.path().join("data").display().to_string();
    world.sql(&format!("create tablespace small location '{place}'")).await;
    world.sql("alter table outbox.batch_0 set tablespace small").await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    world.sql("create table filler (text text) tablespace small").await;
    let client = world.owner().await;
    let fill = "insert into filler select repeat('x', 500) from generate_series(1, 100)";
    while client.batch_execute(fill).await.is_ok() {}
    // Ids in no order, which do not compress: their list needs pages of its own.
    let random = "select setval('outbox.entry_id_seq', nextval('outbox.entry_id_seq') \
                  + (random() * 1000)::int) from generate_series(1, 2)";
    for _ in 0..600 {
        client.batch_execute(random).await.unwrap();
        write_rows(&world, "orders", 5).await;
        if relay.log().contains("No space left on device") {
            break;
        }
    }
    relay.logged("No space left on device").await;
    let sealed = world.sealed("orders").await;
    write_rows(&world, "orders", 5).await;
    assert_eq!(world.sealed("orders").await, sealed);
    world.sql("drop table filler").await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_file_it_waits_and_goes_on() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    // What is open stays so; nothing more can be opened.
    relay.limit("--nofile=5:");
    world.terminate_all().await;
    relay.logged("Too many open files").await;
    write_rows(&world, "orders", 10).await;
    relay.limit("--nofile=1000:");
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_runs_out_of_memory_dies_and_the_next_one_goes_on() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[("OUTBOX_BATCH_BYTES", "4MiB")]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    let least = relay.status_of_linux("VmData") * 1_024 + (1 << 20);
    relay.limit(&format!("--data={least}:"));
    let large = "insert into outbox.entry (stream, payload) \
                 select 'large', to_jsonb(repeat('x', 60000)) from generate_series(1, 300)";
    world.application().await.batch_execute(large).await.unwrap();
    relay.wait(BOUND);
    world.end_lease().await;
    let mut relay = world.relay("successor", &[]);
    world.holds("large", 300).await;
    world.settled().await;
    relay.lost_nothing();
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_cannot_be_written_stops_nothing() {
    let world = World::new().await;
    let full = File::options().write(true).open("/dev/full").unwrap();
    let urls = world.urls();
    let log = world.folder.path().join("none.log");
    let mut relay = Relay::start_telling(full, log, &world.variables(&urls, &[]));
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    // Each of these is told.
    world.terminate_all().await;
    world.redis::<()>(&["FLUSHALL"]).await;
    write_rows(&world, "orders", 10).await;
    world.reconcile().await;
    assert!(relay.is_running());
    relay.signal(Signal::TERM);
    assert!(relay.wait(BOUND).success());
}

#[tokio::test(flavor = "multi_thread")]
async fn large_payloads_are_read_about_once() {
    const ROWS: i64 = 600;
    let world = World::new().await;
    let sql = format!(
        "insert into outbox.entry (stream, payload) \
         select 'orders', jsonb_build_object('note', repeat('x', 61000)) from generate_series(1, {ROWS})"
    );
    world.sql(&sql).await;
    let mut relay = world.relay("relay", &[]);
    eventually("all are in Redis", BOUND, || async {
        world.redis::<i64>(&["XLEN", "orders"]).await == ROWS
    })
    .await;
    // Postgres counts what a connection has read once it has ended.
    assert!(relay.stop().success());
    let count = "select coalesce(sum(idx_tup_fetch), 0)::bigint from pg_stat_user_tables \
                 where relname like 'entry%'";
    let read = std::cell::Cell::new(0_i64);
    eventually("Postgres has counted", BOUND, || async {
        read.set(world.owner().await.query_one(count, &[]).await.unwrap().get(0));
        read.get() >= ROWS
    })
    .await;
    // Upkeep reads them as well.
    assert!(read.get() <= 5 * ROWS, "{} rows were read for {ROWS}", read.get());
}

impl World {
    /// Ends all connections of relays.
    async fn terminate_all(&self) {
        let sql = "select pg_terminate_backend(pid) from pg_stat_activity \
                   where application_name like 'outbox-relay%'";
        self.sql(sql).await;
    }
}
