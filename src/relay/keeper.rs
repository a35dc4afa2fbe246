//! Keeps the lease while the session lasts, and the schema in order.

use std::collections::HashSet;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::mpsc::Sender;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::report;
use super::sealer::Leap;
use super::servers::{House, Lease};
use crate::error::{Error, Kind, Result};
use crate::outbox::{Hold, Holds, Missed, Purge, Term, Upkeep};
use crate::telemetry::{Cause, Metrics};

/// How often upkeep looks whether there is something to do.
const UPKEEP: Duration = Duration::from_secs(5);
/// How often it is looked whether something can be purged: ten times within the retention, within these
/// bounds.
const PURGE_OFTEN: Duration = Duration::from_millis(500);
const PURGE_SELDOM: Duration = Duration::from_secs(60);
/// The share of the time that purging may take.
const SHARE: u32 = 20;
/// How often it is asked which streams somebody holds.
const HOLDS: Duration = Duration::from_secs(1);

/// Renews the lease three times within its length. Never ends well: the session ends it.
pub(super) async fn keep(lease: &dyn Lease, term: Term, length: Duration) -> Result<()> {
    loop {
        tokio::time::sleep(length / 3).await;
        lease.keep(term).await?;
    }
}

/// What is done beside the stages, each on a connection of its own.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) hold: Hold,
    pub(super) upkeep: Upkeep,
    pub(super) purge: Purge,
    pub(super) retention: Duration,
}

#[async_trait]
impl House for Keeper {
    async fn keep(
        self: Box<Self>,
        missed: Sender<Missed>,
        held: Sender<Holds>,
        leap: Leap,
        metrics: &Metrics,
    ) -> Result<()> {
        tokio::select! {
            failed = upkeep(self.upkeep, missed, metrics) => failed,
            failed = purge(self.purge, self.retention, leap, metrics) => failed,
            failed = holds(self.hold, held) => failed,
        }
    }
}

/// Tells which streams somebody holds, and how they are to be split, at first and whenever that changes: what
/// the session read when it began may have changed already. Never ends well: the session ends it.
async fn holds(hold: Hold, told: Sender<Holds>) -> Result<()> {
    let mut last: Option<Holds> = None;
    loop {
        if last.as_ref().is_some_and(|holds| !holds.gated.is_empty()) {
            hold.open_partitions().await?.iter().for_each(|stream| report::opened(stream));
        }
        let holds = hold.holds().await?;
        // What is wanted may have been refused for a moment, and what others wait for is looked at until they
        // need not.
        let urgent = !holds.wanted.is_empty() || !holds.closing.is_empty();
        if last.as_ref() != Some(&holds) || urgent {
            last = Some(holds.clone());
            let ended = |_| Error::new(Kind::Internal, "appending ended before upkeep");
            told.send(holds).await.map_err(ended)?;
        }
        tokio::time::sleep(HOLDS).await;
    }
}

/// Purges what is older than `retention` and needed by nobody. Never ends well: the session ends it.
async fn purge(purge: Purge, retention: Duration, leap: Leap, metrics: &Metrics) -> Result<()> {
    let every = (retention / 10).clamp(PURGE_OFTEN, PURGE_SELDOM);
    let mut dropped = Instant::now();
    let mut wait = every;
    loop {
        tokio::time::sleep(wait).await;
        let begun = Instant::now();
        let round = purge.round().await;
        // Leaves that an old group holds are looked through each time.
        wait = every.max(begun.elapsed() * SHARE);
        match round {
            Ok(purged) => {
                report::purged(&purged);
                metrics.purged();
                purged.seal.into_iter().for_each(|seal| leap.set(seal));
            }
            Err(error) if purge.is_closed() => return Err(error),
            Err(error) => {
                warn!("could not purge now: {error}");
                metrics.failed(&error);
                continue;
            }
        }
        // Writers wait while it waits for its lock.
        if dropped.elapsed() >= every * 10 {
            dropped = Instant::now();
            match purge.drop_leaf().await {
                Ok(0) => {}
                Ok(leaves) => info!(leaves, "dropped an empty partition"),
                Err(error) if purge.is_closed() => return Err(error),
                Err(error) => {
                    debug!("could not drop an empty partition now: {error}");
                    metrics.failed(&error);
                }
            }
        }
    }
}

/// Attaches leaves ahead of need and scrubs. Never ends well: the session ends it.
async fn upkeep(mut upkeep: Upkeep, missed: Sender<Missed>, metrics: &Metrics) -> Result<()> {
    let mut handed_on = HashSet::new();
    loop {
        match upkeep.attach_leaves().await {
            Ok(Some(0)) => {}
            Ok(Some(leaves)) => info!(leaves, "attached {leaves} partitions ahead of need"),
            Ok(None) => debug!("somebody holds a lock; partitions are attached later"),
            Err(error) => {
                warn!("could not attach partitions ahead of need: {error}");
                metrics.failed(&error);
            }
        }
        loop {
            match scrub(&mut upkeep, &missed, &mut handed_on, metrics).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if upkeep.is_closed() => return Err(error),
                Err(error) => {
                    warn!("the scrub could not go on now: {error}");
                    metrics.failed(&error);
                    break;
                }
            }
        }
        tokio::time::sleep(UPKEEP).await;
    }
}

/// One step of the scrub; true if another can follow at once.
///
/// A row is handed on once: until it is sealed the scrub finds it again.
async fn scrub(
    upkeep: &mut Upkeep,
    missed: &Sender<Missed>,
    handed_on: &mut HashSet<i64>,
    metrics: &Metrics,
) -> Result<bool> {
    let (found, more) = upkeep.scrub().await?;
    let ids: Vec<i64> = found
        .map(|found| found.ids)
        .unwrap_or_default()
        .into_iter()
        .filter(|id| handed_on.insert(*id))
        .collect();
    if !ids.is_empty() {
        metrics.found(Cause::Missed);
        error!(
            cause = Cause::Missed.as_str(),
            rows = ids.len(),
            first_id = ids.first(),
            "the scrub found {} committed rows that the search had missed; they are sealed now, out \
             of their order. This is a fault of the relay, or rows were written around the schema",
            ids.len(),
        );
        let ended = |_| Error::new(Kind::Internal, "reading ended before upkeep");
        missed.send(Missed { ids }).await.map_err(ended)?;
    }
    Ok(more)
}
