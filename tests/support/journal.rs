//! What writers note down outside both servers, and the check that every run ends with.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;

use redis::Value;
use tokio_postgres::Client;
use uuid::Uuid;

use super::world::World;

/// One row that a writer wrote.
#[derive(Clone, Debug)]
pub(crate) struct Note {
    pub(crate) event_id: Uuid,
    pub(crate) stream: String,
    pub(crate) key: Option<String>,
    pub(crate) kind: Option<String>,
    pub(crate) payload: serde_json::Value,
    /// Order per (stream, key), where the writer's locks define one.
    pub(crate) number: Option<u64>,
    pub(crate) fate: Fate,
}

/// What became of the transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Committed,
    RolledBack,
    /// The answer was lost; the row itself tells.
    Unknown,
}

/// The writers' own truth.
#[derive(Default)]
pub(crate) struct Journal {
    notes: Mutex<Vec<Note>>,
    numbers: Mutex<HashMap<(String, String), u64>>,
}

impl Journal {
    pub(crate) fn write(&self, notes: impl IntoIterator<Item = Note>) {
        self.notes.lock().unwrap().extend(notes);
    }

    pub(crate) fn notes(&self) -> Vec<Note> {
        self.notes.lock().unwrap().clone()
    }

    pub(crate) fn committed(&self) -> usize {
        self.notes.lock().unwrap().iter().filter(|note| note.fate == Fate::Committed).count()
    }

    /// The next number of a key. Call it while holding the lock that orders the key.
    pub(crate) fn next_number(&self, stream: &str, key: &str) -> u64 {
        let mut numbers = self.numbers.lock().unwrap();
        let number = numbers.entry((stream.to_owned(), key.to_owned())).or_default();
        *number += 1;
        *number
    }
}

impl Note {
    pub(crate) fn new(stream: &str) -> Self {
        let event_id = Uuid::new_v4();
        Self {
            event_id,
            stream: stream.to_owned(),
            key: None,
            kind: None,
            payload: serde_json::json!({ "event": event_id.to_string() }),
            number: None,
            fate: Fate::Committed,
        }
    }

    pub(crate) fn key(mut self, key: &str) -> Self {
        self.key = Some(key.to_owned());
        self
    }

    pub(crate) fn fate(mut self, fate: Fate) -> Self {
        self.fate = fate;
        self
    }

    /// Inserts the row, in whatever transaction the client is in.
    pub(crate) async fn insert(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        let sql = "insert into outbox.entry (event_id, stream, key, type, payload) \
                   values ($1, $2, $3, $4, $5)";
        client
            .execute(sql, &[&self.event_id, &self.stream, &self.key, &self.kind, &self.payload])
            .await
            .map(|_| ())
    }
}

/// An entry of a stream, as anybody reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) id: String,
    pub(crate) fields: Vec<(String, String)>,
}

impl Found {
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.as_str())
    }

    /// Milliseconds and number of its ID.
    pub(crate) fn position(&self) -> (u64, u64) {
        let (ms, n) = self.id.split_once('-').unwrap();
        (ms.parse().unwrap(), n.parse().unwrap())
    }
}

/// All entries of a stream.
pub(crate) async fn read_stream(world: &World, stream: &str) -> Vec<Found> {
    let mut connection = world.streams_with(stream).await;
    let (mut found, mut from) = (Vec::new(), "-".to_owned());
    loop {
        let mut command = redis::cmd("XRANGE");
        command.arg(stream).arg(&from).arg("+").arg("COUNT").arg(5_000);
        let page: Vec<(String, Vec<Value>)> = command.query_async(&mut connection).await.unwrap();
        let Some((last, _)) = page.last() else { return found };
        from = format!("({last}");
        found.extend(page.into_iter().map(|(id, values)| {
            let texts: Vec<String> =
                values.into_iter().map(|v| redis::from_redis_value(v).unwrap()).collect();
            let fields = texts.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
            Found { id, fields }
        }));
    }
}

/// Streams equal the log, the log equals the journal: entry by entry, byte by byte. What was trimmed from
/// a stream, or purged from the log, is below the floor that every group has acknowledged.
pub(crate) async fn check(world: &World) {
    let logged = read_log(world).await;
    let seals: HashMap<Uuid, i64> =
        logged.values().flatten().map(|(found, seal)| (event(found), *seal)).collect();
    let logged: BTreeMap<String, Vec<Found>> = logged
        .into_iter()
        .map(|(stream, entries)| (stream, entries.into_iter().map(|(found, _)| found).collect()))
        .collect();
    let mut streams: HashSet<String> = logged.keys().cloned().collect();
    let notes = world.journal.notes();
    streams.extend(notes.iter().map(|note| note.stream.clone()));
    let (mut found, mut needless) = (BTreeMap::new(), HashSet::new());
    for stream in streams {
        let entries = read_stream(world, &stream).await;
        check_chain(&stream, &entries);
        let floor = world.floor(&stream).await.0;
        let log = logged.get(&stream).map(Vec::as_slice).unwrap_or_default();
        let from = |entries: &[Found]| entries.first().map_or(u64::MAX, |e| e.position().1);
        let begin = from(&entries).max(from(log)).min(floor + 1);
        let (trimmed, log) = log.split_at(log.partition_point(|e| e.position().1 < begin));
        let entries = entries[entries.partition_point(|e| e.position().1 < begin)..].to_vec();
        needless.extend(trimmed.iter().map(event));
        assert_eq!(entries.len(), log.len(), "stream {stream} and its log differ in length");
        for (entry, logged) in entries.iter().zip(log) {
            assert_eq!(entry, logged, "stream {stream} differs from the log");
        }
        found.insert(stream, entries);
    }
    if !notes.is_empty() {
        check_journal(world, &notes, &found, &needless, &seals).await;
    }
}

