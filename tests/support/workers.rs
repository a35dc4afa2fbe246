//! Applications that read streams by consumer group, and note down what each group was given.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::task::JoinHandle;
use uuid::Uuid;

use super::journal::{Fate, named};
use super::world::World;
use super::{eventually, pause};

/// What XREADGROUP answers: streams with entries, each with its fields unless it was deleted.
pub(crate) type Reply = Vec<(String, Vec<(String, Option<Vec<String>>)>)>;

/// What a group was given, by stream, as rows name it.
#[derive(Default)]
struct Given {
    times: HashMap<(String, Uuid), u32>,
    /// When each event was given first, in order over all streams.
    first: HashMap<(String, Uuid), usize>,
}

impl Given {
    fn note(&mut self, stream: &str, event: Uuid) {
        let key = (named(stream).to_owned(), event);
        let order = self.first.len();
        self.first.entry(key.clone()).or_insert(order);
        *self.times.entry(key).or_default() += 1;
    }

    /// Entries of a key were given in their order, in whatever partition they were.
    fn check_order(&self, world: &World) {
        let mut orders: HashMap<(String, String), Vec<(u64, usize)>> = HashMap::new();
        for note in world.journal.notes() {
            let at = self.first.get(&(note.stream.clone(), note.event_id));
            if let (Some(number), Some(key), Some(at)) = (note.number, note.key, at) {
                orders.entry((note.stream, key)).or_default().push((number, *at));
            }
        }
        for ((stream, key), mut order) in orders {
            order.sort_unstable();
            let given: Vec<usize> = order.iter().map(|(_, at)| *at).collect();
            assert!(
                given.is_sorted(),
                "stream {stream}: key {key} was given in the order {order:?}"
            );
        }
    }
}

/// One consumer per stream, all of one group. Any error is met by trying the same call again, on a new
/// connection if need be. After an error, and when there is nothing new, it reads what was given before
/// and never acknowledged.
pub(crate) struct Workers {
    group: String,
    given: Arc<Mutex<Given>>,
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Workers {
    /// Makes the group in each stream, at the beginning, and starts to read.
    pub(crate) async fn start(world: &World, group: &str, streams: &[&str]) -> Self {
        for stream in streams {
            make_group(world, stream, group).await;
        }
        Self::join(world, group, streams)
    }

    /// Starts to read by a group that is there.
    pub(crate) fn join(world: &World, group: &str, streams: &[&str]) -> Self {
        let nodes = world.cluster.iter().flat_map(|cluster| &cluster.nodes);
        let nodes: Vec<String> = nodes.map(outbox_relay::sandbox::Redis::url).collect();
        match nodes.is_empty() {
            true => Self::join_at(&[world.redis.url()], group, streams),
            false => Self::join_at(&nodes, group, streams),
        }
    }

    /// As [`Workers::join`], of the Redis that is found at one of `urls`.
    pub(crate) fn join_at(urls: &[String], group: &str, streams: &[&str]) -> Self {
        let (given, over) = (Arc::<Mutex<Given>>::default(), Arc::<AtomicBool>::default());
        let mut workers = Self { group: group.to_owned(), given, over, tasks: Vec::new() };
        workers.set_to(urls, streams);
        workers
    }

    /// Reads more streams by the same group.
    pub(crate) fn join_more(&mut self, world: &World, streams: &[&str]) {
        self.set_to(&[world.redis.url()], streams);
    }

    fn set_to(&mut self, urls: &[String], streams: &[&str]) {
        for stream in streams {
            let worker = Worker {
                urls: urls.to_owned(),
                stream: (*stream).to_owned(),
                group: self.group.clone(),
                given: self.given.clone(),
                over: self.over.clone(),
            };
            self.tasks.push(tokio::spawn(worker.run()));
        }
    }

    /// Waits until the group has been given every event that was committed to its streams and has
    /// acknowledged it, then ends. Returns how many times an event was given again.
    pub(crate) async fn finish(mut self, world: &World, streams: &[&str]) -> usize {
        let what = format!("group {} was given every committed event", self.group);
        eventually(&what, Duration::from_secs(60), || async {
            self.skipped(world, streams).await.is_empty()
        })
        .await;
        for stream in streams {
            let what = format!("group {} has nothing left in {stream}", self.group);
            eventually(&what, Duration::from_secs(30), || async {
                let command = &["XPENDING", stream, &self.group];
                let (pending, ..): (u64, Value, Value, Value) = world.redis(command).await;
                pending == 0
            })
            .await;
        }
        self.over.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            task.await.unwrap();
        }
        let given = self.given.lock().unwrap();
        given.check_order(world);
        given.times.values().map(|times| *times as usize - 1).sum()
    }

