//! Looks whether Redis still has what it had accepted, also where nothing is being written.

use std::sync::Arc;

use tokio::time::Instant;

use super::progress::Progress;
use super::servers::Redis;
use crate::error::{Kind, Result};
use crate::position::Position;
use crate::stream::{Claim, Owner, Place, Shard};

/// One stream, and what it had at least when it was asked about.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) stream: Arc<str>,
    pub(super) epoch: u64,
    /// Where Redis had it, as last confirmed.
    pub(super) at: Position,
    /// Last position that was on its way.
    pub(super) sent: Position,
}

/// What an audit found.
#[derive(Debug)]
pub(super) struct Audit {
    /// When it began.
    pub(super) begun: Instant,
    /// What came of claiming each primary; one without memory for an identity is left out.
    pub(super) claims: Vec<(Shard, Claim)>,
    /// Where each stream is.
    pub(super) places: Vec<(Asked, Place)>,
}

impl Asked {
    pub(super) fn new(stream: &Arc<str>, progress: &Progress) -> Self {
        let (at, sent) = (progress.at(), progress.sent());
        Self { stream: stream.clone(), epoch: progress.epoch(), at, sent }
    }

    /// Whether `place`, some moment between asking and now, is as it should be: not before what was
    /// confirmed when it was asked about, and not beyond what has been sent by now. If it is not
    /// ours, the next append finds out.
    pub(super) fn expects(&self, place: &Place, sent: Position) -> bool {
        match place {
            Place::Missing => self.at == Position::START,
            Place::At(at) => self.at <= *at && *at <= sent,
            Place::WrongType(_) => false,
        }
    }
}

/// Asks for all streams at once.
pub(super) async fn audit(redis: &dyn Redis, owner: &Owner, asked: Vec<Asked>) -> Result<Audit> {
    let begun = Instant::now();
    let claims = claim(redis, owner, redis.shards()).await?;
    let streams: Vec<_> = asked.iter().map(|asked| asked.stream.clone()).collect();
    let places = redis.positions(&streams).await?;
    Ok(Audit { begun, claims, places: asked.into_iter().zip(places).collect() })
}

/// Claims primaries; those that had no identity have one now, but for one without memory for it.
///
/// # Errors
/// `Busy` if none could be claimed for want of memory.
pub(super) async fn claim(
    redis: &dyn Redis,
    owner: &Owner,
    shards: impl IntoIterator<Item = Shard>,
) -> Result<Vec<(Shard, Claim)>> {
    let (mut claims, mut refused) = (Vec::new(), None);
    for shard in shards {
        match redis.claim(shard, owner).await {
            Err(busy) if busy.kind() == Kind::Busy => refused = Some(busy),
            claim => claims.push((shard, claim?)),
        }
    }
    match refused {
        Some(busy) if claims.is_empty() => Err(busy),
        _ => Ok(claims),
    }
}
