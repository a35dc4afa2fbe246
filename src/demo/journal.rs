//! The shop's own record of every event and its fate: the truth of the reconciliation.
//!
//! A text file, outside both servers, appended when the fate of a transaction is known. It never
//! reads a table of the relay. A later line about an event replaces an earlier one.

use std::collections::HashMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

/// The streams of the shop.
pub(super) const STREAMS: [&str; 2] = ["orders", "payments"];

/// What became of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Committed,
    RolledBack,
    /// The answer to its commit was lost.
    Unknown,
}

/// The business row that stands or falls with an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Row {
    Order(i64),
    Payment(i64),
}

/// An event that the shop has written, or would have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    pub(super) id: Uuid,
    pub(super) stream: &'static str,
    /// The order it is about.
    pub(super) key: i64,
    /// 1, 2, 3 … for each stream and key, given under the lock of the order's row.
    pub(super) sequence: i32,
    pub(super) row: Row,
}

/// A line of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) event: Event,
    pub(super) fate: Fate,
}

/// The journal while it is written.
pub(super) struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

impl Journal {
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().create_new(true).append(true).open(&path)?;
        Ok(Self { path, file: Mutex::new(file) })
    }

    /// Writes down the fate of all events of one transaction.
    pub(super) fn append(&self, events: &[Event], fate: Fate) -> io::Result<()> {
        let record = |event: &Event| Record { event: event.clone(), fate };
        let lines: String = events.iter().map(|event| format!("{}\n", record(event))).collect();
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.write_all(lines.as_bytes())
    }

    /// All events with their last known fate, in the order in which they were first written.
    pub(super) fn read(&self) -> io::Result<Vec<Record>> {
        read(&self.path)
    }
}

fn read(path: &Path) -> io::Result<Vec<Record>> {
    let mut records: Vec<Record> = Vec::new();
    let mut known: HashMap<Uuid, usize> = HashMap::new();
    // A line without its end is still being written.
    let text = std::fs::read_to_string(path)?;
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let record = Record::parse(line).ok_or_else(|| {
            let text = format!("{}: unreadable line {line:?}", path.display());
            io::Error::new(io::ErrorKind::InvalidData, text)
        })?;
        match known.get(&record.event.id) {
            Some(&index) => records[index] = record,
            None => {
                known.insert(record.event.id, records.len());
                records.push(record);
            }
        }
    }
    Ok(records)
}

impl Record {
    fn parse(line: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split('\t').collect();
        let &[fate, id, stream, key, sequence, table, row] = fields.as_slice() else {
            return None;
        };
        let row = row.parse().ok()?;
        let event = Event {
            id: id.parse().ok()?,
            stream: STREAMS.into_iter().find(|name| *name == stream)?,
            key: key.parse().ok()?,
            sequence: sequence.parse().ok()?,
            row: match table {
                "order" => Row::Order(row),
                "payment" => Row::Payment(row),
                _ => return None,
            },
        };
        let fate = match fate {
            "committed" => Fate::Committed,
            "rolled-back" => Fate::RolledBack,
            "unknown" => Fate::Unknown,
            _ => return None,
        };
        Some(Self { event, fate })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fate = match self.fate {
            Fate::Committed => "committed",
            Fate::RolledBack => "rolled-back",
            Fate::Unknown => "unknown",
        };
        let (table, row) = match self.event.row {
            Row::Order(id) => ("order", id),
            Row::Payment(id) => ("payment", id),
        };
        let Event { id, stream, key, sequence, .. } = &self.event;
        write!(f, "{fate}\t{id}\t{stream}\t{key}\t{sequence}\t{table}\t{row}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(row: Row) -> Event {
        Event { id: Uuid::new_v4(), stream: "payments", key: 42, sequence: 2, row }
    }

    #[test]
    fn a_record_survives_the_file() {
        for row in [Row::Order(42), Row::Payment(7)] {
            for fate in [Fate::Committed, Fate::RolledBack, Fate::Unknown] {
                let event = event(row);
                let record = Record { event, fate };
                assert_eq!(Record::parse(&record.to_string()), Some(record));
            }
        }
    }

    #[test]
    fn the_last_line_about_an_event_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let journal = Journal::create(folder.path().join("journal")).expect("a journal");
        let [one, two] = [event(Row::Order(1)), event(Row::Order(2))];
        let both = [one, two];
        journal.append(&both, Fate::Unknown).expect("an append");
        journal.append(&both[..1], Fate::Committed).expect("an append");
        let fates: Vec<Fate> = journal.read().expect("records").iter().map(|r| r.fate).collect();
        assert_eq!(fates, [Fate::Committed, Fate::Unknown]);
    }
}
