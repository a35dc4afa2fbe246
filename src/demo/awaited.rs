//! What must be there again after a loss of Redis: in the streams, or with the workers already.

use std::collections::HashMap;

use uuid::Uuid;

use super::error::DemoError;
use super::held::{Held, HeldStream, of_each};
use super::journal::{Fate, Record, STREAMS};
use super::ledger::{Away, Ledger};
use super::streams::{Entry, Streams};
use crate::position::Position;

/// Events that have not been found so far.
pub(super) struct Awaited {
    missing: HashMap<Uuid, Expected>,
    away: Away,
    seen_up_to: [Position; STREAMS.len()],
    moved: u64,
}

#[derive(Clone, Copy, Debug)]
struct Expected {
    stream: &'static str,
    /// Under this ID, if Redis had it and the workers had not acknowledged it. Otherwise it is enough
    /// that it was with a worker before the loss.
    position: Option<Position>,
}

impl Awaited {
    /// Expects what Redis `held` when it was killed and was not acknowledged, and every committed event
    /// among `records`. What workers were given before `away` does not count.
    pub(super) fn new(held: &Held, records: &[Record], away: Away) -> Self {
        let mut missing = HashMap::new();
        for Record { event, .. } in records.iter().filter(|record| record.fate == Fate::Committed) {
            missing.insert(event.id, Expected { stream: event.stream, position: None });
        }
        for (stream, id, position) in needed(held) {
            missing.insert(id, Expected { stream, position: Some(position) });
        }
        Self { missing, away, seen_up_to: [Position::START; STREAMS.len()], moved: 0 }
    }

    /// Looks again; whether nothing is missing any more.
    pub(super) async fn look(
        &mut self,
        streams: &mut Streams,
        ledger: &Ledger,
    ) -> Result<bool, DemoError> {
        for (index, stream) in STREAMS.into_iter().enumerate() {
            // While Redis is away or loads its files there is nothing to see.
            let entries = streams.entries(stream, self.seen_up_to[index]).await;
            for entry in entries.unwrap_or_default() {
                self.seen_up_to[index] = entry.position;
                self.found(stream, &entry);
            }
        }
        let events: Vec<Uuid> = self.missing.keys().copied().collect();
        for (event, is_since) in ledger.given(&events, self.away).await? {
            if is_since || self.missing.get(&event).is_some_and(|it| it.position.is_none()) {
                self.missing.remove(&event);
            }
        }
        Ok(self.missing.is_empty())
    }

    fn found(&mut self, stream: &str, entry: &Entry) {
        let Ok(event) = entry.event_id.parse::<Uuid>() else { return };
        if self.missing.get(&event).is_some_and(|expected| expected.stream == stream) {
            let expected = self.missing.remove(&event).and_then(|expected| expected.position);
            let is_moved = expected.is_some_and(|position| position != entry.position);
            self.moved += u64::from(is_moved);
        }
    }

    /// How many were found under another ID.
    pub(super) fn moved(&self) -> u64 {
        self.moved
    }

    /// How many are missing of each stream, with an example.
    pub(super) fn describe(&self) -> String {
        let of = |stream| self.missing.values().filter(|it| it.stream == stream).count() as u64;
        let example = self.missing.keys().next().map(|id| format!(", such as event {id}"));
        format!("{}{}", of_each(STREAMS.map(of)), example.unwrap_or_default())
    }
}

/// What was held and still needed, with its event; not what is no event of the shop's.
pub(super) fn needed(held: &Held) -> impl Iterator<Item = (&'static str, Uuid, Position)> {
    let of = |(stream, held): (&'static str, &HeldStream)| -> Vec<_> {
        let events = held.unacknowledged().map(|entry| (entry.event_id.parse(), entry.position));
        events.filter_map(|(id, position)| Some((stream, id.ok()?, position))).collect()
    };
    STREAMS.into_iter().zip(&held.streams).flat_map(of)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::demo::journal::{Event, Row};

    fn entry(n: u64, id: Uuid) -> Entry {
        Entry { position: Position { ms: 1, n }, event_id: id.to_string() }
    }

    #[test]
    fn what_comes_back_under_another_id_is_found_and_counted() {
        let ids = [(); 3].map(|()| Uuid::new_v4());
        let mut held = Held::default();
        held.streams[0].entries = vec![entry(1, ids[0]), entry(2, ids[1])];
        let event = |id, stream| Event { id, stream, key: 1, sequence: 1, row: Row::Order(1) };
        let committed = |id, stream| Record { event: event(id, stream), fate: Fate::Committed };
        let records = [committed(ids[1], "orders"), committed(ids[2], "payments")];
        let now = SystemTime::now();
        let mut awaited = Awaited::new(&held, &records, Away { begun: now, over: now });
        assert!(awaited.describe().starts_with("2 of orders, 1 of payments, such as event "));
        awaited.found("orders", &entry(1, ids[0]));
        awaited.found("payments", &entry(2, ids[1]));
        assert_eq!((awaited.missing.len(), awaited.moved()), (2, 0), "not in another stream");
        awaited.found("orders", &entry(9, ids[1]));
        awaited.found("payments", &entry(9, ids[2]));
        assert_eq!((awaited.missing.len(), awaited.moved()), (0, 1));
    }
}
