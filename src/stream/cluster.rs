//! A Redis Cluster: its primaries found, one key of the relay's own on each, and redirections followed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};

use futures_util::future::try_join_all;
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, RedisResult, Value, cmd};
use tokio::sync::Mutex;

use super::connect::{Reach, in_words};
use super::identity::IDENTITY;
use super::shard::{Node, Shard, code_of, tagged};
use super::slot::slot;
use super::topology::Topology;
use crate::error::{Kind, Result, Target};

/// Tags among which identity keys of earlier times are looked for: while a primary had few slots, the first
/// one that fitted was high.
const LOOKED_AT: u32 = 20_000;
/// Tags tried until each primary has one: even one that has a single slot gets one.
const TRIED: u32 = 200_000;
/// Redirections followed for one command.
const FOLLOWED: usize = 3;

/// Which primary has which slot, as it was when connecting.
pub(super) struct Cluster {
    slots: Box<[u16]>,
    reach: Reach,
    /// Connections to where redirections led.
    asked: Mutex<HashMap<String, MultiplexedConnection>>,
    /// A slot was found to be elsewhere.
    pub(super) moved: AtomicBool,
}

impl Cluster {
    /// Connects to all primaries that the node behind `first` knows, and looks for keys of the relay's own,
    /// if a prefix says how those begin.
    ///
    /// # Errors
    /// `Unavailable` if a slot has no primary or one cannot be reached.
    pub(super) async fn join(
        reach: Reach,
        mut first: MultiplexedConnection,
        prefix: Option<&str>,
    ) -> Result<(Self, Vec<Node>)> {
        let reply: Value =
            cmd("CLUSTER").arg("SLOTS").query_async(&mut first).await.map_err(in_words)?;
        let topology = Topology::read(&reply).map_err(|why| {
            let context = format!("Redis Cluster at {} cannot serve: {why}", reach.name());
            Target::Redis.error(Kind::Unavailable, context)
        })?;
        let connecting = topology.primaries.iter().map(|(host, port)| reach.open(host, *port));
        let connections = try_join_all(connecting).await?;
        let key = format!("{}{IDENTITY}", prefix.unwrap_or_default());
        let tags = match prefix {
            Some(_) => Tags::choose(&topology, &key),
            None => vec![Tags::default(); topology.primaries.len()],
        };
        let nodes = connections
            .into_iter()
            .zip(tags)
            .map(|((name, connection), tags)| async { tags.node(name, connection, &key).await });
        let nodes = try_join_all(nodes).await?;
        let slots = topology.slots;
        Ok((Self { slots, reach, asked: Mutex::default(), moved: AtomicBool::new(false) }, nodes))
    }

    pub(super) fn shard(&self, key: &str) -> Shard {
        Shard(usize::from(self.slots[usize::from(slot(key))]))
    }

    /// Where a reply leads elsewhere, sends the command there, and puts that answer in its place.
    ///
    /// # Errors
    /// `Unavailable` if it cannot be reached.
    pub(super) async fn follow(&self, command: &Cmd, reply: &mut RedisResult<Value>) -> Result<()> {
        for _ in 0..FOLLOWED {
            let asks = code_of(reply) == "ASK";
            let led = reply.as_ref().err().and_then(|error| error.redirect_node());
            let Some((address, _)) = led else { return Ok(()) };
            let address = address.to_owned();
            if !asks {
                self.moved.store(true, Ordering::Relaxed);
            }
            let mut connection = self.connection_to(&address).await?;
            let mut pipeline = Pipeline::with_capacity(2);
            pipeline.ignore_errors();
            if asks {
                pipeline.cmd("ASKING");
            }
            pipeline.add_command(command.clone());
            let replies: RedisResult<Vec<RedisResult<Value>>> =
                pipeline.query_async(&mut connection).await;
            let none = || Target::Redis.error(Kind::Internal, "Redis left a command unanswered");
            *reply = replies.map_err(in_words)?.pop().ok_or_else(none)?;
        }
        Ok(())
    }

