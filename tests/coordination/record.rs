//! A record in Postgres stays right, whatever becomes of the lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use outbox_relay::coordination::Held;
use outbox_relay::sandbox::{PostgresOptions, RedisOptions};
use tokio_postgres::Client;

use super::{LONG, at, keys, next, proxied, receipt, taken, work};
use crate::support::dice::Dice;
use crate::support::nodes::ask;
use crate::support::world::World;

const SHORT: Duration = Duration::from_millis(600);

async fn shop() -> World {
    let world = World::bare(PostgresOptions::default(), RedisOptions::default());
    world
        .sql(
            "create table orders (id bigint primary key, status text not null, \
                 sent bigint not null default 0, fence bigint not null default 0); \
             insert into orders values (42, 'paid')",
        )
        .await;
    world
}

/// Writes what does not depend on what was there; whether it was written.
async fn write(client: &Client, held: &Held, status: &str) -> bool {
    let sql = "update orders set status = $2, fence = $3 where id = $1 and fence < $3";
    client.execute(sql, &[&42_i64, &status, &held.fence()]).await.unwrap() == 1
}

/// Claims the record and reads it; None if somebody else has.
async fn claim(client: &Client, held: &Held) -> Option<i64> {
    let sql = "update orders set fence = $2 where id = $1 and fence < $2 returning sent";
    client.query_opt(sql, &[&42_i64, &held.fence()]).await.unwrap().map(|row| row.get(0))
}

/// Writes what was worked out from what was read; whether it was written.
async fn conclude(client: &Client, held: &Held, sent: i64) -> bool {
    let sql = "update orders set sent = $2 where id = $1 and fence = $3";
    client.execute(sql, &[&42_i64, &sent, &held.fence()]).await.unwrap() == 1
}

