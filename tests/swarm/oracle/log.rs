//! The ledgers, the log and the streams, against each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use uuid::Uuid;

use super::super::ledger::{self, Row};
use super::super::stage::Stage;
use super::super::watcher::Sealed;
use super::Verdict;
use crate::support::journal::{Fate, Found, read_stream};

/// What Postgres has at the end.
struct Rows {
    kept: BTreeSet<Uuid>,
    /// Entries as they must be in Redis, by stream and number.
    rendered: BTreeMap<String, BTreeMap<u64, Found>>,
    /// Floor and what was purged, by stream.
    floors: HashMap<String, (u64, u64)>,
}

impl Verdict {
    pub(super) async fn log_and_streams(&mut self, stage: &Stage) {
        let mut streams = BTreeMap::new();
        for stream in &stage.streams {
            streams.insert(stream, read_stream(&stage.world, &stage.key(stream)).await);
        }
        // After the streams, for what is trimmed meanwhile was stored as needless before.
        let rows = read(stage).await;
        let log = stage.watcher.seen.lock().unwrap().log.clone();
        for (stream, entries) in streams {
            let empty = BTreeMap::new();
            let floor = rows.floors.get(stream).map_or(0, |floor| floor.0);
            self.chain(stream, &entries, log.get(stream).unwrap_or(&empty), floor);
            self.bytes(stream, &entries, &rows);
        }
        self.events(&ledger::read_back(&stage.ledgers()), &log, &rows);
    }

    /// I5: numbers are dense and milliseconds never decrease, in the log and in Redis. An old state that
    /// came back and was moved on to its floor lacks what is below that.
    fn chain(&mut self, stream: &str, entries: &[Found], log: &BTreeMap<u64, Sealed>, floor: u64) {
        let positions: Vec<(u64, u64)> = entries.iter().map(Found::position).collect();
        for pair in positions.windows(2) {
            let hole = pair[1].1 != pair[0].1 + 1 && pair[1].1 > floor + 1;
            if hole || pair[1] <= pair[0] || pair[1].0 < pair[0].0 {
                self.broken(5, format!("stream {stream} has {:?} after {:?}", pair[1], pair[0]));
            }
        }
        let mut before = (0, 0);
        for (n, (ms, _)) in log {
            if before.0 > 0 && (*n != before.0 + 1 || *ms < before.1) {
                self.broken(
                    5,
                    format!("the log of {stream} has {ms}-{n} after {}-{}", before.1, before.0),
                );
            }
            before = (*n, *ms);
        }
    }

    /// I4: what is in Redis is the log above the floor, byte by byte.
    fn bytes(&mut self, stream: &str, entries: &[Found], rows: &Rows) {
        let (floor, purged) = rows.floors.get(stream).copied().unwrap_or_default();
        let empty = BTreeMap::new();
        let rendered = rows.rendered.get(stream).unwrap_or(&empty);
        for entry in entries {
            let n = entry.position().1;
            match rendered.get(&n) {
                Some(row) if row == entry => {}
                None if n <= purged => {}
                row => {
                    return self
                        .broken(4, format!("stream {stream} has {entry:?}, the log has {row:?}"));
                }
            }
        }
        let held: BTreeSet<u64> = entries.iter().map(|entry| entry.position().1).collect();
        let missing = rendered.keys().filter(|n| **n > floor && !held.contains(n)).count();
        if missing > 0 {
            let first = rendered.keys().find(|n| **n > floor && !held.contains(n));
            self.missing += missing as u64;
            self.broken(
                4,
                format!(
                    "stream {stream} lacks {missing} entries above its floor {floor}, the first is {first:?}"
                ),
            );
        }
    }