    /// Waits until the group has acknowledged all that is sealed in `stream`, and ends.
    pub(crate) async fn acknowledges_all(self, world: &World, stream: &str) {
        self.acknowledges_all_of(world, &[stream]).await;
    }

    /// As [`Workers::acknowledges_all`], of several streams.
    pub(crate) async fn acknowledges_all_of(self, world: &World, streams: &[&str]) {
        let what = format!("group {} has acknowledged all of {streams:?}", self.group);
        eventually(&what, Duration::from_secs(60), || async {
            let sql = "select count(*) from outbox.stream_status \
                       where stream = any ($1) and sealed = acked and undispatched = 0";
            let row = world.owner().await.query_one(sql, &[&streams]).await.unwrap();
            row.get::<_, i64>(0) == streams.len() as i64
        })
        .await;
    }

    /// Committed events that the group was not given.
    async fn skipped(&self, world: &World, streams: &[&str]) -> HashSet<Uuid> {
        let kept =
            world.owner().await.query("select event_id from outbox.entry", &[]).await.unwrap();
        let kept: HashSet<Uuid> = kept.iter().map(|row| row.get(0)).collect();
        let given = self.given.lock().unwrap();
        let notes = world.journal.notes().into_iter();
        notes
            .filter(|note| streams.contains(&note.stream.as_str()))
            .filter(|note| match note.fate {
                Fate::Committed => true,
                Fate::RolledBack => false,
                Fate::Unknown => kept.contains(&note.event_id),
            })
            .filter(|note| !given.times.contains_key(&(note.stream.clone(), note.event_id)))
            .map(|note| note.event_id)
            .collect()
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    urls: Vec<String>,
    stream: String,
    group: String,
    given: Arc<Mutex<Given>>,
    over: Arc<AtomicBool>,
}

impl Worker {
    async fn run(self) {
        // The first one, or in a cluster whoever has the stream by now.
        for url in self.urls.iter().cycle() {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            // Between two attempts; nothing is waited for.
            pause().await;
            let Ok(client) = redis::Client::open(url.as_str()) else { continue };
            let config = redis::AsyncConnectionConfig::new()
                .set_response_timeout(Some(Duration::from_secs(5)));
            let connected = client.get_multiplexed_async_connection_with_config(&config).await;
            if let Ok(mut connection) = connected {
                let _ = self.work(&mut connection).await;
            }
        }
    }

