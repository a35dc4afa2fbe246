//! One holder at a time, numbers that grow, and locks that are given back.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use outbox_relay::coordination::{Coordination, Expiry};
use outbox_relay::error::{Kind, Target};

use super::{BOUND, LONG, at, expiry, keys, next, proxied, receipt, redis, taken, work};
use crate::support::eventually;
use crate::support::nodes::ask;
use crate::support::proxy::Direction;

const KEY: &str = "lock:order:42:receipt";

#[tokio::test(flavor = "multi_thread")]
async fn one_of_sixteen_holds_it() {
    let redis = redis();
    let inside = Arc::new(AtomicUsize::new(0));
    let fences = Arc::new(Mutex::new(Vec::new()));
    let until = Instant::now() + Duration::from_secs(3);
    let mut workers = Vec::new();
    for number in 0..16 {
        // Every other one has connections of its own.
        let here = at(&redis).named(&format!("worker {number}"));
        let lock = receipt(&here, Duration::from_secs(2));
        let (inside, fences) = (inside.clone(), fences.clone());
        workers.push(tokio::spawn(async move {
            let mut times = 0;
            while Instant::now() < until || times == 0 {
                let held = next(&lock).await;
                assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two hold it");
                fences.lock().unwrap().push(held.fence());
                work(Duration::from_millis(2)).await;
                assert_eq!(inside.fetch_sub(1, Ordering::SeqCst), 1, "two held it");
                // Either way it is free again.
                match times % 2 {
                    0 => held.release().await.unwrap(),
                    _ => drop(held),
                }
                times += 1;
            }
        }));
    }
    for worker in workers {
        worker.await.unwrap();
    }
    let fences = std::mem::take(&mut *fences.lock().unwrap());
    assert!(fences.len() > 50, "only {} turns", fences.len());
    assert!(fences.windows(2).all(|pair| pair[0] < pair[1]), "{fences:?}");
    assert_eq!(keys(&redis).await, [KEY]);
}