    /// Connections to where redirections led.
    pub(super) async fn led_to(&self) -> Vec<MultiplexedConnection> {
        self.asked.lock().await.values().cloned().collect()
    }

    async fn connection_to(&self, address: &str) -> Result<MultiplexedConnection> {
        let mut asked = self.asked.lock().await;
        if let Some(connection) = asked.get(address) {
            return Ok(connection.clone());
        }
        let odd = || Target::Redis.error(Kind::Internal, format!("Redis leads to {address:?}"));
        let (host, port) = address.rsplit_once(':').ok_or_else(odd)?;
        let (_, connection) = self.reach.open(host, port.parse().map_err(|_| odd())?).await?;
        asked.insert(address.to_owned(), connection.clone());
        Ok(connection)
    }
}

/// Tags that put a key of the relay's own into a slot of one primary, the lowest first.
#[derive(Clone, Debug, Default)]
struct Tags(Vec<u32>);

impl Tags {
    /// Those of each primary. Where the prefix decides the slot of every key, only one has any.
    fn choose(topology: &Topology, key: &str) -> Vec<Self> {
        let mut tags = vec![Self::default(); topology.primaries.len()];
        let decided = slot(&tagged(key, 0)) == slot(key) && slot(&tagged(key, 1)) == slot(key);
        for tag in 0..TRIED {
            let of = &mut tags[usize::from(topology.slots[usize::from(slot(&tagged(key, tag)))])];
            if tag < LOOKED_AT || of.0.is_empty() {
                of.0.push(tag);
            }
            if decided || tag >= LOOKED_AT && tags.iter().all(|tags| !tags.0.is_empty()) {
                break;
            }
        }
        tags
    }

    /// A primary with the tag of an identity key that is there already, or else the first one.
    async fn node(
        self,
        name: String,
        mut connection: MultiplexedConnection,
        key: &str,
    ) -> Result<Node> {
        let mut pipeline = Pipeline::with_capacity(self.0.len());
        pipeline.ignore_errors();
        for tag in &self.0 {
            pipeline.cmd("HGET").arg(tagged(key, *tag)).arg("nonce");
        }
        let replies: Vec<RedisResult<Option<String>>> = match self.0.is_empty() {
            true => Vec::new(),
            false => pipeline.query_async(&mut connection).await.map_err(in_words)?,
        };
        // It has been left behind by the others, and names places of old.
        if replies.iter().any(|reply| code_of(reply) == "CLUSTERDOWN") {
            let context = format!("the cluster does not serve as Redis at {name} sees it");
            return Err(Target::Redis.error(Kind::Unavailable, context));
        }
        // One that cannot be read is met again by whoever claims it.
        let is_there = |found: &RedisResult<Option<String>>| matches!(found, Ok(Some(_)));
        let there = self.0.iter().zip(&replies).filter(|(_, found)| is_there(found));
        let there: Vec<u32> = there.map(|(tag, _)| *tag).collect();
        let tag = there.first().or(self.0.first()).copied();
        Ok(Node { name, connection, tag, former: there.into_iter().skip(1).collect() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slots by turns, and one of them for a primary of its own.
    fn topology(primaries: u16) -> Topology {
        let slots = (0..super::super::slot::SLOTS).map(|slot| match slot {
            77 => primaries - 1,
            slot => slot % (primaries - 1),
        });
        let places = (0..primaries).map(|port| (String::new(), port));
        Topology { primaries: places.collect(), slots: slots.collect() }
    }

    #[test]
    fn every_primary_gets_a_tag_even_for_a_single_slot() {
        let topology = topology(4);
        for (index, tags) in Tags::choose(&topology, "outbox:identity").iter().enumerate() {
            let first = *tags.0.first().expect("a tag");
            let slot = slot(&tagged("outbox:identity", first));
            assert_eq!(usize::from(topology.slots[usize::from(slot)]), index);
        }
    }

    #[test]
    fn a_prefix_that_decides_the_slot_leaves_one_primary() {
        let tags = Tags::choose(&topology(4), "{shop}:outbox:identity");
        assert_eq!(tags.iter().filter(|tags| !tags.0.is_empty()).count(), 1);
    }
}
