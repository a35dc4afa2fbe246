//! Never more than the limit, in any time of that length.

use std::time::{Duration, Instant};

use outbox_relay::coordination::Allowance;
use outbox_relay::error::Kind;

use super::{BOUND, LONG, at, expiry, keys, proxied, redis, work};
use crate::support::nodes::ask;
use crate::support::proxy::Direction;

const KEY: &str = "rate_limit:user:456";

#[tokio::test(flavor = "multi_thread")]
async fn never_more_than_the_limit_in_any_time() {
    const LIMIT: usize = 20;
    let (redis, per) = (redis(), Duration::from_millis(700));
    let until = Instant::now() + per * 6;
    let mut users = Vec::new();
    for number in 0..8 {
        let limit = at(&redis).rate_limit("user:456", 20, expiry(per)).unwrap();
        users.push(tokio::spawn(async move {
            let mut allowed = Vec::new();
            while Instant::now() < until {
                let sent = Instant::now();
                match limit.allow().await.unwrap() {
                    Allowance::Allowed { .. } => allowed.push((sent, Instant::now())),
                    // Some obey, and some do not.
                    Allowance::Denied { retry_after } if number % 2 == 0 => work(retry_after).await,
                    Allowance::Denied { .. } => work(Duration::from_millis(number)).await,
                }
            }
            allowed
        }));
    }
    let mut allowed = Vec::new();
    for user in users {
        allowed.extend(user.await.unwrap());
    }
    // Each was counted between the two moments.
    allowed.sort();
    for one in allowed.windows(LIMIT + 1) {
        let last = one.iter().map(|(_, answered)| *answered).max().unwrap();
        let took = last - one[0].0;
        assert!(took >= per, "{} were let through within {took:?}", one.len());
    }
    // Nor much less: a tenth more of the time for each turn, and what the machine takes.
    assert!(allowed.len() >= LIMIT * 4, "only {} in six times", allowed.len());
    let limit = at(&redis).rate_limit("user:456", 20, expiry(LONG)).unwrap();
    limit.allow().await.unwrap();
    let parts: usize = ask(&redis, &["HLEN", KEY]).await;
    assert!(parts <= 11, "{parts} parts are kept");
    assert_eq!(keys(&redis).await, [KEY]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_denied_is_told_when_to_come_back() {
    let redis = redis();
    let per = Duration::from_millis(500);
    let limit = at(&redis).rate_limit("user:456", 5, expiry(per)).unwrap();
    let other = at(&redis).rate_limit("user:457", 5, expiry(per)).unwrap();
    for round in 0..3 {
        assert_eq!(limit.allow_cost(3).await.unwrap(), Allowance::Allowed { left: 2 }, "{round}");
        let denied = limit.allow_cost(3).await.unwrap();
        let Allowance::Denied { retry_after } = denied else { panic!("{denied:?}") };
        assert!(retry_after <= per * 11 / 10 + Duration::from_millis(1), "{retry_after:?}");
        // It was not counted, and others have a limit of their own.
        assert_eq!(limit.allow_cost(2).await.unwrap(), Allowance::Allowed { left: 0 });
        assert!(!limit.allow().await.unwrap().is_allowed());
        assert!(other.allow().await.unwrap().is_allowed());
        work(retry_after).await;
        assert!(
            limit.allow_cost(3).await.unwrap().is_allowed(),
            "{round}: not after {retry_after:?}"
        );
        crate::support::eventually("nothing counts any more", BOUND, || async {
            !ask::<bool>(&redis, &["EXISTS", KEY]).await
        })
        .await;
    }
    for cost in [0, 6] {
        assert_eq!(limit.allow_cost(cost).await.unwrap_err().kind(), Kind::Usage);
    }
    keys(&redis).await;
}

/// A changed setting finds what was counted by the one before.
#[tokio::test(flavor = "multi_thread")]
async fn a_limit_may_be_changed_while_it_counts() {
    let redis = redis();
    let limit = |limit, seconds| {
        at(&redis).rate_limit("user:456", limit, expiry(Duration::from_secs(seconds))).unwrap()
    };
    assert_eq!(limit(10, 60).allow_cost(8).await.unwrap(), Allowance::Allowed { left: 2 });
    assert!(!limit(5, 60).allow().await.unwrap().is_allowed());
    assert_eq!(limit(20, 120).allow().await.unwrap(), Allowance::Allowed { left: 11 });
    assert_eq!(keys(&redis).await, [KEY]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_clock_that_was_far_ahead_has_counted_does_not_count_until_then() {
    let redis = redis();
    let limit = at(&redis).rate_limit("user:456", 5, expiry(LONG)).unwrap();
    let now: (u64, u64) = ask(&redis, &["TIME"]).await;
    let part = |seconds: u64| ((now.0 + seconds) * 1_000_000).to_string();
    let (near, far) = (part(LONG.as_secs() / 2), part(36_000));
    ask::<u64>(&redis, &["HSET", KEY, &near, "2", &far, "5"]).await;
    ask::<u64>(&redis, &["EXPIRE", KEY, "36060"]).await;
    assert_eq!(
        limit.allow().await.unwrap(),
        Allowance::Allowed { left: 2 },
        "the near part counts"
    );
    let left: u64 = ask(&redis, &["TTL", KEY]).await;
    assert!(left <= LONG.as_secs() * 2, "it is kept for {left} s");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_and_never_lets_more_through() {
    let redis = redis();
    let (proxy, far) = proxied(&redis);
    let limit = far.rate_limit("user:456", 4, expiry(Duration::from_secs(60))).unwrap();
    assert_eq!(limit.allow().await.unwrap(), Allowance::Allowed { left: 3 });
    proxy.cut_after_bytes(Direction::ToClient, 0);
    assert_eq!(limit.allow().await.unwrap(), Allowance::Allowed { left: 1 });
    keys(&redis).await;
}
