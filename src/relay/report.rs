//! What the relay says of streams: one line per event, the same words in log and status.

use std::ops::RangeInclusive;

use tracing::{info, warn};

use crate::position::Position;
use crate::stream::Place;

/// Losses logged stream by stream at a time; the rest are summed up in one line.
const LINES: usize = 20;

/// Losses found at the same time.
#[derive(Debug, Default)]
pub(super) struct Losses {
    everything: bool,
    streams: usize,
    entries: u64,
}

impl Losses {
    /// Losses found by one look; `everything` if even the identity key was gone.
    pub(super) fn new(everything: bool) -> Self {
        Self { everything, ..Self::default() }
    }

    /// One stream lost this range.
    pub(super) fn add(&mut self, stream: &str, place: &Place, lost: RangeInclusive<u64>) {
        let entries = lost.end() - lost.start() + 1;
        self.streams += 1;
        self.entries += entries;
        if self.streams > LINES {
            return;
        }
        let kind = match place {
            Place::At(at) if *at != Position::START => "tail",
            _ if self.everything => "all",
            _ => "stream",
        };
        warn!(
            stream,
            kind,
            first = lost.start(),
            last = lost.end(),
            entries,
            "Redis lost entries {} to {} of stream {stream}; putting them back from Postgres",
            lost.start(),
            lost.end(),
        );
    }

    /// All have been told.
    pub(super) fn end(self) {
        if self.streams > 1 {
            warn!(
                streams = self.streams,
                entries = self.entries,
                "Redis lost {} entries of {} streams in all",
                self.entries,
                self.streams,
            );
        }
    }
}

/// The key that says whose Redis this is was gone.
pub(super) fn identity_lost() {
    warn!(
        "Redis lost its identity key, as after FLUSHALL; it was made again and all streams are looked at"
    );
}

/// The server is not the one it was.
pub(super) fn new_life() {
    info!(
        "Redis restarted, changed its replication history or evicted keys; looking at all streams"
    );
}

/// A stream's state changed.
pub(super) fn state(stream: &str, state: &str, reason: Option<&str>) {
    match reason {
        Some(reason) if state != "rebuilding" => {
            warn!(stream, state, "stream {stream} is {state}: {reason}");
        }
        _ => info!(stream, state, "stream {stream} is {state}"),
    }
}

/// Why a stream with somebody else's entry is halted, and what ends it.
pub(super) fn foreign(key: &str, at: Position) -> String {
    format!(
        "key {key:?} in Redis ends with entry {at}, which the relay did not write; move what you \
         need elsewhere and delete the key, then the relay rebuilds the stream from Postgres"
    )
}

/// Why a stream that has more than the log is halted, and what ends it.
pub(super) fn ahead(key: &str, at: Position, sealed: Position) -> String {
    format!(
        "key {key:?} in Redis ends with entry {at}, the log with {sealed}: the relay did not write \
         what is beyond, or Postgres lost its latest commits; move what you need elsewhere and delete \
         the key, then the relay rebuilds the stream from Postgres"
    )
}

/// Why a stream whose key holds something else is halted, and what ends it.
pub(super) fn wrong_type(key: &str, kind: &str) -> String {
    format!(
        "key {key:?} in Redis holds a {kind}, not a stream; rename or delete it, then the relay \
         rebuilds the stream from Postgres"
    )
}

/// Why a stream whose row is gone is halted.
pub(super) fn gone(stream: &str, n: u64) -> String {
    format!(
        "entry {n} of stream {stream} is sealed but its row is no longer in outbox.entry; \
         restore the row, whose id is in outbox.batch"
    )
}

/// Why a stream waits for room.
pub(super) fn refused(why: &str) -> String {
    format!("Redis takes no writes now ({why}); trying again")
}
