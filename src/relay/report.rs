//! What the relay says of streams: one line per event, the same words in log and status.

use std::ops::RangeInclusive;

use tracing::{info, warn};

use crate::position::Position;
use crate::stream::Place;
use crate::telemetry::{Cause, Loss, Metrics};

/// Losses logged stream by stream at a time; the rest are summed up in one line.
const LINES: usize = 20;

/// Losses found at the same time.
#[derive(Debug, Default)]
pub(super) struct Losses {
    streams: usize,
    entries: u64,
    kinds: Vec<Loss>,
}

impl Losses {
    /// One stream lost this range, or, if `everything` went, all did. Returns the sentence for people.
    pub(super) fn add(
        &mut self,
        stream: &str,
        place: &Place,
        everything: bool,
        lost: &RangeInclusive<u64>,
    ) -> String {
        let (first, last) = (*lost.start(), *lost.end());
        let entries = last - first + 1;
        self.streams += 1;
        self.entries += entries;
        let kind = match place {
            Place::At(at) if *at != Position::START => Loss::Tail,
            _ if everything => Loss::All,
            _ => Loss::Stream,
        };
        self.kinds.push(kind);
        let sentence = format!(
            "Redis lost entries {first} to {last} of stream {stream}; putting them back from Postgres"
        );
        if self.streams <= LINES {
            warn!(stream, kind = kind.as_str(), first, last, entries, "{sentence}");
        }
        sentence
    }

    /// All have been told. Everything is lost once, however many streams there were and however many
    /// looks it took to see: `all_told` says that it has been counted.
    pub(super) fn end(self, metrics: &Metrics, all_told: &mut bool) {
        for kind in self.kinds {
            if kind != Loss::All || !std::mem::replace(all_told, true) {
                metrics.lost(kind);
            }
        }
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
pub(super) fn state(stream: &str, state: &str, cause: Option<Cause>, reason: Option<&str>) {
    match reason {
        Some(reason) if state != "rebuilding" => {
            let cause = cause.map(Cause::as_str);
            warn!(stream, state, cause, "stream {stream} is {state}: {reason}");
        }
        _ => info!(stream, state, "stream {stream} is {state}"),
    }
}

/// Somebody holds a stream.
pub(super) fn paused(stream: &str) {
    warn!(
        stream,
        state = "paused",
        "stream {stream} is paused: its rows are sealed and wait in Postgres; `outbox-relay resume \
         {stream}` lets it flow again"
    );
}

/// Nobody holds it any more.
pub(super) fn resumed(stream: &str) {
    info!(stream, "stream {stream} flows again: it was resumed");
}

/// Why a stream with somebody else's entry is halted, and what ends it.
pub(super) fn foreign(stream: &str, key: &str, at: Position) -> String {
    format!(
        "key {key} in Redis ends with entry {at}, which the relay did not write, or whose row Postgres lost; \
         `outbox-relay rebuild {stream}` lists what is not ours and fills it again from Postgres"
    )
}

/// Why a stream whose key holds something else is halted, and what ends it.
pub(super) fn wrong_type(stream: &str, key: &str, kind: &str) -> String {
    format!(
        "key {key} in Redis holds a {kind}, not a stream; rename it to keep it, or replace it with \
         `outbox-relay rebuild {stream}`"
    )
}

/// Why a stream whose row is gone is halted.
pub(super) fn gone(stream: &str, n: u64) -> String {
    format!(
        "entry {n} is sealed but its row is no longer in outbox.entry; restore the row, whose id is in \
         outbox.batch, or go on without it with `outbox-relay rebuild {stream}`"
    )
}

/// Why a stream waits for room.
pub(super) fn refused(why: &str) -> String {
    format!("Redis takes no writes now ({why}); give it room, the relay tries again by itself")
}
