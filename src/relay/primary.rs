//! What is known of the primaries of Redis: one, or those of a cluster, each with streams of its own. Pure.

use std::collections::BTreeMap;

use crate::stream::{Canary, Shard};

/// One primary.
#[derive(Debug, Default)]
pub(super) struct Primary {
    /// How far this life of it had got; None while it is not known.
    pub(super) canary: Option<Canary>,
    /// It had no memory for an identity when this session began: that it has none is not news.
    pub(super) nameless: bool,
    /// It is being asked what it has lost.
    pub(super) asking: bool,
}

/// All primaries.
#[derive(Debug, Default)]
pub(super) struct Primaries(BTreeMap<Shard, Primary>);

impl Primaries {
    pub(super) fn new(primaries: impl IntoIterator<Item = (Shard, Primary)>) -> Self {
        Self(primaries.into_iter().collect())
    }

    /// One of them; what nobody knows of is like one of which nothing is known.
    pub(super) fn of(&mut self, shard: Shard) -> &mut Primary {
        self.0.entry(shard).or_default()
    }

    pub(super) fn canary(&self, shard: Shard) -> Option<&Canary> {
        self.0.get(&shard)?.canary.as_ref()
    }

    pub(super) fn shards(&self) -> Vec<Shard> {
        self.0.keys().copied().collect()
    }

    /// There is no other: what it loses is everything.
    pub(super) fn is_one(&self) -> bool {
        self.0.len() <= 1
    }
}
