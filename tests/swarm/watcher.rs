//! Looks at all streams all the time, on connections of its own, and compares them with the log.
//!
//! Redis is read first and the log after it: whatever is in Redis must have been sealed by then. What was
//! once seen of the log never changes, so it is kept, also when it is purged.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::moment::{Micros, now};
use crate::support::pause;

/// Entries of a longer stream that are looked at: so many of its beginning, and of its end.
const LOOK: &str = r"
    local key, found = KEYS[1], {}
    if redis.call('TYPE', key).ok ~= 'stream' then return {'0-0', 0, {}} end
    local info = redis.call('XINFO', 'STREAM', key)
    local last
    for i = 1, #info, 2 do if info[i] == 'last-generated-id' then last = info[i + 1] end end
    local length = redis.call('XLEN', key)
    local function add(entries, from, to, step)
        for i = from, to, step do
            found[#found + 1] = entries[i][1]
            found[#found + 1] = entries[i][2][2]
        end
    end
    local head = redis.call('XRANGE', key, '-', '+', 'COUNT', length > 300 and 50 or 300)
    add(head, 1, #head, 1)
    if length > 300 then
        local tail = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 200)
        add(tail, #tail, 1, -1)
    end
    return {last, length, found}";

/// One sealed entry: its milliseconds, and which event it is; None if its row was purged before we looked.
pub(crate) type Sealed = (u64, Option<Uuid>);

/// Where a stream was at one look; kept when it differs from the look before.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    pub(crate) begun: Micros,
    pub(crate) ended: Micros,
    pub(crate) last: u64,
    /// Number of the first entry; one more than `last` if there is none.
    pub(crate) first: u64,
    pub(crate) length: u64,
    /// The floor, as stored a moment later.
    pub(crate) floor: u64,
}

/// What was seen.
#[derive(Default)]
pub(crate) struct Seen {
    /// All of the log, by stream and number.
    pub(crate) log: BTreeMap<String, BTreeMap<u64, Sealed>>,
    pub(crate) sights: HashMap<String, Vec<Sight>>,
    /// Streams, times and sentences of what broke the prefix.
    pub(crate) broken: Vec<(String, Micros, String)>,
    /// When the groups of each stream were seen to be lost, or to be back.
    pub(crate) sound: HashMap<String, Vec<(Micros, bool)>>,
    pub(crate) looks: u64,
}

/// Where the servers are; they may move.
pub(crate) struct Ports {
    pub(crate) redis: AtomicU16,
    pub(crate) postgres: String,
}

/// A watcher at work until it is stopped.
pub(crate) struct Watcher {
    pub(crate) seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    task: Option<JoinHandle<()>>,
}

impl Watcher {
    pub(crate) fn start(ports: Arc<Ports>, prefix: &str, streams: &[String]) -> Self {
        let (seen, over) = (Arc::<Mutex<Seen>>::default(), Arc::<AtomicBool>::default());
        let eyes = Eyes {
            ports,
            prefix: prefix.to_owned(),
            streams: streams.to_vec(),
            seen: seen.clone(),
            over: over.clone(),
            redis: None,
            postgres: None,
            unread: Vec::new(),
            floors: HashMap::new(),
        };
        let task = Some(tokio::spawn(eyes.look_on()));
        Self { seen, over, task }
    }

    /// Number of the last entry of a stream in the log, as far as was seen.
    pub(crate) fn sealed(&self, stream: &str) -> u64 {
        let seen = self.seen.lock().unwrap();
        let last = seen.log.get(stream).and_then(|log| log.last_key_value().map(|(n, _)| *n));
        last.unwrap_or(0)
    }

    pub(crate) fn is_broken(&self) -> bool {
        !self.seen.lock().unwrap().broken.is_empty()
    }

    /// Ends it after it has looked once more at both servers.
    pub(crate) async fn stop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(task) = self.task.take() {
            task.await.unwrap();
        }
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A stream as Redis had it.
struct Look {
    stream: String,
    begun: Micros,
    ended: Micros,
    last: (u64, u64),
    length: u64,
    entries: Vec<((u64, u64), String)>,
}

/// A stream as Postgres has it.
#[derive(Clone, Default)]
struct Floor {
    n: u64,
    sound: bool,
    purged: u64,
}

struct Eyes {
    ports: Arc<Ports>,
    prefix: String,
    streams: Vec<String>,
    seen: Arc<Mutex<Seen>>,
    over: Arc<AtomicBool>,
    redis: Option<(u16, MultiplexedConnection)>,
    postgres: Option<Client>,
    /// Looks that wait for Postgres.
    unread: Vec<Look>,
    /// The highest floors that were ever stored.
    floors: HashMap<String, u64>,
}

impl Eyes {
    async fn look_on(mut self) {
        loop {
            let last = self.over.load(Ordering::Relaxed);
            let looked = tokio::time::timeout(Duration::from_secs(2), self.look()).await;
            if !matches!(looked, Ok(Some(()))) {
                self.redis = None;
            }
            let read = tokio::time::timeout(Duration::from_secs(5), self.read_log()).await;
            match read {
                Ok(Some(floors)) => self.compare(&floors),
                _ => self.postgres = None,
            }
            if last {
                return;
            }
            pause().await;
        }
    }

    async fn look(&mut self) -> Option<()> {
        let port = self.ports.redis.load(Ordering::Relaxed);
        if self.redis.as_ref().is_none_or(|(old, _)| *old != port) {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}/")).ok()?;
            self.redis = Some((port, client.get_multiplexed_async_connection().await.ok()?));
        }
        let (_, connection) = self.redis.as_mut()?;
        for stream in &self.streams {
            let begun = now();
            let mut look = redis::cmd("EVAL_RO");
            look.arg(LOOK).arg(1).arg(format!("{}{stream}", self.prefix));
            let (last, length, found): (String, u64, Vec<String>) =
                look.query_async(connection).await.ok()?;
            self.unread.push(Look {
                stream: stream.clone(),
                begun,
                ended: now(),
                last: position(&last),
                length,
                entries: found.chunks(2).map(|e| (position(&e[0]), e[1].clone())).collect(),
            });
        }
        Some(())
    }

    /// Reads what is new in the log, and returns the floors.
    async fn read_log(&mut self) -> Option<HashMap<String, Floor>> {
        if self.postgres.as_ref().is_none_or(Client::is_closed) {
            let url = &self.ports.postgres;
            let (client, connection) = tokio_postgres::connect(url, NoTls).await.ok()?;
            tokio::spawn(connection);
            self.postgres = Some(client);
        }
        let client = self.postgres.as_ref()?;
        let sql = "select b.ms, b.first_n + u.i - 1, e.event_id from outbox.batch b \
                   cross join lateral unnest(b.ids) with ordinality u (id, i) \
                   left join outbox.entry e on e.id = u.id \
                   where b.stream = $1 and b.last_n > $2 order by 2";
        for stream in &self.streams {
            let known = {
                let seen = self.seen.lock().unwrap();
                let log = seen.log.get(stream);
                log.and_then(|log| log.last_key_value().map(|(n, _)| *n)).unwrap_or(0)
            };
            let rows = client.query(sql, &[stream, &(known as i64)]).await.ok()?;
            let mut seen = self.seen.lock().unwrap();
            let log = seen.log.entry(stream.clone()).or_default();
            for row in rows {
                let (ms, n): (i64, i64) = (row.get(0), row.get(1));
                log.entry(n as u64).or_insert((ms as u64, row.get(2)));
            }
        }
        let sql = "select f.stream, f.n, not s.groups_lost, s.purged_n from outbox.floor f \
                   join outbox.stream s on s.name = f.stream";
        let rows = client.query(sql, &[]).await.ok()?;
        let floor = |row: &tokio_postgres::Row| {
            let (n, purged): (i64, i64) = (row.get(1), row.get(3));
            Floor { n: n as u64, sound: row.get(2), purged: purged as u64 }
        };
        Some(rows.iter().map(|row| (row.get(0), floor(row))).collect())
    }

    fn compare(&mut self, floors: &HashMap<String, Floor>) {
        let looks: Vec<Look> = self.unread.drain(..).collect();
        let mut seen = self.seen.lock().unwrap();
        let at = now();
        for (stream, floor) in floors {
            let sound = seen.sound.entry(stream.clone()).or_default();
            if sound.last().is_none_or(|(_, was)| *was != floor.sound) {
                sound.push((at, floor.sound));
            }
        }
        for look in looks {
            seen.looks += 1;
            let mut floor = floors.get(&look.stream).cloned().unwrap_or_default();
            // What nobody needed once, nobody needs.
            let highest = self.floors.entry(look.stream.clone()).or_default();
            *highest = floor.n.max(*highest);
            floor.n = *highest;
            if let Some(sentence) = differs(&look, seen.log.get(&look.stream), &floor) {
                seen.broken.push((look.stream.clone(), look.begun, sentence));
            }
            let sight = Sight {
                begun: look.begun,
                ended: look.ended,
                last: look.last.1,
                first: look.entries.first().map_or(look.last.1 + 1, |entry| entry.0.1),
                length: look.length,
                floor: floor.n,
            };
            let sights = seen.sights.entry(look.stream).or_default();
            let same = |old: &Sight| {
                (old.last, old.first, old.floor) == (sight.last, sight.first, sight.floor)
            };
            if !sights.last().is_some_and(same) {
                sights.push(sight);
            }
        }
    }
}

/// How what Redis has is no part of the log, if it is not.
fn differs(look: &Look, log: Option<&BTreeMap<u64, Sealed>>, floor: &Floor) -> Option<String> {
    let empty = BTreeMap::new();
    let (stream, log) = (&look.stream, log.unwrap_or(&empty));
    let sealed = log.last_key_value().map_or(0, |(n, _)| *n).max(floor.purged);
    let (ms, n) = look.last;
    if n > sealed {
        return Some(format!(
            "stream {stream} is at {ms}-{n} and the log has sealed up to {sealed}"
        ));
    }
    if n > 0 && log.get(&n).is_some_and(|(sealed, _)| *sealed != ms) {
        return Some(format!("stream {stream} is at {ms}-{n}, which the log does not have"));
    }
    let strange = look.entries.iter().find_map(|entry| is_strange(stream, entry, log, floor));
    strange.or_else(|| has_hole(look, floor))
}

/// An entry that the log does not have.
fn is_strange(
    stream: &str,
    entry: &((u64, u64), String),
    log: &BTreeMap<u64, Sealed>,
    floor: &Floor,
) -> Option<String> {
    let ((ms, n), event) = entry;
    match log.get(n) {
        None if *n <= floor.purged => None,
        None => Some(format!("stream {stream} has entry {ms}-{n}, which the log does not have")),
        Some((sealed, known)) => {
            let same = sealed == ms && known.is_none_or(|known| event.parse() == Ok(known));
            (!same).then(|| {
                format!(
                    "stream {stream} has entry {ms}-{n} of event {event}, the log has {sealed}-{n} of \
                     {known:?}"
                )
            })
        }
    }
}

/// That something is missing between the first entry and the end. An old state that came back and was moved
/// on to its floor lacks what is below that.
fn has_hole(look: &Look, floor: &Floor) -> Option<String> {
    let (stream, length, last) = (&look.stream, look.length, look.last.1);
    let first = look.entries.first().map(|(position, _)| position.1)?;
    let mut before = first;
    let cut = length > look.entries.len() as u64;
    for next in look.entries.iter().map(|(position, _)| position.1).skip(1) {
        // What was not looked at lies between the head and the tail.
        if next != before + 1 && next > floor.n + 1 && !(cut && next > before) {
            return Some(format!("stream {stream} has entry {next} after {before}"));
        }
        before = next;
    }
    if last > before && last > floor.n {
        return Some(format!("stream {stream} ends with entry {before} and is at {last}"));
    }
    let missing = (last + 1 - first).saturating_sub(length);
    let needless = (floor.n + 1).saturating_sub(first);
    (missing > needless).then(|| {
        format!("stream {stream} has {length} entries from {first} to {last}: it has a hole")
    })
}

fn position(id: &str) -> (u64, u64) {
    let (ms, n) = id.split_once('-').unwrap_or(("0", "0"));
    (ms.parse().unwrap_or(0), n.parse().unwrap_or(0))
}
