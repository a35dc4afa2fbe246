//! Which Redis stream a row goes to, where a stream has partitions. Pure.
//!
//! A key goes to the partition that is the CRC-16/XMODEM of its bytes, modulo their number, as
//! `outbox.partition_of` computes it; so a key of one of 16 stays, or moves to one new partition, where there
//! are 32. A row without a key goes by its id.

use std::collections::HashMap;
use std::sync::Arc;

use crate::entry::Entry;
use crate::hash::crc16;

/// Streams with several partitions.
#[derive(Debug, Default)]
pub struct Partitions(HashMap<Arc<str>, Vec<Arc<str>>>);

impl Partitions {
    /// From now on the rows of `stream` go to `count` partitions; to the stream itself if that is 1.
    pub fn set(&mut self, stream: &Arc<str>, count: u32) {
        match count {
            0 | 1 => drop(self.0.remove(stream)),
            _ => {
                let names = (0..count).map(|n| format!("{stream}:{{{n}}}").into());
                self.0.insert(stream.clone(), names.collect());
            }
        }
    }

    /// The Redis streams of a stream, as rows name it.
    pub fn names(&self, stream: &Arc<str>) -> Vec<Arc<str>> {
        self.0.get(stream).cloned().unwrap_or_else(|| vec![stream.clone()])
    }

    /// The Redis stream that a row goes to.
    pub fn of<'a>(&'a self, entry: &'a Entry) -> &'a Arc<str> {
        if self.0.is_empty() {
            return &entry.stream;
        }
        let Some(names) = self.0.get(&entry.stream) else { return &entry.stream };
        let number = match &entry.key {
            Some(key) => u64::from(crc16(key.as_bytes())),
            None => entry.id.unsigned_abs(),
        };
        &names[(number % names.len() as u64) as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: i64, stream: &str, key: Option<&str>) -> Entry {
        Entry {
            id,
            event_id: uuid::Uuid::nil(),
            stream: stream.into(),
            key: key.map(Into::into),
            kind: None,
            payload: "{}".into(),
            headers: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_key_has_one_partition_and_rows_without_one_take_turns() {
        let mut partitions = Partitions::default();
        partitions.set(&"orders".into(), 16);
        let of = |row: Entry| partitions.of(&row).to_string();
        // CRC-16/XMODEM of 123456789 is 0x31C3.
        assert_eq!(of(row(1, "orders", Some("123456789"))), "orders:{3}");
        assert_eq!(of(row(7, "orders", Some("123456789"))), "orders:{3}");
        assert_eq!(of(row(18, "orders", None)), "orders:{2}");
        assert_eq!(of(row(1, "mail", Some("123456789"))), "mail");
    }

    #[test]
    fn a_multiple_leaves_a_key_where_it_was_or_moves_it_to_a_new_partition() {
        let (mut few, mut many) = (Partitions::default(), Partitions::default());
        few.set(&"s".into(), 3);
        many.set(&"s".into(), 12);
        let old = few.names(&"s".into());
        for key in 0..1_000 {
            let row = row(1, "s", Some(&key.to_string()));
            let (was, is) = (few.of(&row), many.of(&row));
            assert!(was == is || !old.contains(is), "key {key} went from {was} to {is}");
        }
        many.set(&"s".into(), 1);
        assert_eq!(&**many.of(&row(1, "s", Some("1"))), "s");
    }
}
