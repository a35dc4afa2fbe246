//! The writers' own truth: a file per writer, synced to disk before a commit is issued and after its
//! outcome is known, outside of both servers.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use uuid::Uuid;

use crate::support::journal::Fate;

/// A row as its writer noted it down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) event: Uuid,
    pub(crate) stream: String,
    pub(crate) key: Option<String>,
    /// Order within (stream, key), where a lock defines one.
    pub(crate) number: Option<u64>,
    /// How much its payload is filled up with.
    pub(crate) bytes: u64,
    pub(crate) fate: Fate,
}

impl Row {
    pub(crate) fn new(stream: &str, bytes: u64) -> Self {
        let (event, stream) = (Uuid::new_v4(), stream.to_owned());
        Self { event, stream, key: None, number: None, bytes, fate: Fate::Committed }
    }

    /// Its payload follows from what is noted.
    pub(crate) fn payload(&self) -> String {
        let filling = "x".repeat(self.bytes as usize);
        format!("{{\"event\": \"{}\", \"filling\": \"{filling}\"}}", self.event)
    }
}

/// One writer's file.
pub(crate) struct Ledger {
    file: File,
    lines: String,
    transaction: u64,
}

impl Ledger {
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let path = folder.join(format!("{name}.ledger"));
        let file = File::options().create(true).append(true).open(path).unwrap();
        Self { file, lines: String::new(), transaction: 0 }
    }

    pub(crate) fn begin(&mut self) {
        self.transaction += 1;
    }

    /// Rows that the transaction has inserted.
    pub(crate) fn rows(&mut self, rows: &[Row]) {
        for row in rows {
            let number = row.number.map_or("-".to_owned(), |number| number.to_string());
            let key = row.key.as_deref().unwrap_or("-");
            let (transaction, event, stream) = (self.transaction, row.event, &row.stream);
            let bytes = row.bytes;
            let line = format!("row {transaction} {event} {stream} {key} {number} {bytes}");
            writeln!(self.lines, "{line}").unwrap();
        }
    }

    /// A savepoint took these rows back.
    pub(crate) fn undone(&mut self, rows: &[Row]) {
        for row in rows {
            writeln!(self.lines, "undone {}", row.event).unwrap();
        }
    }

    /// The commit is about to be issued.
    pub(crate) fn issue(&mut self) {
        writeln!(self.lines, "issue {}", self.transaction).unwrap();
        self.sync();
    }

    /// What came of it.
    pub(crate) fn end(&mut self, fate: Fate) {
        writeln!(self.lines, "end {} {fate:?}", self.transaction).unwrap();
        self.sync();
    }

    fn sync(&mut self) {
        self.file.write_all(self.lines.as_bytes()).unwrap();
        self.lines.clear();
        self.file.sync_data().unwrap();
    }
}

/// All rows of all writers, read back from disk.
pub(crate) fn read_back(folder: &Path) -> Vec<Row> {
    let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    files.flat_map(|path| parse(&std::fs::read_to_string(path).unwrap())).collect()
}

fn parse(text: &str) -> Vec<Row> {
    let (mut rows, mut fates) = (Vec::new(), HashMap::new());
    let mut undone = std::collections::HashSet::new();
    for line in text.lines() {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ["row", transaction, event, stream, key, number, bytes] => rows.push((
                transaction.to_owned(),
                Row {
                    event: event.parse().unwrap(),
                    stream: stream.to_owned(),
                    key: (key != "-").then(|| key.to_owned()),
                    number: number.parse().ok(),
                    bytes: bytes.parse().unwrap(),
                    fate: Fate::RolledBack,
                },
            )),
            ["undone", event] => _ = undone.insert(event.parse::<Uuid>().unwrap()),
            ["issue", transaction] => _ = fates.insert(transaction.to_owned(), Fate::Unknown),
            ["end", transaction, fate] => {
                let fate = match fate {
                    "Committed" => Fate::Committed,
                    "RolledBack" => Fate::RolledBack,
                    _ => Fate::Unknown,
                };
                fates.insert(transaction.to_owned(), fate);
            }
            _ => panic!("{line:?} is no line of a ledger"),
        }
    }
    let fate = |(transaction, row): (String, Row)| {
        // What was never to be committed cannot have been.
        let fate = fates.get(&transaction).copied().unwrap_or(Fate::RolledBack);
        let fate = if undone.contains(&row.event) { Fate::RolledBack } else { fate };
        Row { fate, ..row }
    };
    rows.into_iter().map(fate).collect()
}

#[test]
fn what_is_noted_down_is_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = Ledger::new(folder.path(), "writer");
    let rows: Vec<Row> = (0..4).map(|bytes| Row::new("orders", bytes)).collect();
    for (row, fate) in rows.iter().zip([Some(Fate::Committed), Some(Fate::Unknown), None]) {
        ledger.begin();
        ledger.rows(std::slice::from_ref(row));
        ledger.issue();
        fate.into_iter().for_each(|fate| ledger.end(fate));
    }
    ledger.begin();
    ledger.rows(&rows[3..]);
    ledger.undone(&rows[3..]);
    ledger.issue();
    ledger.end(Fate::Committed);
    let fates: Vec<Fate> = read_back(folder.path()).iter().map(|row| row.fate).collect();
    assert_eq!(fates, [Fate::Committed, Fate::Unknown, Fate::Unknown, Fate::RolledBack]);
}
