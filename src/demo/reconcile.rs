//! The shop's journal against what the workers have done: what is lost, out of order, or should not be.
//!
//! Pure: everything has been read before.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::held::Held;
use super::journal::{Event, Fate, Record, STREAMS};
use super::ledger::{Book, Processed, Sighting};

/// The counts of one stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) committed: u64,
    pub(super) rolled_back: u64,
    /// Nobody knows what became of them.
    pub(super) unknown: u64,
    /// Committed events that the workers have processed; their table has no place for a second time.
    pub(super) processed: u64,
    /// Committed events that they have not.
    pub(super) lost: u64,
    /// Processed or given without being a committed event: rolled back, or never written by the shop.
    pub(super) ghosts: u64,
    /// Events whose entry comes after the one of a later event of their key.
    pub(super) out_of_order: u64,
    /// Events that were seen under two IDs, so that nobody could dedupe on that.
    pub(super) renumbered: u64,
    /// Entries that a worker was given although their event was done, and skipped.
    pub(super) repeats: u64,
    /// Entries that are still in Redis.
    pub(super) left: u64,
    /// Of these, what the workers have not acknowledged although nothing was left to do.
    pub(super) stuck: u64,
}

impl std::ops::Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            committed: self.committed + other.committed,
            rolled_back: self.rolled_back + other.rolled_back,
            unknown: self.unknown + other.unknown,
            processed: self.processed + other.processed,
            lost: self.lost + other.lost,
            ghosts: self.ghosts + other.ghosts,
            out_of_order: self.out_of_order + other.out_of_order,
            renumbered: self.renumbered + other.renumbered,
            repeats: self.repeats + other.repeats,
            left: self.left + other.left,
            stuck: self.stuck + other.stuck,
        }
    }
}

/// The counts of every stream, in the order of [`STREAMS`]; `left` is what Redis holds at the end.
pub(super) fn reconcile(records: &[Record], book: &Book, left: &Held) -> [Counts; STREAMS.len()] {
    let mut all = [Counts::default(); STREAMS.len()];
    for (index, (counts, stream)) in all.iter_mut().zip(STREAMS).enumerate() {
        let mut committed: HashMap<Uuid, &Event> = HashMap::new();
        for record in records.iter().filter(|record| record.event.stream == stream) {
            match record.fate {
                Fate::Committed => drop(committed.insert(record.event.id, &record.event)),
                Fate::RolledBack => counts.rolled_back += 1,
                Fate::Unknown => counts.unknown += 1,
            }
        }
        counts.committed = committed.len() as u64;
        count_processed(counts, &committed, book.processed.iter().filter(|it| it.stream == stream));
        count_sightings(counts, book.sightings.iter().filter(|it| it.stream == stream));
        (counts.left, counts.stuck) = (left.lengths()[index], left.needed()[index]);
    }
    all
}

fn count_processed<'a>(
    counts: &mut Counts,
    committed: &HashMap<Uuid, &Event>,
    processed: impl Iterator<Item = &'a Processed>,
) {
    // In the order of their entries: two workers need not be done in that.
    let mut processed: Vec<&Processed> = processed.collect();
    processed.sort_by_key(|processed| processed.position);
    let mut latest: HashMap<i64, i32> = HashMap::new();
    for processed in processed {
        let Some(event) = committed.get(&processed.event_id) else {
            counts.ghosts += 1;
            continue;
        };
        counts.processed += 1;
        let latest = latest.entry(event.key).or_default();
        if event.sequence < *latest {
            counts.out_of_order += 1;
        }
        *latest = event.sequence.max(*latest);
    }
    counts.lost = counts.committed.saturating_sub(counts.processed);
}