#[tokio::test(flavor = "multi_thread")]
async fn fencing_numbers_grow_across_every_end_of_a_lock() {
    let mut redis = redis();
    let here = at(&redis);
    let short = receipt(&here, Expiry::LEAST.time());
    let long = receipt(&here, LONG);
    let mut fences = Vec::new();
    for _ in 0..20 {
        let held = taken(&long).await;
        fences.push(held.fence());
        held.release().await.unwrap();
    }
    // By its expiry: nobody renews it any more, and nobody gives it back.
    let (proxy, far) = proxied(&redis);
    let left = taken(&receipt(&far, Expiry::LEAST.time())).await;
    fences.push(left.fence());
    proxy.black_hole(true);
    let held = next(&short).await;
    fences.push(held.fence());
    ask::<u64>(&redis, &["DEL", KEY]).await;
    fences.push(taken(&long).await.fence());
    ask::<()>(&redis, &["FLUSHALL"]).await;
    fences.push(next(&long).await.fence());
    redis.kill().unwrap();
    redis.start_again().unwrap();
    fences.push(next(&long).await.fence());
    assert!(fences.windows(2).all(|pair| pair[0] < pair[1]), "{fences:?}");
    // A clock that has gone back: the last number was given out an hour ahead.
    let ahead = (fences.last().unwrap() + 3_600_000_000).to_string();
    ask::<()>(&redis, &["FLUSHALL"]).await;
    ask::<u64>(&redis, &["HSET", KEY, "fence", &ahead]).await;
    let held = next(&long).await;
    assert_eq!(held.fence().to_string(), (ahead.parse::<i64>().unwrap() + 1).to_string());
    keys(&redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_elses_lock_is_neither_taken_nor_freed() {
    let redis = redis();
    let (one, other) = (at(&redis).named("one"), at(&redis).named("other"));
    let (one, other) = (receipt(&one, LONG), receipt(&other, LONG));
    let first = taken(&one).await;
    assert!(other.acquire().await.unwrap().is_none());
    let begun = Instant::now();
    assert!(other.acquire_within(Duration::from_millis(300)).await.unwrap().is_none());
    assert!(begun.elapsed() < LONG / 2);
    ask::<u64>(&redis, &["DEL", KEY]).await;
    let second = taken(&other).await;
    let told = first.release().await.expect_err("it is not the first one's any more");
    assert_eq!(told.kind(), Kind::Superseded);
    assert!(told.to_string().contains(KEY), "{told}");
    let holder: String = ask(&redis, &["HGET", KEY, "holder"]).await;
    assert!(holder.ends_with("/other"), "{holder}");
    // Nor is it by one that is dropped.
    ask::<u64>(&redis, &["DEL", KEY]).await;
    let third = taken(&one).await;
    drop(second);
    let releases = || async {
        let stats: String = ask(&redis, &["INFO", "commandstats"]).await;
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
        calls.and_then(|rest| rest.split(',').next()?.parse::<u64>().ok()).unwrap_or_default()
    };
    let before = releases().await;
    eventually("something is asked of Redis after that", BOUND, || async {
        other.acquire().await.unwrap().is_none() && releases().await > before
    })
    .await;
    assert!(third.is_held());
    third.release().await.unwrap();
    taken(&other).await;
    keys(&redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_ends_a_holder_gives_the_lock_back() {
    let redis = redis();
    let lock = receipt(&at(&redis), LONG);
    drop(taken(&lock).await);
    let held = next(&lock).await;
    // Work that is cancelled.
    let working = tokio::spawn(async move { held.while_held(work(LONG)).await });
    assert!(lock.acquire().await.unwrap().is_none());
    working.abort();
    let held = next(&lock).await;
    // Work that panics.
    let working = tokio::spawn(async move {
        let worked = async { assert_ne!(held.fence(), held.fence(), "as it should") };
        held.while_held(worked).await
    });
    assert!(working.await.is_err_and(|ended| ended.is_panic()));
    let held = next(&lock).await;
    held.release().await.unwrap();
    // An attempt that is cancelled while it waits for its answer.
    let (proxy, far) = proxied(&redis);
    let far = receipt(&far, LONG);
    taken(&far).await.release().await.unwrap();
    proxy.swallow_replies(true);
    let attempt = tokio::spawn(async move { far.acquire().await.map(|held| held.is_some()) });
    eventually("it has the lock, and does not know", BOUND, || async {
        ask::<bool>(&redis, &["HEXISTS", KEY, "token"]).await
    })
    .await;
    attempt.abort();
    next(&lock).await;
    keys(&redis).await;
}

/// The connection breaks after Redis has done what it was asked, and before it could say so.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_lost_is_asked_for_again() {
    let redis = redis();
    let (proxy, far) = proxied(&redis);
    let far = receipt(&far, LONG);
    taken(&far).await.release().await.unwrap();
    proxy.cut_after_bytes(Direction::ToClient, 0);
    let held = taken(&far).await;
    let fence: i64 = ask(&redis, &["HGET", KEY, "fence"]).await;
    assert_eq!(held.fence(), fence, "taken twice");
    proxy.cut_after_bytes(Direction::ToClient, 0);
    held.release().await.unwrap();
    assert!(!ask::<bool>(&redis, &["HEXISTS", KEY, "token"]).await);
    keys(&redis).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_cannot_be_asked_is_told_in_time() {
    let mut redis = redis();
    let here = at(&redis).patience(Duration::from_millis(500));
    let lock = receipt(&here, LONG);
    ask::<()>(&redis, &["SET", KEY, "a text", "EX", "60"]).await;
    let told = lock.acquire().await.expect_err("it is no lock");
    assert_eq!((told.kind(), told.target()), (Kind::Refused, Some(Target::Redis)), "{told}");
    ask::<u64>(&redis, &["DEL", KEY]).await;
    ask::<()>(&redis, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let told = lock.acquire().await.expect_err("there is no room");
    assert_eq!(told.kind(), Kind::Busy, "{told}");
    ask::<()>(&redis, &["CONFIG", "SET", "maxmemory", "0"]).await;
    redis.freeze().unwrap();
    let begun = Instant::now();
    let told = lock.acquire().await.expect_err("nobody answers");
    assert_eq!(told.kind(), Kind::Unavailable, "{told}");
    assert!(begun.elapsed() < Duration::from_secs(3), "after {:?}", begun.elapsed());
    redis.thaw().unwrap();
    redis.kill().unwrap();
    let told = lock.acquire().await.expect_err("nobody is there");
    assert_eq!(told.kind(), Kind::Unavailable, "{told}");
    // Who waits for the lock waits for Redis as well.
    let waiting = tokio::spawn(async move { lock.acquire_within(BOUND).await });
    redis.start_again().unwrap();
    waiting.await.unwrap().unwrap().expect("the lock").release().await.unwrap();
    keys(&redis).await;
}

#[test]
fn bad_names_and_times_are_refused_before_redis_is_asked() {
    let nowhere = Coordination::from_url("redis://127.0.0.1:1/").unwrap();
    let second = expiry(Duration::from_secs(1));
    let long = "x".repeat(257);
    for name in ["", "a b", "a\nb", "lock:a", "rate_limit:a", "once:a", &long] {
        let told = [
            nowhere.lock(name, second).err(),
            nowhere.rate_limit(name, 1, second).err(),
            nowhere.once(name, second).err(),
        ];
        let refused = told.iter().flatten().filter(|told| told.kind() == Kind::Usage).count();
        let expected = if name.ends_with(":a") { 1 } else { 3 };
        assert_eq!(refused, expected, "{name:?}: {told:?}");
    }
    assert!(nowhere.rate_limit("a", 0, second).is_err_and(|told| told.kind() == Kind::Usage));
    assert_eq!(nowhere.lock("order:42:receipt", second).unwrap().key(), KEY);
    for time in [Duration::ZERO, Duration::from_millis(99), Duration::from_secs(604_801)] {
        assert!(Expiry::of(time).is_err_and(|told| told.kind() == Kind::Usage), "{time:?}");
    }
    assert!(Coordination::from_url("http://here").is_err_and(|told| told.kind() == Kind::Usage));
}
