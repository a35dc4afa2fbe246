//! Locks, rate limits and once markers on real servers: what a team would try first, and what is left of
//! them when Redis is emptied, killed or frozen.

mod cluster;
mod limit;
mod lock;
mod loss;
mod once;
mod record;
mod rights;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use outbox_relay::coordination::{Coordination, Expiry, Held, Lock};
use outbox_relay::sandbox::{Redis, RedisOptions};

use crate::support::nodes::ask;
use crate::support::proxy::Proxy;

/// A bound for what takes a moment.
const BOUND: Duration = Duration::from_secs(30);
/// Of a lock that is not to expire in a test.
const LONG: Duration = Duration::from_secs(60);

fn redis() -> Redis {
    Redis::start(RedisOptions::default()).unwrap()
}

fn at(redis: &Redis) -> Coordination {
    Coordination::from_url(&redis.url()).unwrap()
}

/// A way to Redis that can be made to misbehave.
fn proxied(redis: &Redis) -> (Proxy, Coordination) {
    let proxy = Proxy::start(SocketAddr::from((Ipv4Addr::LOCALHOST, redis.port())));
    let url = format!("redis://127.0.0.1:{}/", proxy.port());
    (proxy, Coordination::from_url(&url).unwrap())
}

fn expiry(time: Duration) -> Expiry {
    Expiry::of(time).unwrap()
}

fn receipt(coordination: &Coordination, time: Duration) -> Lock {
    coordination.lock("order:42:receipt", expiry(time)).unwrap()
}

async fn taken(lock: &Lock) -> Held {
    lock.acquire().await.unwrap().expect("nobody holds it")
}

/// The next one, however long it takes.
async fn next(lock: &Lock) -> Held {
    lock.acquire_within(BOUND).await.unwrap().expect("it is free in the end")
}

/// A part of a handler's work that takes a while.
async fn work(time: Duration) {
    tokio::time::sleep(time).await;
}

/// All keys there are; each of them expires.
async fn keys(redis: &Redis) -> Vec<String> {
    let keys: Vec<String> = ask(redis, &["KEYS", "*"]).await;
    for key in &keys {
        let left: i64 = ask(redis, &["PTTL", key]).await;
        // It may have just expired.
        assert_ne!(left, -1, "{key} never expires");
        assert!(left < 8 * 24 * 60 * 60 * 1_000, "{key} expires in {left} ms");
    }
    keys
}