fn count_sightings<'a>(counts: &mut Counts, sightings: impl Iterator<Item = &'a Sighting>) {
    let mut ids: HashMap<Uuid, HashSet<&str>> = HashMap::new();
    let mut strange: HashSet<&str> = HashSet::new();
    for sighting in sightings {
        match sighting.event_id {
            Some(event) => drop(ids.entry(event).or_default().insert(&sighting.entry_id)),
            None => drop(strange.insert(&sighting.entry_id)),
        }
        counts.repeats += u64::from(sighting.again);
    }
    counts.ghosts += strange.len() as u64;
    counts.renumbered = ids.values().filter(|ids| ids.len() > 1).count() as u64;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::journal::Row;
    use crate::demo::streams::Entry;
    use crate::position::Position;

    fn record(stream: &'static str, key: i64, sequence: i32, fate: Fate) -> Record {
        let event = Event { id: Uuid::new_v4(), stream, key, sequence, row: Row::Order(key) };
        Record { event, fate }
    }

    fn committed<const N: usize>(of: [(i64, i32); N]) -> [Record; N] {
        of.map(|(key, sequence)| record("orders", key, sequence, Fate::Committed))
    }

    fn sighting(record: &Record, entry_id: &str, again: bool) -> Sighting {
        let event_id = Some(record.event.id);
        Sighting { stream: "orders".to_owned(), entry_id: entry_id.to_owned(), event_id, again }
    }

    /// The records `chosen` as the entries 1-1, 1-2, … of the stream `orders`, processed backwards.
    fn orders(records: &[Record], chosen: &[usize]) -> Counts {
        let processed = |(n, index): (u64, &usize)| Processed {
            event_id: records[*index].event.id,
            stream: "orders".to_owned(),
            position: Position { ms: 1, n },
        };
        let mut processed: Vec<Processed> = (1..).zip(chosen).map(processed).collect();
        processed.reverse();
        let book = Book { processed, ..Book::default() };
        reconcile(records, &book, &Held::default())[0]
    }

    #[test]
    fn all_processed_in_order() {
        let records = committed([(7, 1), (7, 2), (7, 3)]);
        let expected = Counts { committed: 3, processed: 3, ..Counts::default() };
        assert_eq!(orders(&records, &[0, 1, 2]), expected);
    }

    #[test]
    fn what_was_never_processed_is_lost() {
        let records = committed([(7, 1), (7, 2), (7, 3)]);
        let expected = Counts { committed: 3, processed: 2, lost: 1, ..Counts::default() };
        assert_eq!(orders(&records, &[0, 2]), expected);
    }

    #[test]
    fn order_counts_within_a_key_only() {
        let records = committed([(1, 1), (1, 2), (2, 1), (2, 2)]);
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
        let lost = reconcile(&records, &Book::default(), &Held::default())[1].lost;
        assert_eq!(lost, 1);
    }

    #[test]
    fn what_has_no_event_is_a_ghost_however_often_it_is_given() {
        let records = committed([(7, 1)]);
        let strange = Sighting { event_id: None, ..sighting(&records[0], "1-5", false) };
        let book = Book { processed: Vec::new(), sightings: vec![strange.clone(), strange] };
        assert_eq!(reconcile(&records, &book, &Held::default())[0].ghosts, 1);
    }

    #[test]
    fn the_same_entry_again_is_a_repeat_and_another_id_is_a_fault() {
        let records = committed([(7, 1), (7, 2)]);
        let [one, two] = records.each_ref();
        let sightings = vec![
            sighting(one, "1-1", false),
            sighting(two, "1-2", false),
            sighting(one, "1-1", true),
            sighting(one, "1-1", true),
        ];
        let count = |sightings| {
            let book = Book { processed: Vec::new(), sightings };
            let counts = reconcile(&records, &book, &Held::default())[0];
            (counts.repeats, counts.renumbered)
        };
        assert_eq!(count(sightings.clone()), (2, 0));
        let moved = [sightings, vec![sighting(two, "1-9", true)]].concat();
        assert_eq!(count(moved), (3, 1));
    }

    #[test]
    fn what_is_left_is_counted_and_what_nobody_acknowledged_is_stuck() {
        let entry = |n| Entry { position: Position { ms: 1, n }, event_id: String::new() };
        let mut left = Held::default();
        left.streams[1].entries = vec![entry(1), entry(2)];
        left.streams[1].delivered = Position { ms: 1, n: 1 };
        let [orders, payments] = reconcile(&[], &Book::default(), &left);
        assert_eq!(orders, Counts::default());
        assert_eq!((payments.left, payments.stuck), (2, 1));
    }
}
