//! What a user in Redis needs, as the README says it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use outbox_relay::coordination::Coordination;
use outbox_relay::error::Target;
use outbox_relay::sandbox::{Redis, RedisOptions};

use super::{expiry, keys, taken, work};

fn read(file: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap()
}

/// The line of the README, from the name of the user on.
fn rights() -> String {
    let readme = read("README.md");
    let line = readme.lines().find_map(|line| line.strip_prefix("ACL SETUSER locks "));
    line.expect("README.md says what a worker may do").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rights_that_the_readme_names_are_enough() {
    let redis = RedisOptions::default().with("user", &format!("locks {}", rights()));
    let redis = Redis::start(redis).unwrap();
    let url = format!("redis://locks:password@127.0.0.1:{}/", redis.port());
    let here = Coordination::from_url(&url).unwrap();
    let time = expiry(Duration::from_millis(500));
    let held = taken(&here.lock("order:42", time).unwrap()).await;
    assert_eq!(held.while_held(work(time.time() * 2)).await, Ok(()));
    held.release().await.unwrap();
    let limit = here.rate_limit("user:456", 1, time).unwrap();
    assert!(limit.allow().await.unwrap().is_allowed());
    assert!(!limit.allow().await.unwrap().is_allowed());
    // What is left of the time before is removed.
    work(time.time() * 6 / 10).await;
    limit.allow().await.unwrap();
    let mut once = here.once("webhook:evt_9", time).unwrap();
    assert!(once.first().await.unwrap());
    once.forget().await.unwrap();
    keys(&redis).await;
}

/// What never expires would stay for ever.
#[tokio::test(flavor = "multi_thread")]
async fn without_the_right_to_expire_no_key_is_left() {
    let rights = rights().replace(" +pexpire", "");
    let redis = RedisOptions::default().with("user", &format!("locks {rights}"));
    let redis = Redis::start(redis).unwrap();
    let url = format!("redis://locks:password@127.0.0.1:{}/", redis.port());
    let here = Coordination::from_url(&url).unwrap().patience(Duration::from_millis(500));
    let time = expiry(Duration::from_millis(500));
    let told = here.lock("order:42", time).unwrap().acquire().await.expect_err("it may not");
    assert_eq!(told.target(), Some(Target::Redis), "{told}");
    let limit = here.rate_limit("user:456", 2, time).unwrap();
    assert!(limit.allow().await.is_err());
    assert_eq!(keys(&redis).await, Vec::<String>::new());
}

#[test]
fn a_worker_needs_exactly_the_commands_of_the_scripts() {
    let granted = rights();
    let granted: BTreeSet<&str> = granted.split(" +").skip(1).collect();
    let mut used = BTreeSet::from(["ping", "info", "eval", "evalsha"].map(str::to_owned));
    for script in ["acquire", "renew", "release", "allow", "mark", "forget"] {
        let text = read(&format!("src/coordination/{script}.lua"));
        let calls = text.match_indices("call('").map(|(at, found)| &text[at + found.len()..]);
        used.extend(calls.map(|rest| rest.split('\'').next().unwrap().to_lowercase()));
    }
    assert_eq!(granted, used.iter().map(String::as_str).collect());
}
