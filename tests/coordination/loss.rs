//! A lock that is lost: its holder is told before the expiry is over.

use std::time::{Duration, Instant};

use outbox_relay::coordination::{Held, Lost};
use outbox_relay::error::Kind;
use outbox_relay::sandbox::Redis;

use super::{BOUND, at, expiry, keys, next, proxied, receipt, redis, taken, work};
use crate::support::eventually;
use crate::support::nodes::ask;
use crate::support::proxy::Direction;

const KEY: &str = "lock:order:42:receipt";
const TIME: Duration = Duration::from_millis(1_500);
/// By then there was a renewal, and some time to spare.
const NEXT: Duration = Duration::from_millis(900);

/// A lock, and what tells of its loss in a task of its own.
async fn held(redis: &Redis) -> (Held, tokio::task::JoinHandle<Lost>) {
    let held = next(&receipt(&at(redis), TIME)).await;
    let lost = tokio::spawn(held.lost());
    assert!(held.is_held());
    (held, lost)
}

/// What it was told, within this time.
async fn told(held: &Held, lost: tokio::task::JoinHandle<Lost>, within: Duration) -> String {
    let lost = tokio::time::timeout(within, lost).await.expect("told in time").unwrap();
    assert!(!held.is_held());
    // Lost it stays, for everybody.
    assert!(held.ensure().is_err());
    assert!(held.while_held(work(Duration::ZERO)).await.is_err());
    lost.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holder_of_a_lock_that_is_gone_is_told() {
    let redis = redis();
    let (one, lost) = held(&redis).await;
    ask::<u64>(&redis, &["DEL", KEY]).await;
    let said = told(&one, lost, NEXT).await;
    assert!(said.contains("somebody has removed it, or it expired"), "{said}");
    let (one, lost) = held(&redis).await;
    ask::<()>(&redis, &["FLUSHALL"]).await;
    told(&one, lost, NEXT).await;
    let (one, lost) = held(&redis).await;
    ask::<u64>(&redis, &["HSET", KEY, "token", "mine", "holder", "a stranger"]).await;
    let said = told(&one, lost, NEXT).await;
    assert!(said.contains("a stranger holds it"), "{said}");
    ask::<u64>(&redis, &["DEL", KEY]).await;
    let (one, lost) = held(&redis).await;
    ask::<()>(&redis, &["SET", KEY, "a text", "EX", "60"]).await;
    let said = told(&one, lost, NEXT).await;
    assert!(said.contains("it could not be renewed: "), "{said}");
    keys(&redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_holder_of_a_lock_in_a_redis_that_is_gone_is_told() {
    let mut redis = redis();
    for frozen in [true, false] {
        let (one, lost) = held(&redis).await;
        let sooner = one.fence();
        match frozen {
            true => redis.freeze().unwrap(),
            false => redis.kill().unwrap(),
        }
        let said = told(&one, lost, TIME).await;
        assert!(said.contains("could not be renewed"), "{said}");
        match frozen {
            true => redis.thaw().unwrap(),
            false => redis.start_again().unwrap(),
        }
        let other = next(&receipt(&at(&redis), TIME)).await;
        assert!(other.fence() > sooner);
        drop(one);
        assert_eq!(other.while_held(work(TIME)).await, Ok(()));
        other.release().await.unwrap();
    }
    keys(&redis).await;
}

/// A hiccup that is shorter than the expiry costs nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_breaks_is_made_anew_and_the_lock_is_kept() {
    let redis = redis();
    let (proxy, far) = proxied(&redis);
    let time = TIME * 2;
    let held = taken(&receipt(&far, time)).await;
    let (begun, rival) = (Instant::now(), receipt(&at(&redis), TIME));
    while begun.elapsed() < time * 2 {
        proxy.cut();
        assert!(rival.acquire().await.unwrap().is_none());
        assert_eq!(held.while_held(work(time / 7)).await, Ok(()));
    }
    assert!(proxy.accepted() > 3);
    // Nor does a silence, if another connection is answered.
    proxy.black_hole(true);
    work(time / 3).await;
    proxy.black_hole(false);
    proxy.cut();
    assert_eq!(held.while_held(work(time)).await, Ok(()));
    held.release().await.unwrap();
    keys(&redis).await;
}

/// Making a connection takes several of the round trips that a command takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_way_to_redis_is_waited_for() {
    let redis = redis();
    let (proxy, far) = proxied(&redis);
    proxy.set_delay(Duration::from_millis(100));
    let lock = receipt(&far.patience(BOUND), TIME * 2);
    let held = taken(&lock).await;
    assert_eq!(held.while_held(work(TIME * 3)).await, Ok(()));
    held.release().await.unwrap();
    keys(&redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_renewed_while_it_is_held_and_not_after() {
    let redis = redis();
    let held = taken(&receipt(&at(&redis), TIME)).await;
    let until = || async { ask::<Option<i64>>(&redis, &["HGET", KEY, "until"]).await };
    let first = until().await;
    eventually("it is renewed", TIME, || async { until().await > first }).await;
    held.release().await.unwrap();
    assert_eq!(until().await, None);
    assert_eq!(keys(&redis).await, [KEY]);
    let left: i64 = ask(&redis, &["PTTL", KEY]).await;
    assert!((50_000..=60_000).contains(&left), "its number is remembered for {left} ms");
    // A task that went on would bring it back.
    let other = next(&receipt(&at(&redis), TIME)).await;
    assert_eq!(other.while_held(work(TIME * 2)).await, Ok(()));
    let lost = tokio::time::timeout(BOUND, async {
        ask::<u64>(&redis, &["DEL", KEY]).await;
        other.lost().await
    });
    assert!(lost.await.is_ok());
}

/// The answer to the release is lost, but the lock was before.
#[tokio::test(flavor = "multi_thread")]
async fn a_lock_that_is_known_to_be_lost_is_not_given_back() {
    let redis = redis();
    let (proxy, far) = proxied(&redis);
    let held = taken(&receipt(&far, TIME)).await;
    ask::<u64>(&redis, &["DEL", KEY]).await;
    tokio::time::timeout(TIME, held.lost()).await.expect("told in time");
    proxy.cut_after_bytes(Direction::ToClient, 0);
    let told = held.release().await.expect_err("it was lost");
    assert_eq!(told.kind(), Kind::Superseded, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lock_is_kept_while_redis_is_out_of_memory() {
    let redis = redis();
    let held = taken(&receipt(&at(&redis), TIME)).await;
    ask::<()>(&redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let other = at(&redis).patience(TIME / 3).lock("order:43", expiry(TIME)).unwrap();
    assert_eq!(other.acquire().await.expect_err("there is no room").kind(), Kind::Busy);
    assert_eq!(held.while_held(work(TIME * 2)).await, Ok(()));
    held.release().await.unwrap();
    keys(&redis).await;
}

/// As one is that a partition cuts off; it answers the holder all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_has_to_have_a_replica_renews_no_lock_without_one() {
    let redis = redis();
    let about: String = ask(&redis, &["INFO", "server"]).await;
    if about.contains("redis_version:6.") {
        eprintln!("SKIPPED: scripts of Redis 6 do not mind min-replicas-to-write");
        return;
    }
    let (one, lost) = held(&redis).await;
    ask::<()>(&redis, &["CONFIG", "SET", "min-replicas-to-write", "1"]).await;
    let said = told(&one, lost, TIME).await;
    assert!(said.contains("could not be renewed"), "{said}");
}

/// The renewal has no thread to run on, as where a handler blocks it: the clock says it all the same.
#[tokio::test]
async fn a_holder_that_blocks_its_only_thread_sees_that_the_lock_is_lost() {
    let redis = redis();
    let short = Duration::from_millis(300);
    let held = taken(&receipt(&at(&redis), short)).await;
    std::thread::sleep(short);
    assert!(!held.is_held());
    let lost = held.while_held(work(Duration::ZERO)).await.expect_err("it is late");
    assert!(lost.to_string().contains("could not be renewed in time"), "{lost}");
    let blocked = next(&receipt(&at(&redis), short)).await;
    let done = blocked.while_held(async { std::thread::sleep(short) });
    assert!(done.await.is_err(), "the work was done too late");
    // And it stays lost, although Redis could be asked now.
    work(short).await;
    assert!(!held.is_held());
    keys(&redis).await;
}
