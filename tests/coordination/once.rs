//! Marks that were left before.

use std::time::Duration;

use super::{BOUND, LONG, at, expiry, keys, proxied, redis};
use crate::support::eventually;
use crate::support::nodes::ask;
use crate::support::proxy::Direction;

const KEY: &str = "once:webhook:evt_9";

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_is_the_first() {
    let redis = redis();
    let here = at(&redis);
    let mut asked = Vec::new();
    for _ in 0..20 {
        let mut once = here.once("webhook:evt_9", expiry(LONG)).unwrap();
        asked.push(tokio::spawn(async move { once.first().await.unwrap() }));
    }
    let mut firsts = 0;
    for one in asked {
        firsts += usize::from(one.await.unwrap());
    }
    assert_eq!(firsts, 1);
    assert_eq!(keys(&redis).await, [KEY]);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_failure_or_its_expiry_there_is_another_first() {
    let redis = redis();
    let here = at(&redis);
    let mut one = here.once("webhook:evt_9", expiry(LONG)).unwrap();
    let mut other = one.clone();
    assert!(one.first().await.unwrap());
    assert!(!one.first().await.unwrap() && !other.first().await.unwrap());
    // Who was not the first takes nothing back.
    other.forget().await.unwrap();
    assert!(!other.first().await.unwrap());
    one.forget().await.unwrap();
    assert!(other.first().await.unwrap());
    // Nor does who was, once it is another one's.
    one.forget().await.unwrap();
    assert!(!one.first().await.unwrap());
    other.forget().await.unwrap();
    assert!(keys(&redis).await.is_empty());
    let mut short = here.once("webhook:evt_9", expiry(Duration::from_millis(200))).unwrap();
    assert!(short.first().await.unwrap());
    eventually("it has expired", BOUND, || {
        let mut one = one.clone();
        async move { one.first().await.unwrap() }
    })
    .await;
    // A mark of one that came before is left alone.
    short.forget().await.unwrap();
    assert_eq!(keys(&redis).await, [KEY]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_was_the_first_and_did_not_hear_it_is_the_first_all_the_same() {
    let redis = redis();
    let (proxy, far) = proxied(&redis);
    let mut once = far.once("webhook:evt_8", expiry(LONG)).unwrap();
    assert!(once.first().await.unwrap());
    let mut once = far.once("webhook:evt_9", expiry(LONG)).unwrap();
    proxy.cut_after_bytes(Direction::ToClient, 0);
    assert!(once.first().await.unwrap());
    assert!(ask::<bool>(&redis, &["EXISTS", KEY]).await);
    // If it never hears it, it can still take it back.
    once.forget().await.unwrap();
    let mut once =
        far.patience(Duration::from_millis(300)).once("webhook:evt_9", expiry(LONG)).unwrap();
    proxy.swallow_replies(true);
    once.first().await.expect_err("nobody answers");
    proxy.swallow_replies(false);
    proxy.cut();
    assert!(ask::<bool>(&redis, &["EXISTS", KEY]).await);
    once.forget().await.unwrap();
    assert!(!ask::<bool>(&redis, &["EXISTS", KEY]).await);
    keys(&redis).await;
}