async fn status(world: &World) -> (String, i64, i64) {
    let sql = "select status, sent, fence from orders where id = 42";
    let row = world.owner().await.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1), row.get(2))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_expires_early_and_two_workers_do_not_write_the_same_record() {
    let world = shop().await;
    let (mut one, mut other) = (world.owner().await, world.owner().await);
    let (proxy, far) = proxied(&world.redis);
    let near = at(&world.redis);
    for round in 0..2 {
        let first = next(&receipt(&far, SHORT)).await;
        assert_eq!(claim(&one, &first).await, Some(round));
        // From here on no renewal arrives, and the worker does not look.
        proxy.black_hole(true);
        let second = next(&receipt(&near, SHORT)).await;
        assert!(!first.is_held(), "told too late: somebody else holds it already");
        assert!(second.fence() > first.fence());
        assert_eq!(claim(&other, &second).await, Some(round));
        // Both work it out from what they have read; the late one ends first, then last.
        let ended = match round {
            0 => [conclude(&one, &first, 100).await, conclude(&other, &second, 1).await],
            _ => {
                let second_ended = conclude(&other, &second, 2).await;
                [conclude(&one, &first, 100).await, second_ended]
            }
        };
        assert_eq!(ended, [false, true]);
        assert!(!write(&one, &first, "late").await);
        assert_eq!(status(&world).await, ("paid".to_owned(), round + 1, second.fence()));
        proxy.black_hole(false);
        drop(first);
        second.release().await.unwrap();
        std::mem::swap(&mut one, &mut other);
    }
    keys(&world.redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_runs_longer_than_its_lock() {
    let world = shop().await;
    let (one, other) = (world.owner().await, world.owner().await);
    let (proxy, far) = proxied(&world.redis);
    let near = at(&world.redis);
    // While renewals arrive, it has the lock for as long as it needs.
    let first = taken(&receipt(&far, SHORT)).await;
    let sent = claim(&one, &first).await.unwrap();
    let rival = receipt(&near, SHORT);
    let waiting = tokio::spawn(async move { rival.acquire_within(SHORT * 3).await.unwrap() });
    assert_eq!(first.while_held(work(SHORT * 3)).await, Ok(()));
    assert!(conclude(&one, &first, sent + 1).await);
    assert!(waiting.await.unwrap().is_none(), "two had it");
    // Where they do not, the handler is stopped before anybody else can begin.
    proxy.black_hole(true);
    let stopped = Instant::now();
    let ended = first.while_held(async {
        work(LONG).await;
        write(&one, &first, "late").await
    });
    let lost = ended.await.expect_err("it ran on");
    assert!(stopped.elapsed() < SHORT, "told after {:?}", stopped.elapsed());
    assert!(lost.to_string().starts_with("lost lock:order:42:receipt: "), "{lost}");
    let second = next(&receipt(&near, SHORT)).await;
    assert!(write(&other, &second, "sent").await);
    // And one that cannot be stopped writes nothing.
    assert!(!write(&one, &first, "late").await);
    assert_eq!(status(&world).await, ("sent".to_owned(), 1, second.fence()));
    keys(&world.redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redis_restarted_in_the_middle() {
    let mut world = shop().await;
    let (one, other) = (world.owner().await, world.owner().await);
    let here = at(&world.redis);
    let first = taken(&receipt(&here, SHORT * 3)).await;
    let sent = claim(&one, &first).await.unwrap();
    let lost = tokio::spawn(first.lost());
    world.redis.kill().unwrap();
    world.redis.start_again().unwrap();
    // The lock is gone, and its holder has not heard of that: two hold it.
    let second = taken(&receipt(&at(&world.redis), SHORT * 3)).await;
    assert!(second.fence() > first.fence());
    let read = claim(&other, &second).await.unwrap();
    assert!(!conclude(&one, &first, sent + 100).await, "the first one's write");
    assert!(conclude(&other, &second, read + 1).await);
    assert_eq!(status(&world).await, ("paid".to_owned(), 1, second.fence()));
    // It is told why, by the same connections, made anew.
    let lost = tokio::time::timeout(SHORT * 3, lost).await.expect("told in time").unwrap();
    assert!(!lost.to_string().contains("could not"), "{lost}");
    assert!(second.is_held());
    keys(&world.redis).await;
}

/// Workers read a number, work, and write one more, while their locks are taken away all the time. Each
/// number that was written counts.
#[tokio::test(flavor = "multi_thread")]
async fn no_update_is_lost_while_locks_are() {
    let world = shop().await;
    let mut dice = Dice::new();
    let (stop, written, refused) = (AtomicBool::new(false), AtomicI64::new(0), AtomicI64::new(0));
    let all = Arc::new((stop, written, refused));
    let mut workers = Vec::new();
    for _ in 0..6 {
        let (all, client) = (all.clone(), world.owner().await);
        let lock = receipt(&at(&world.redis), SHORT);
        let mut dice = dice.split();
        workers.push(tokio::spawn(async move {
            let (stop, written, refused) = &*all;
            while !stop.load(Ordering::Relaxed) {
                let Some(held) = lock.acquire_within(SHORT).await.unwrap() else { continue };
                // It does not look whether it has lost the lock.
                let Some(sent) = claim(&client, &held).await else {
                    refused.fetch_add(1, Ordering::Relaxed);
                    continue;
                };
                work(Duration::from_millis(dice.below(10))).await;
                let ended = conclude(&client, &held, sent + 1).await;
                if ended { written } else { refused }.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let begun = Instant::now();
    let (_, written, refused) = &*all;
    while begun.elapsed() < Duration::from_secs(3)
        || written.load(Ordering::Relaxed) < 50
        || refused.load(Ordering::Relaxed) < 10
    {
        assert!(begun.elapsed() < super::BOUND, "{written:?} written, {refused:?} refused");
        work(Duration::from_millis(dice.below(30))).await;
        match dice.below(2) {
            0 => ask::<()>(&world.redis, &["FLUSHALL"]).await,
            _ => {
                ask::<u64>(&world.redis, &["DEL", "lock:order:42:receipt"]).await;
            }
        }
    }
    all.0.store(true, Ordering::Relaxed);
    for worker in workers {
        worker.await.unwrap();
    }
    assert_eq!(status(&world).await.1, written.load(Ordering::Relaxed));
    keys(&world.redis).await;
}
