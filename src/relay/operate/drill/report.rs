//! What was lost, how long it took, and who stumbled.

use std::time::Duration;

use serde::Serialize;

use super::seen::{WatchedConsumer, WatchedGroup};
use super::watch::{Watch, Watched};
use crate::relay::operate::verify::{StreamVerified, Verified};
use crate::stream::View;

/// What a drill found.
#[derive(Debug, Serialize)]
pub struct Drilled {
    /// Nothing was lost, and every consumer that had been at work is back.
    pub ok: bool,
    /// The Redis that was emptied.
    pub redis: String,
    /// Until the relay had noticed, on every primary.
    pub seconds_to_notice: Option<f64>,
    /// Until the last stream was where it had been, with its groups.
    pub seconds_to_rebuild: Option<f64>,
    /// Until a group was first seen to acknowledge more than it had; None if none did meanwhile.
    pub seconds_to_first_acknowledgement: Option<f64>,
    /// Keys that were removed by consent and that nobody puts back.
    pub other_keys_removed: u64,
    /// All streams, by name.
    pub streams: Vec<StreamDrilled>,
}

/// What became of one stream.
#[derive(Debug, Serialize)]
pub struct StreamDrilled {
    /// Its name.
    pub stream: String,
    /// Entries in Redis when it was emptied.
    pub entries_before: u64,
    /// Entries in Redis at the end: fewer where every group has acknowledged them meanwhile.
    pub entries_after: u64,
    /// Entries that some group needs and that are not there.
    pub missing: u64,
    /// Entries that are not what the log says.
    pub different: u64,
    /// Until it was where it had been, with its groups.
    pub seconds_to_rebuild: Option<f64>,
    /// Its consumer groups, by name.
    pub groups: Vec<GroupDrilled>,
}

/// What became of one consumer group.
#[derive(Debug, Serialize)]
pub struct GroupDrilled {
    /// Its name.
    pub group: String,
    /// A checkpoint had it; one that was made after the last checkpoint does not come back.
    pub stored: bool,
    /// It is there, and not before where the relay put it.
    pub back: bool,
    /// Entries that it had acknowledged since the last checkpoint and is given again; None if it was never
    /// stored.
    pub delivered_again: Option<u64>,
    /// Its consumers, by name.
    pub consumers: Vec<ConsumerDrilled>,
}

/// What became of one consumer.
#[derive(Debug, Serialize)]
pub struct ConsumerDrilled {
    /// Its name.
    pub consumer: String,
    /// When it asked again; None if it was not seen to.
    pub back_after_seconds: Option<f64>,
    /// It had asked so long before.
    pub idle_seconds_before: f64,
    /// It had been at work, and did not come back.
    pub stumbled: bool,
}

impl Drilled {
    pub(super) fn new(watch: &Watch, verified: Verified, after: &[View]) -> Self {
        let mut streams = Vec::with_capacity(watch.streams.len());
        for (watched, view) in watch.streams.iter().zip(after) {
            let found = verified.streams.iter().find(|found| *found.stream == *watched.name);
            streams.push(StreamDrilled::new(watched, found, view));
        }
        let whole = watch.streams.iter().filter_map(|stream| stream.whole).max();
        Self {
            ok: verified.ok && streams.iter().all(StreamDrilled::ok),
            redis: watch.ends.server.name(),
            seconds_to_notice: watch.noticed.map(seconds),
            seconds_to_rebuild: whole.or(watch.noticed).map(seconds),
            seconds_to_first_acknowledgement: watch.acknowledged.map(seconds),
            other_keys_removed: watch.others,
            streams,
        }
    }
}

impl StreamDrilled {
    fn new(watched: &Watched, found: Option<&StreamVerified>, after: &View) -> Self {
        let mut groups: Vec<_> =
            watched.groups.iter().map(|group| GroupDrilled::new(group, after)).collect();
        groups.sort_by(|a, b| a.group.cmp(&b.group));
        let different = |found: &StreamVerified| {
            found.duplicate + found.out_of_order + found.altered + found.foreign
        };
        Self {
            stream: watched.name.to_string(),
            entries_before: watched.before.entries,
            entries_after: after.entries,
            missing: found.map_or(watched.before.entries, |found| found.missing),
            different: found.map_or(0, different),
            seconds_to_rebuild: watched.whole.map(seconds),
            groups,
        }
    }

    fn ok(&self) -> bool {
        self.missing + self.different == 0 && self.groups.iter().all(GroupDrilled::ok)
    }
}

impl GroupDrilled {
    fn new(watched: &WatchedGroup, after: &View) -> Self {
        Self {
            group: watched.before.name.clone(),
            stored: watched.stored.is_some(),
            back: watched.is_back(&after.groups),
            delivered_again: watched.again(),
            consumers: watched.consumers.iter().map(ConsumerDrilled::new).collect(),
        }
    }

    fn ok(&self) -> bool {
        self.back && !self.consumers.iter().any(|consumer| consumer.stumbled)
    }
}

impl ConsumerDrilled {
    fn new(watched: &WatchedConsumer) -> Self {
        Self {
            consumer: watched.name.clone(),
            back_after_seconds: watched.back.map(seconds),
            idle_seconds_before: seconds(watched.idle),
            stumbled: watched.expected && watched.back.is_none(),
        }
    }
}

/// To the millisecond.
fn seconds(time: Duration) -> f64 {
    time.as_millis() as f64 / 1_000.0
}
