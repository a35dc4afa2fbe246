//! What the relay says of streams: one line per event, the same words in log and status.

use std::ops::RangeInclusive;

use tracing::{error, info, warn};

use crate::outbox::{Holds, Purged};
use crate::position::Position;
use crate::stream::{Full, Limits, Place};
use crate::telemetry::{Cause, Loss, Metrics};
use crate::text::{counted, grouped, line};

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
pub(super) fn identity_lost(server: &str) {
    warn!(
        server,
        "Redis lost its identity key, as after FLUSHALL; it was made again and all its streams are looked at"
    );
}

/// Redis is the one it was, at an earlier time.
pub(super) fn gone_back(server: &str) {
    warn!(
        server,
        "Redis went back to an older state, as after a failover or a restart from a snapshot; consumer \
         groups of all its streams are put back"
    );
}

/// Groups of a stream that had lost no entry were put back.
pub(super) fn groups_lost(stream: &str, groups: u64) {
    warn!(
        stream,
        groups,
        kind = Loss::Groups.as_str(),
        "Redis lost the positions of {} of stream {stream}; put back as of the last checkpoint",
        counted(groups, "consumer group", "consumer groups"),
    );
}

/// Somebody removed entries that a group has not acknowledged.
pub(super) fn removed(stream: &str, entries: &RangeInclusive<u64>) {
    error!(stream, cause = Cause::Removed.as_str(), "{}", removed_sentence(stream, entries),);
}

/// That somebody removed entries, and what to do.
pub(super) fn removed_sentence(stream: &str, entries: &RangeInclusive<u64>) -> String {
    format!(
        "somebody removed entries {} to {} of stream {stream} from Redis, and not every consumer group has \
         acknowledged them; `outbox-relay rebuild {stream}` puts them back",
        entries.start(),
        entries.end(),
    )
}

/// What a round of the purge did, if it did something.
pub(super) fn purged(purged: &Purged) {
    if purged.moved > 0 {
        error!(
            rows = purged.moved,
            "{} had no partition of their own, for none could be attached in time; moved into one",
            counted(purged.moved.unsigned_abs(), "row", "rows"),
        );
    }
    if purged.leaves > 0 {
        info!(
            partitions = purged.leaves,
            entries = purged.entries,
            "purged about {} of outbox.entry, older than the retention and acknowledged by all",
            counted(purged.entries.unsigned_abs(), "row", "rows"),
        );
    }
    if purged.log_leaves > 0 {
        info!(partitions = purged.log_leaves, "purged the log of rows that were purged before");
    }
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
pub(super) fn held(stream: &str, holds: &Holds) {
    if !holds.paused.contains(stream) {
        info!(
            stream,
            state = "paused",
            "stream {stream} waits: every consumer group has to acknowledge what came before its partitions \
             changed"
        );
        return;
    }
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

/// Rows of a stream go to other partitions from now on.
pub(super) fn split(stream: &str, before: usize, partitions: u32) {
    info!(
        stream,
        partitions,
        "rows of {stream} go to {} from now on, to {before} before; what goes to new ones waits until every \
         consumer group has acknowledged what came before",
        counted(u64::from(partitions), "partition", "partitions"),
    );
}

/// New partitions of a stream need not wait any more.
pub(super) fn opened(stream: &str) {
    info!(
        stream,
        "every consumer group of {stream} has acknowledged what came before its partitions changed; the new \
         ones flow"
    );
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

/// Characters of a group's name that are told: whoever names groups does not write into logs.
const GROUP: usize = 200;

const REFUSED: &str = "Redis takes no writes now";

/// Why a stream waits for room in Redis.
pub(super) fn refused(why: &str) -> String {
    format!("{REFUSED} ({why}); give it room, the relay tries again by itself")
}

/// Whether this is why a stream waits for room in Redis, in whatever words.
pub(super) fn is_refused(reason: &str) -> bool {
    reason.starts_with(REFUSED)
}

/// Why a stream waits for room of its own.
pub(super) fn full(key: &str, full: &Full, limits: Limits) -> String {
    let limit = match full.bound.as_str() {
        "bytes" => format!("{} bytes (OUTBOX_STREAM_BYTES)", grouped(limits.bytes)),
        _ => format!("{} entries (OUTBOX_STREAM_LIMIT)", grouped(limits.entries)),
    };
    match full.group.as_deref().map(|group| line(group, GROUP)) {
        Some(group) => format!(
            "it has reached its limit of {limit} and waits for consumer group {group} to acknowledge; its \
             rows wait in Postgres. If nobody uses the group any more: XGROUP DESTROY {key} {group}"
        ),
        None => format!(
            "no consumer group: it has reached its limit of {limit} and nobody acknowledges; its rows wait \
             in Postgres. Make a group, or let it lose its oldest entries with OUTBOX_UNGROUPED=trim"
        ),
    }
}