/// What the log says each stream must hold, and which seal fixed it, rendered here from the rows and by
/// Postgres alone.
async fn read_log(world: &World) -> BTreeMap<String, Vec<(Found, i64)>> {
    let sql = "select coalesce(b.stream, e.stream), \
        b.ms || '-' || b.first_n + u.i - 1, e.event_id::text, e.type, e.key, \
        to_char(e.created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
        e.payload::text, e.headers::text, e.id, \
        b.stream = e.stream or b.stream ~ ('^' || e.stream || ':[{][0-9]+[}]$'), b.seal \
        from outbox.entry e left join \
        (outbox.batch b cross join lateral unnest(b.ids) with ordinality as u (id, i)) on u.id = e.id \
        order by b.stream, b.first_n + u.i";
    let client = world.owner().await;
    let mut logged: BTreeMap<String, Vec<(Found, i64)>> = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let names = ["id", "type", "key", "at", "payload", "headers"];
        let fields = names.iter().enumerate().filter_map(|(at, name)| {
            row.get::<_, Option<String>>(at + 2).map(|value| ((*name).to_owned(), value))
        });
        let id: Option<String> = row.get(1);
        let id = id.unwrap_or_else(|| panic!("row {} is not sealed", row.get::<_, i64>(8)));
        assert!(row.get::<_, bool>(9), "row {} is sealed in another stream", row.get::<_, i64>(8));
        let found = Found { id, fields: fields.collect() };
        logged.entry(row.get(0)).or_default().push((found, row.get(10)));
    }
    logged
}

/// The stream that rows name, of which this is one or a partition.
pub(crate) fn named(stream: &str) -> &str {
    stream.split_once(":{").map_or(stream, |(stream, _)| stream)
}

fn event(entry: &Found) -> Uuid {
    entry.field("id").unwrap().parse().unwrap()
}

/// Numbers follow one another, and milliseconds never go back.
pub(crate) fn check_chain(stream: &str, entries: &[Found]) {
    let mut before = entries.first().map_or((0, 0), |first| (0, first.position().1 - 1));
    for entry in entries {
        let (ms, n) = entry.position();
        assert!(
            n == before.1 + 1 && ms >= before.0,
            "stream {stream}: {} follows {before:?}",
            entry.id
        );
        before = (ms, n);
    }
}

/// The seal that fixed an entry, and its number in its stream.
type Place = (i64, u64);

async fn check_journal(
    world: &World,
    notes: &[Note],
    found: &BTreeMap<String, Vec<Found>>,
    needless: &HashSet<Uuid>,
    seals: &HashMap<Uuid, i64>,
) {
    let client = world.owner().await;
    let rows = client.query("select event_id from outbox.entry", &[]).await.unwrap();
    let kept: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let sql = "select coalesce(sum(n), 0)::bigint from outbox.floor";
    let purged: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
    let mut places: HashMap<(&str, Uuid), Vec<&Found>> = HashMap::new();
    for (stream, entries) in found {
        for entry in entries {
            places.entry((named(stream), event(entry))).or_default().push(entry);
        }
    }
    // By seal first, for a key may have gone on in another partition.
    let mut orders: HashMap<(&str, &str), Vec<(Place, u64)>> = HashMap::new();
    for note in notes {
        let expected = match note.fate {
            _ if needless.contains(&note.event_id) => 0,
            // Only the owner deletes rows, and then it was by the purge.
            Fate::Committed if !kept.contains(&note.event_id) && purged > 0 => 0,
            Fate::Committed => 1,
            Fate::RolledBack => 0,
            Fate::Unknown => usize::from(kept.contains(&note.event_id)),
        };
        let at = places.remove(&(note.stream.as_str(), note.event_id)).unwrap_or_default();
        assert_eq!(at.len(), expected, "{note:?} is in its stream {} times", at.len());
        let Some(entry) = at.first() else { continue };
        assert_eq!(entry.field("key"), note.key.as_deref());
        assert_eq!(entry.field("type"), note.kind.as_deref());
        let payload: serde_json::Value =
            serde_json::from_str(entry.field("payload").unwrap()).unwrap();
        assert_eq!(payload, note.payload);
        if let (Some(number), Some(key)) = (note.number, &note.key) {
            let place = (seals[&note.event_id], entry.position().1);
            orders.entry((&note.stream, key)).or_default().push((place, number));
        }
    }
    assert!(places.is_empty(), "entries that no writer noted down: {places:?}");
    for ((stream, key), mut order) in orders {
        order.sort_unstable();
        let numbers: Vec<u64> = order.iter().map(|(_, number)| *number).collect();
        assert!(numbers.is_sorted(), "stream {stream}: key {key} came in the order {numbers:?}");
    }
}