    /// I1, I2, I3: the log is what the writers have committed.
    fn events(
        &mut self,
        ledger: &[Row],
        log: &BTreeMap<String, BTreeMap<u64, Sealed>>,
        rows: &Rows,
    ) {
        let mut places: HashMap<(&str, Uuid), Vec<u64>> = HashMap::new();
        for (stream, entries) in log {
            for (n, (_, event)) in entries {
                event.iter().for_each(|e| places.entry((stream, *e)).or_default().push(*n));
            }
        }
        // Rows that were purged before anybody looked at them.
        let unseen = log.values().flat_map(BTreeMap::values).any(|(_, event)| event.is_none());
        let mut order: HashMap<(&str, &str), Vec<(u64, u64)>> = HashMap::new();
        for row in ledger {
            let (stream, event) = (row.stream.as_str(), row.event);
            let found = places.remove(&(stream, event)).unwrap_or_default();
            match (row.fate, found.len()) {
                (Fate::Committed, 0) if unseen && !rows.kept.contains(&event) => self.written += 1,
                (Fate::Committed, 0) => {
                    self.missing += 1;
                    let kept = rows.kept.contains(&event);
                    let sentence = format!(
                        "committed event {event} of {stream} was never sealed (its row is there: {kept})"
                    );
                    self.broken(1, sentence);
                }
                (Fate::Committed | Fate::Unknown, 1) => self.written += 1,
                (Fate::Unknown, 0) if rows.kept.contains(&event) => {
                    self.missing += 1;
                    self.broken(
                        1,
                        format!("event {event} of stream {stream} is there and not sealed"),
                    );
                }
                (_, 0) => {}
                (Fate::RolledBack, _) => {
                    self.broken(
                        2,
                        format!("event {event} was rolled back and is {stream} {found:?}"),
                    );
                }
                (_, times) => {
                    self.doubled += times as u64 - 1;
                    self.broken(
                        1,
                        format!("event {event} is {times} times in {stream}: {found:?}"),
                    );
                }
            }
            if let (Some(key), Some(number), Some(n)) = (&row.key, row.number, found.first()) {
                order.entry((stream, key)).or_default().push((*n, number));
            }
        }
        if let Some(((stream, event), n)) = places.into_iter().next() {
            self.broken(
                2,
                format!("stream {stream} has {n:?} of event {event}, which nobody wrote"),
            );
        }
        for ((stream, key), mut places) in order {
            places.sort_unstable();
            if let Some(pair) = places.windows(2).find(|pair| pair[1].1 < pair[0].1) {
                self.disordered += 1;
                let (first, second) = (pair[0], pair[1]);
                let sentence = format!(
                    "key {key} of stream {stream} has its {}th event as {} and its {}th as {}",
                    first.1, first.0, second.1, second.0
                );
                self.broken(3, sentence);
            }
        }
    }
}

async fn read(stage: &Stage) -> Rows {
    let client = stage.world.owner().await;
    let sql = "select b.stream, b.ms || '-' || b.first_n + u.i - 1, e.event_id::text, e.type, e.key, \
        to_char(e.created_at at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
        e.payload::text, e.headers::text, b.first_n + u.i - 1 \
        from outbox.batch b cross join lateral unnest(b.ids) with ordinality as u (id, i) \
        join outbox.entry e on u.id = e.id";
    let mut rendered: BTreeMap<String, BTreeMap<u64, Found>> = BTreeMap::new();
    for row in client.query(sql, &[]).await.unwrap() {
        let names = ["id", "type", "key", "at", "payload", "headers"];
        let fields = names.iter().enumerate().filter_map(|(at, name)| {
            row.get::<_, Option<String>>(at + 2).map(|value| ((*name).to_owned(), value))
        });
        let found = Found { id: row.get(1), fields: fields.collect() };
        let n: i64 = row.get(8);
        rendered.entry(row.get(0)).or_default().insert(n as u64, found);
    }
    let kept = client.query("select event_id from outbox.entry", &[]).await.unwrap();
    let sql = "select f.stream, f.n, s.purged_n from outbox.floor f \
               join outbox.stream s on s.name = f.stream";
    let floors = client.query(sql, &[]).await.unwrap();
    let number = |row: &tokio_postgres::Row, at: usize| row.get::<_, i64>(at) as u64;
    Rows {
        kept: kept.iter().map(|row| row.get(0)).collect(),
        rendered,
        floors: floors.iter().map(|row| (row.get(0), (number(row, 1), number(row, 2)))).collect(),
    }
}
