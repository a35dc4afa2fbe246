//! The shop's journal against the streams: what is lost, twice, out of order, or should not be.
//!
//! Pure: everything has been read before.

use std::collections::{HashMap, HashSet};

use super::journal::{Event, Fate, Record, STREAMS};
use super::streams::Entry;

/// The counts of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) committed: u64,
    pub(super) rolled_back: u64,
    /// Nobody knows what became of them.
    pub(super) unknown: u64,
    /// Committed events that are in the stream.
    pub(super) present: u64,
    /// Committed events that are not.
    pub(super) lost: u64,
    /// Entries beyond the first of their event.
    pub(super) duplicated: u64,
    /// Entries that come after a later event of their key.
    pub(super) out_of_order: u64,
    /// Entries without a committed event: rolled back, or never written by the shop.
    pub(super) ghosts: u64,
    /// Entries that a worker had seen under another ID, so that it could not dedupe on that.
    pub(super) renumbered: u64,
    /// Committed events that the workers have processed.
    pub(super) processed: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            committed: self.committed + other.committed,
            rolled_back: self.rolled_back + other.rolled_back,
            unknown: self.unknown + other.unknown,
            present: self.present + other.present,
            lost: self.lost + other.lost,
            duplicated: self.duplicated + other.duplicated,
            out_of_order: self.out_of_order + other.out_of_order,
            ghosts: self.ghosts + other.ghosts,
            renumbered: self.renumbered + other.renumbered,
            processed: self.processed + other.processed,
        }
    }
}

/// The entry ID under which the workers processed each event, by the event's ID.
pub(super) type Processed = HashMap<String, String>;

/// The counts of every stream, in the order of [`STREAMS`].
pub(super) fn reconcile(
    records: &[Record],
    entries: &[Vec<Entry>; STREAMS.len()],
    processed: &Processed,
) -> [Counts; STREAMS.len()] {
    let mut all = [Counts::default(); STREAMS.len()];
    for ((counts, stream), entries) in all.iter_mut().zip(STREAMS).zip(entries) {
        let records = records.iter().filter(|record| record.event.stream == stream);
        *counts = reconcile_stream(records, entries, processed);
    }
    all
}

fn reconcile_stream<'a>(
    records: impl Iterator<Item = &'a Record>,
    entries: &[Entry],
    processed: &Processed,
) -> Counts {
    let mut counts = Counts::default();
    let mut committed: HashMap<String, &Event> = HashMap::new();
    for record in records {
        match record.fate {
            Fate::Committed => {
                let id = record.event.id.to_string();
                counts.processed += u64::from(processed.contains_key(&id));
                committed.insert(id, &record.event);
            }
            Fate::RolledBack => counts.rolled_back += 1,
            Fate::Unknown => counts.unknown += 1,
        }
    }
    count_entries(&mut counts, &committed, entries, processed);
    counts.committed = committed.len() as u64;
    counts.lost = counts.committed - counts.present;
    counts
}

fn count_entries(
    counts: &mut Counts,
    committed: &HashMap<String, &Event>,
    entries: &[Entry],
    processed: &Processed,
) {
    let mut seen: HashSet<&str> = HashSet::new();
    let mut latest: HashMap<i64, i32> = HashMap::new();
    for entry in entries {
        let Some(event) = committed.get(&entry.event_id) else {
            counts.ghosts += 1;
            continue;
        };
        if !seen.insert(&entry.event_id) {
            counts.duplicated += 1;
            continue;
        }
        counts.present += 1;
        let latest = latest.entry(event.key).or_default();
        if event.sequence < *latest {
            counts.out_of_order += 1;
        }
        *latest = event.sequence.max(*latest);
        let position = processed.get(&entry.event_id);
        if position.is_some_and(|position| *position != entry.position) {
            counts.renumbered += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::demo::journal::Row;

    fn record(stream: &'static str, key: i64, sequence: i32, fate: Fate) -> Record {
        let event = Event { id: Uuid::new_v4(), stream, key, sequence, row: Row::Order(key) };
        Record { event, fate }
    }

    fn entry(number: usize, record: &Record) -> Entry {
        Entry { position: format!("1-{number}"), event_id: record.event.id.to_string() }
    }

    /// The records `chosen` as entries of the stream `orders`.
    fn orders(records: &[Record], chosen: &[usize]) -> Counts {
        let numbered = chosen.iter().enumerate();
        let entries = numbered.map(|(n, index)| entry(n, &records[*index])).collect();
        reconcile(records, &[entries, Vec::new()], &Processed::new())[0]
    }

    #[test]
    fn all_present_in_order() {
        let records = [1, 2, 3].map(|n| record("orders", 7, n, Fate::Committed));
        let expected = Counts { committed: 3, present: 3, ..Counts::default() };
        assert_eq!(orders(&records, &[0, 1, 2]), expected);
    }

    #[test]
    fn a_hole_is_lost_and_a_repeat_is_duplicated() {
        let records = [1, 2, 3].map(|n| record("orders", 7, n, Fate::Committed));
        let expected =
            Counts { committed: 3, present: 2, lost: 1, duplicated: 1, ..Counts::default() };
        assert_eq!(orders(&records, &[0, 2, 0]), expected);
    }

    #[test]
    fn order_counts_within_a_key_only() {
        let key = |key, n| record("orders", key, n, Fate::Committed);
        let records = [key(1, 1), key(1, 2), key(2, 1), key(2, 2)];
        assert_eq!(orders(&records, &[2, 0, 3, 1]).out_of_order, 0);
        assert_eq!(orders(&records, &[1, 2, 0, 3]).out_of_order, 1);
    }

    #[test]
    fn what_was_rolled_back_or_belongs_elsewhere_is_a_ghost() {
        let records = [
            record("orders", 1, 1, Fate::RolledBack),
            record("orders", 1, 1, Fate::Unknown),
            record("payments", 1, 1, Fate::Committed),
        ];
        let expected = Counts { rolled_back: 1, unknown: 1, ghosts: 3, ..Counts::default() };
        assert_eq!(orders(&records, &[0, 1, 2]), expected);
        let lost = reconcile(&records, &[Vec::new(), Vec::new()], &Processed::new())[1].lost;
        assert_eq!(lost, 1);
    }

    #[test]
    fn another_id_than_the_workers_saw_is_renumbered() {
        let records = [1, 2].map(|n| record("orders", 7, n, Fate::Committed));
        let seen =
            |n: usize, position: &str| (records[n].event.id.to_string(), position.to_owned());
        let processed = Processed::from([seen(0, "1-0"), seen(1, "1-9")]);
        let entries = [0, 1].map(|n| entry(n, &records[n])).to_vec();
        let counts = reconcile(&records, &[entries, Vec::new()], &processed)[0];
        assert_eq!((counts.processed, counts.renumbered), (2, 1));
    }
}
