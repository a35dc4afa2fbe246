//! A snapshot that Redis has written, and what was appended after it.

use std::time::Duration;

use redis::RedisResult;

use super::journal::STREAMS;
use super::streams::{self, Entry, Streams};
use crate::text::grouped;

/// SAVE answers when all is on disk.
const SAVE_LIMIT: Duration = Duration::from_secs(60);

/// Nobody can write for so long at most, whatever becomes of us.
const PAUSE_MS: u64 = 5000;

/// What the file `dump.rdb` of Redis holds.
pub(super) struct Snapshot {
    lengths: [u64; STREAMS.len()],
    last: [String; STREAMS.len()],
}

/// The entries that came after a snapshot: what Redis loses when it begins again from that.
pub(super) struct Tail {
    first: [u64; STREAMS.len()],
    entries: [Vec<Entry>; STREAMS.len()],
}

impl Snapshot {
    /// Lets Redis write one, while nobody can append, so that it is known what is in it.
    pub(super) async fn save(streams: &mut Streams) -> RedisResult<Self> {
        let mut connection = streams::connect_for(streams.url(), SAVE_LIMIT).await?;
        pause_writes(streams).await?;
        let lengths = streams.lengths().await?;
        let mut last = STREAMS.map(|_| String::new());
        for (last, stream) in last.iter_mut().zip(STREAMS) {
            *last = streams.last_position(stream).await?;
        }
        redis::cmd("SAVE").exec_async(&mut connection).await?;
        redis::cmd("CLIENT").arg("UNPAUSE").exec_async(&mut connection).await?;
        Ok(Self { lengths, last })
    }

    pub(super) fn total(&self) -> u64 {
        self.lengths.iter().sum()
    }

    /// What came after it. Nobody can append from now on, for [`PAUSE_MS`] or until Redis ends.
    pub(super) async fn last_tail(&self, streams: &mut Streams) -> RedisResult<Tail> {
        pause_writes(streams).await?;
        self.tail(streams).await
    }

    /// What came after it.
    pub(super) async fn tail(&self, streams: &mut Streams) -> RedisResult<Tail> {
        let mut entries = STREAMS.map(|_| Vec::new());
        for ((entries, stream), last) in entries.iter_mut().zip(STREAMS).zip(&self.last) {
            *entries = streams.entries(stream, last).await?;
        }
        Ok(Tail { first: self.lengths.map(|length| length + 1), entries })
    }
}

async fn pause_writes(streams: &mut Streams) -> RedisResult<()> {
    let mut connection = streams::connect(streams.url()).await?;
    let mut command = redis::cmd("CLIENT");
    command.arg("PAUSE").arg(PAUSE_MS).arg("WRITE").exec_async(&mut connection).await
}

impl Tail {
    pub(super) fn count(&self) -> u64 {
        self.entries.iter().map(|entries| entries.len() as u64).sum()
    }

    /// The ID of an event in it.
    pub(super) fn example(&self) -> Option<&str> {
        self.entries.iter().flatten().next().map(|entry| entry.event_id.as_str())
    }

    /// Whether `later` has all of it at its beginning, under the same IDs and in the same order.
    pub(super) fn is_start_of(&self, later: &Self) -> bool {
        self.entries.iter().zip(&later.entries).all(|(was, is)| is.starts_with(was))
    }

    /// Which entries it has of each stream.
    pub(super) fn describe(&self) -> String {
        let of = |((entries, first), stream): ((&Vec<Entry>, &u64), &str)| {
            let (count, first) = (entries.len() as u64, *first);
            match count {
                0 => format!("none of {stream}"),
                1 => format!("{} of {stream}", grouped(first)),
                _ => format!("{} to {} of {stream}", grouped(first), grouped(first + count - 1)),
            }
        };
        let parts = self.entries.iter().zip(&self.first).zip(STREAMS).map(of);
        parts.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(orders: &[&str], payments: &[&str]) -> Tail {
        let entry =
            |event: &&str| Entry { position: format!("1-{event}"), event_id: event.to_string() };
        let entries = [orders, payments].map(|events| events.iter().map(entry).collect());
        Tail { first: [1001, 7], entries }
    }

    #[test]
    fn a_tail_is_back_when_all_of_it_comes_first_again() {
        let was = tail(&["a", "b"], &["c"]);
        assert!(was.is_start_of(&tail(&["a", "b", "d"], &["c"])));
        assert!(!was.is_start_of(&tail(&["a"], &["c"])));
        assert!(!was.is_start_of(&tail(&["b", "a"], &["c"])));
        assert!(!was.is_start_of(&tail(&["a", "x", "b"], &["c"])));
    }

    #[test]
    fn a_tail_is_described_by_the_numbers_of_its_entries() {
        assert_eq!(tail(&["a", "b"], &["c"]).describe(), "1,001 to 1,002 of orders, 7 of payments");
        assert_eq!(tail(&[], &["c", "d"]).describe(), "none of orders, 7 to 8 of payments");
    }
}
