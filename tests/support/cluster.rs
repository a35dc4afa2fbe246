//! A Redis Cluster of private servers.

use std::time::Duration;

use outbox_relay::sandbox::{Redis, RedisOptions};
use outbox_relay::stream::{rights, rights_in_cluster};

use super::eventually;
use super::nodes::{self, ask, id};
use super::world::RELAY;

const BOUND: Duration = Duration::from_secs(60);

/// Running nodes; killed when dropped. The first ones are primaries, each with an equal part of the slots.
pub(crate) struct Cluster {
    pub(crate) nodes: Vec<Redis>,
}

impl Cluster {
    /// So many primaries, each with so many replicas, that take one for dead after a second.
    pub(crate) async fn start(primaries: usize, replicas: usize) -> Self {
        Self { nodes: nodes::form(options(), primaries, replicas).await }
    }

    /// A primary more, without a slot. Returns its place.
    pub(crate) async fn join(&mut self) -> usize {
        let node = nodes::start(&nodes::in_cluster(options()));
        let port = self.nodes[0].port().to_string();
        ask::<()>(&node, &["CLUSTER", "MEET", "127.0.0.1", &port]).await;
        self.nodes.push(node);
        self.agree().await;
        self.nodes.len() - 1
    }

    /// Lets a node have slots of another one that have no key.
    pub(crate) async fn give(&self, slots: std::ops::Range<u16>, to: usize) {
        let id = id(&self.nodes[to]).await;
        for slot in slots.map(|slot| slot.to_string()) {
            for node in &self.nodes {
                ask::<()>(node, &["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await;
            }
        }
    }

    /// Waits until every node that runs knows all of them, and says that the cluster serves.
    pub(crate) async fn agree(&self) {
        nodes::agree(&self.nodes).await;
    }

    /// All nodes, as a URL has them.
    pub(crate) fn url(&self) -> String {
        let hosts: Vec<String> =
            self.nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        format!("redis+cluster://{RELAY}:any@{}", hosts.join(","))
    }

    /// The place among the nodes of the one that has a key.
    pub(crate) async fn owner(&self, key: &str) -> usize {
        let node = self.nodes.iter().find(|node| node.pid().is_some()).unwrap();
        let slot: usize = ask(node, &["CLUSTER", "KEYSLOT", key]).await;
        let ranges: Vec<(usize, usize, (String, u16, String))> = {
            let found: Vec<Vec<redis::Value>> = ask(node, &["CLUSTER", "SLOTS"]).await;
            let read = |range: Vec<redis::Value>| {
                let mut values = range.into_iter();
                let mut next = || values.next().unwrap();
                let first = redis::from_redis_value(next()).unwrap();
                let last = redis::from_redis_value(next()).unwrap();
                let primary: Vec<redis::Value> = redis::from_redis_value(next()).unwrap();
                let [host, port, id, ..] = &primary[..] else { panic!("{primary:?}") };
                let text = |value| redis::from_redis_value_ref::<String>(value).unwrap();
                (first, last, (text(host), redis::from_redis_value_ref(port).unwrap(), text(id)))
            };
            found.into_iter().map(read).collect()
        };
        let range =
            ranges.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).unwrap();
        self.nodes.iter().position(|node| node.port() == range.2.1).unwrap()
    }

    /// Lets a slot be on its way from one node to another, with the key of a stream there already if there
    /// is one.
    pub(crate) async fn begin_move(&self, key: &str, from: usize, to: usize) {
        let (from, to) = (&self.nodes[from], &self.nodes[to]);
        let slot = ask::<u16>(from, &["CLUSTER", "KEYSLOT", key]).await.to_string();
        let setslot = ["CLUSTER", "SETSLOT", &slot];
        ask::<()>(to, &[&setslot[..], &["IMPORTING", &id(from).await]].concat()).await;
        ask::<()>(from, &[&setslot[..], &["MIGRATING", &id(to).await]].concat()).await;
        let keys: Vec<String> = ask(from, &["CLUSTER", "GETKEYSINSLOT", &slot, "100"]).await;
        for key in keys {
            let port = to.port().to_string();
            ask::<String>(from, &["MIGRATE", "127.0.0.1", &port, &key, "0", "5000"]).await;
        }
    }

    /// Ends what [`Cluster::begin_move`] began.
    pub(crate) async fn end_move(&self, key: &str, from: usize, to: usize) {
        let slot = ask::<u16>(&self.nodes[from], &["CLUSTER", "KEYSLOT", key]).await.to_string();
        let id = id(&self.nodes[to]).await;
        for node in [to, from] {
            ask::<()>(&self.nodes[node], &["CLUSTER", "SETSLOT", &slot, "NODE", &id]).await;
        }
        eventually("all nodes know where the slot is", BOUND, || async {
            self.owner(key).await == to
        })
        .await;
    }
}

fn options() -> RedisOptions {
    let user = format!("{RELAY} on nopass {} {}", rights(""), rights_in_cluster());
    RedisOptions::default().with("user", &user)
}