    /// Reads until an error, first what was given before. Of what it is given it acknowledges all but the
    /// last, which waits for the next time.
    async fn work(&self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let mut from = "0".to_owned();
        let mut waiting = None;
        while !self.over.load(Ordering::Relaxed) {
            let mut read = redis::cmd("XREADGROUP");
            read.arg("GROUP").arg(&self.group).arg("worker").arg("COUNT").arg(10);
            if from == ">" && waiting.is_none() {
                read.arg("BLOCK").arg(100);
            }
            read.arg("STREAMS").arg(&self.stream).arg(&from);
            let found: Option<Reply> = read.query_async(connection).await?;
            let entries = found.into_iter().flatten().flat_map(|(_, entries)| entries);
            let entries: Vec<_> = entries.collect();
            let mut done: Vec<String> = waiting.take().into_iter().collect();
            for (id, fields) in &entries {
                if let Some(event) = fields.as_ref().and_then(|fields| fields.get(1)) {
                    let event: Uuid = event.parse().unwrap();
                    self.given.lock().unwrap().note(&self.stream, event);
                }
                done.push(id.clone());
            }
            match (from.as_str(), entries.last()) {
                (">", Some(_)) => waiting = done.pop(),
                // What the relay gave back meanwhile.
                (">", None) => from = "0".to_owned(),
                (_, None) => from = ">".to_owned(),
                (_, Some((last, _))) => from = last.clone(),
            }
            if !done.is_empty() {
                let mut acknowledge = redis::cmd("XACK");
                acknowledge.arg(&self.stream).arg(&self.group).arg(&done);
                acknowledge.exec_async(connection).await?;
            }
        }
        Ok(())
    }
}

/// Makes a group that begins at the first entry.
pub(crate) async fn make_group(world: &World, stream: &str, group: &str) {
    world.redis::<()>(&["XGROUP", "CREATE", stream, group, "0", "MKSTREAM"]).await;
}

/// A group as Redis describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupState {
    pub(crate) delivered: String,
    pub(crate) lag: Option<u64>,
    /// ID, consumer, deliveries.
    pub(crate) pending: Vec<(String, String, u64)>,
}

impl World {
    /// A group of a stream, if it is there.
    pub(crate) async fn group(&self, stream: &str, group: &str) -> Option<GroupState> {
        if !self.redis::<bool>(&["EXISTS", stream]).await {
            return None;
        }
        let groups: Vec<HashMap<String, Value>> = self.redis(&["XINFO", "GROUPS", stream]).await;
        let text = |value: &Value| redis::from_redis_value::<String>(value.clone()).ok();
        let found = groups.iter().find(|g| text(&g["name"]).as_deref() == Some(group))?;
        let pending: Vec<(String, String, u64, u64)> =
            self.redis(&["XPENDING", stream, group, "-", "+", "100000"]).await;
        Some(GroupState {
            delivered: text(&found["last-delivered-id"])?,
            lag: found.get("lag").and_then(|lag| redis::from_redis_value(lag.clone()).ok()),
            pending: pending.into_iter().map(|(id, c, _, count)| (id, c, count)).collect(),
        })
    }

    /// The floor of a stream as last stored, and how many groups it is of.
    pub(crate) async fn floor(&self, stream: &str) -> (u64, u64) {
        let sql =
            "select n, jsonb_array_length(groups)::bigint from outbox.floor where stream = $1";
        let row = self.owner().await.query_opt(sql, &[&stream]).await.unwrap();
        row.map_or((0, 0), |row| {
            (row.get::<_, i64>(0).unsigned_abs(), row.get::<_, i64>(1).unsigned_abs())
        })
    }

    /// Waits until a checkpoint of the stream, as its groups are now, is stored: one that was taken after
    /// this call began.
    pub(crate) async fn checkpointed(&self, stream: &str) {
        let group = "select groups::text from outbox.floor where stream = $1";
        let what = format!("{stream} is stored as it is");
        eventually(&what, Duration::from_secs(30), || async {
            let groups: Vec<HashMap<String, Value>> =
                self.redis(&["XINFO", "GROUPS", stream]).await;
            let row = self.owner().await.query_opt(group, &[&stream]).await.unwrap();
            let saved: String = row.map_or("[]".to_owned(), |row| row.get(0));
            let saved: Vec<serde_json::Value> = serde_json::from_str(&saved).unwrap();
            groups.len() == saved.len()
                && groups.iter().all(|is| {
                    let text = |name: &str| {
                        redis::from_redis_value::<String>(is[name].clone()).unwrap_or_default()
                    };
                    let number = |name: &str| redis::from_redis_value::<u64>(is[name].clone()).ok();
                    saved.iter().any(|saved| {
                        saved["name"] == text("name")
                            && saved["delivered"] == text("last-delivered-id")
                            && saved["waiting"].as_u64() == number("pending")
                    })
                })
        })
        .await;
    }
}
