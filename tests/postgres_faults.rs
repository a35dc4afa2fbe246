//! Postgres crashes, ends sessions, forgets commits that it promised nothing for, or is locked.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};

use tokio_postgres::NoTls;

use crate::support::eventually;
use crate::support::journal::{Fate, Note};
use crate::support::world::{APPLICATION, World};
use crate::support::writers::{STREAMS, Writers, write_rows};

#[tokio::test(flavor = "multi_thread")]
async fn postgres_crashes_under_load() {
    let mut world = World::new().await;
    let mut relay = world.relay("relay", &[("OUTBOX_BATCH_ROWS", "20")]);
    let writers = Writers::start(&world, 4);
    for _ in 0..3 {
        writers.write_more(200).await;
        world.postgres.stop_immediate().unwrap();
        world.postgres.restart().unwrap();
    }
    writers.write_more(200).await;
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

/// Whatever is in Redis has its row, also where writers were promised nothing.
#[tokio::test(flavor = "multi_thread")]
async fn commits_that_do_not_wait_for_the_disk_are_in_redis_only_if_they_last() {
    let options = PostgresOptions::default()
        .with("synchronous_commit", "off")
        .with("wal_writer_delay", "10000");
    let mut world = World::with(options, RedisOptions::default()).await;
    let mut relay = world.relay("relay", &[("OUTBOX_BATCH_ROWS", "20")]);
    let writers = Writers::hasty(&world, 4);
    for _ in 0..3 {
        let before = world.redis::<u64>(&["XLEN", STREAMS[0]]).await;
        eventually("entries arrive", Duration::from_secs(60), || async {
            world.redis::<u64>(&["XLEN", STREAMS[0]]).await > before + 20
        })
        .await;
        world.postgres.stop_immediate().unwrap();
        world.postgres.restart().unwrap();
    }
    writers.stop().await;
    world.reconcile().await;
    assert!(relay.is_running());
}

/// Rows that the relay has read, and that are gone after a crash, are not sealed after it.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_were_read_and_vanished_in_a_crash_are_forgotten() {
    let options = PostgresOptions::default().with("wal_writer_delay", "10000");
    let mut world = World::with(options, RedisOptions::default()).await;
    // A long lease, for each heartbeat would flush the log of Postgres.
    let relay = world.relay("relay", &[("OUTBOX_BATCH_ROWS", "10"), ("OUTBOX_LEASE", "60s")]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    let blocker = world.owner().await;
    blocker
        .batch_execute("begin; select from outbox.lease where ended_at is null for update")
        .await
        .unwrap();
    let notes: Vec<Note> = (0..30).map(|_| Note::new("orders").fate(Fate::Unknown)).collect();
    let hasty = world.application().await;
    hasty.batch_execute("set synchronous_commit = off").await.unwrap();
    for note in &notes {
        note.insert(&hasty).await.unwrap();
    }
    eventually("a seal waits for the lease's row", Duration::from_secs(30), || async {
        let sql = "select count(*) from pg_stat_activity \
                   where application_name = 'outbox-relay seal' and wait_event_type = 'Lock'";
        world.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    world.postgres.stop_immediate().unwrap();
    world.postgres.restart().unwrap();
    let count = "select count(*) from outbox.entry";
    let left: i64 = world.owner().await.query_one(count, &[]).await.unwrap().get(0);
    assert!(left < 40, "some commits vanished, or this shows nothing");
    world.journal.write(notes);
    // Ids and xids of the vanished rows are given out again.
    write_rows(&world, "orders", 30).await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_its_connections_may_be_ended() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[("OUTBOX_BATCH_ROWS", "20")]);
    let writers = Writers::start(&world, 3);
    for purpose in ["find", "seal", "lease", "wake", "upkeep"] {
        writers.write_more(100).await;
        world.terminate(purpose).await;
    }
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_locked_by_a_migration_is_waited_for() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    let writers = Writers::start(&world, 2);
    let migration = world.owner().await;
    let lock = "begin; lock table outbox.entry in access exclusive mode";
    migration.batch_execute(lock).await.unwrap();
    relay.logged("could not get a lock").await;
    migration.batch_execute("commit").await.unwrap();
    writers.write_more(100).await;
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_at_start_ends_the_program_after_a_bounded_wait() {
    let mut world = World::new().await;
    let places = [
        format!("Redis at 127.0.0.1:{}", world.redis.port()),
        format!("Postgres at 127.0.0.1:{}", world.postgres.port()),
    ];
    world.redis.kill().unwrap();
    for (name, place) in ["without-redis", "without-both"].into_iter().zip(places) {
        let begun = Instant::now();
        let mut relay = world.relay(name, &[("OUTBOX_START", "2s")]);
        assert_eq!(relay.wait(Duration::from_secs(30)).code(), Some(1));
        assert!(begun.elapsed() >= Duration::from_secs(2), "it waits first");
        let log = relay.log();
        assert!(log.lines().last().is_some_and(|line| line.contains(&place)), "{place} in {log}");
        world.postgres.stop_fast().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_up_late_is_waited_for() {
    let mut world = World::new().await;
    world.postgres.stop_fast().unwrap();
    world.redis.kill().unwrap();
    let relay = world.relay("relay", &[]);
    relay.logged("cannot connect to Postgres").await;
    world.postgres.restart().unwrap();
    relay.logged("cannot connect to Redis").await;
    world.redis.start_again().unwrap();
    write_rows(&world, "orders", 10).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn both_servers_go_down_later_and_it_waits_in_place() {
    let mut world = World::new().await;
    let mut relay = world.relay("relay", &[("OUTBOX_START", "1s")]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    world.postgres.stop_fast().unwrap();
    relay.logged("cannot connect to Postgres").await;
    world.redis.kill().unwrap();
    world.postgres.restart().unwrap();
    relay.logged("cannot connect to Redis").await;
    write_rows(&world, "orders", 10).await;
    assert!(relay.is_running());
    world.redis.start_again().unwrap();
    world.reconcile().await;
    assert_eq!(relay.lost("orders"), [(1, 10)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_free_connection_it_waits_and_goes_on() {
    let options = PostgresOptions::default().with("max_connections", "25");
    let world = World::with(options, RedisOptions::default()).await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    let crowd = RefCell::new(Vec::new());
    let owner = world.owner().await;
    let end = "select pg_terminate_backend(pid) from pg_stat_activity \
               where application_name like 'outbox-relay%'";
    eventually("the crowd has all connections", Duration::from_secs(30), || async {
        owner.batch_execute(end).await.unwrap();
        let url = world.postgres.url_of("postgres", APPLICATION);
        while let Ok((client, connection)) = tokio_postgres::connect(&url, NoTls).await {
            crowd.borrow_mut().push((client, tokio::spawn(connection)));
        }
        let refused = ["remaining connection slots are reserved", "too many clients"];
        refused.iter().any(|said| relay.log().contains(said))
    })
    .await;
    drop(crowd);
    write_rows(&world, "orders", 10).await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn each_of_its_statements_may_be_cancelled() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[("OUTBOX_BATCH_ROWS", "20")]);
    let writers = Writers::start(&world, 3);
    // A few times within one statement, for each of the relay's is over within a millisecond.
    let cancel = "do $$ begin for i in 1..50 loop \
                      perform pg_stat_clear_snapshot(); \
                      perform pg_cancel_backend(pid) from pg_stat_activity \
                      where application_name like 'outbox-relay%' and state = 'active'; \
                  end loop; end $$";
    eventually("many are cancelled, and the relay says so", Duration::from_secs(60), || async {
        world.sql(cancel).await;
        writers.write_more(10).await;
        let said = world.postgres.log_tail(usize::MAX);
        said.matches("canceling statement due to user request").count() >= 8
            && relay.log().contains("canceling statement")
    })
    .await;
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadlock_with_somebody_is_survived() {
    // Below the relay's own bound for locks, so that the deadlock is found.
    let options = PostgresOptions::default().with("deadlock_timeout", "1s");
    let world = World::with(options, RedisOptions::default()).await;
    let mut relay = world.relay("relay", &[("OUTBOX_LEASE", "60s")]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    let somebody = world.owner().await;
    let begin =
        "set deadlock_timeout = '60s'; begin; insert into outbox.stream (name) values ('new')";
    somebody.batch_execute(begin).await.unwrap();
    write_rows(&world, "new", 10).await;
    eventually("a seal waits for the name", Duration::from_secs(30), || async {
        let sql = "select count(*) from pg_stat_activity \
                   where application_name = 'outbox-relay seal' and wait_event_type = 'Lock'";
        world.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    // The seal holds the lease's row: each waits for the other, until the seal is given up.
    let lease = "select from outbox.lease where ended_at is null for update";
    somebody.batch_execute(lease).await.unwrap();
    somebody.batch_execute("rollback").await.unwrap();
    relay.logged("deadlock detected").await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(relay.is_running());
}
