//! Nodes of a Redis Cluster, on free ports of this machine: for tests and for measures.

use std::time::{Duration, Instant};

use outbox_relay::sandbox::{Redis, RedisOptions};
use redis::aio::MultiplexedConnection;

const SLOTS: usize = 16_384;
const BOUND: Duration = Duration::from_secs(60);

/// Starts so many primaries, each with so many replicas behind all primaries, and joins them. They take one
/// for dead after a second.
pub(crate) async fn form(options: RedisOptions, primaries: usize, replicas: usize) -> Vec<Redis> {
    let options = in_cluster(options);
    let nodes: Vec<Redis> = (0..primaries * (replicas + 1)).map(|_| start(&options)).collect();
    for (at, node) in nodes.iter().enumerate() {
        let epoch = (at + 1).to_string();
        ask::<()>(node, &["CLUSTER", "SET-CONFIG-EPOCH", &epoch]).await;
        if at < primaries {
            let slots = at * SLOTS / primaries..(at + 1) * SLOTS / primaries;
            let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
            let mut words = vec!["CLUSTER", "ADDSLOTS"];
            words.extend(slots.iter().map(String::as_str));
            ask::<()>(node, &words).await;
        }
        let port = nodes[0].port().to_string();
        ask::<()>(node, &["CLUSTER", "MEET", "127.0.0.1", &port]).await;
    }
    agree(&nodes).await;
    for (at, node) in nodes.iter().enumerate().skip(primaries) {
        let id = id(&nodes[at % primaries]).await;
        ask::<()>(node, &["CLUSTER", "REPLICATE", &id]).await;
    }
    agree(&nodes).await;
    for node in &nodes[primaries..] {
        answers(node, &["INFO"], &["master_link_status:up"]).await;
    }
    nodes
}

/// Waits until every node that runs knows all of them, and says that the cluster serves.
pub(crate) async fn agree(nodes: &[Redis]) {
    let known = format!("cluster_known_nodes:{}\r", nodes.len());
    for node in nodes.iter().filter(|node| node.pid().is_some()) {
        answers(node, &["CLUSTER", "INFO"], &["cluster_state:ok", &known]).await;
    }
}

/// Waits until the answer has all of these in it.
async fn answers(node: &Redis, words: &[&str], texts: &[&str]) {
    let begun = Instant::now();
    loop {
        let answer: String = ask(node, words).await;
        if texts.iter().all(|text| answer.contains(text)) {
            return;
        }
        assert!(begun.elapsed() < BOUND, "a node does not say {texts:?}: {answer}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub(crate) fn in_cluster(options: RedisOptions) -> RedisOptions {
    options.with("cluster-enabled", "yes").with("cluster-node-timeout", "1000")
}

/// The port of the bus is one that is ten thousand higher, which may be none, or taken.
pub(crate) fn start(options: &RedisOptions) -> Redis {
    let mut told = None;
    for _ in 0..20 {
        match Redis::start(options.clone()) {
            Ok(redis) => return redis,
            Err(error) => told = Some(error),
        }
    }
    panic!("{told:?}");
}

pub(crate) async fn id(node: &Redis) -> String {
    ask(node, &["CLUSTER", "MYID"]).await
}

/// A connection to one node.
pub(crate) async fn connect(node: &Redis) -> MultiplexedConnection {
    let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(BOUND));
    let client = redis::Client::open(node.url()).unwrap();
    client.get_multiplexed_async_connection_with_config(&config).await.unwrap()
}

/// Runs one command on one node.
pub(crate) async fn ask<T: redis::FromRedisValue>(node: &Redis, words: &[&str]) -> T {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]).query_async(&mut connect(node).await).await.unwrap()
}
