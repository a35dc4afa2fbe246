//! Keeps the lease while the session lasts, and the schema in order.

use std::collections::HashSet;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tracing::{debug, error, info, warn};

use crate::error::{Error, Kind, Result};
use crate::outbox::{Lease, Missed, Term, Upkeep};

/// How often upkeep looks whether there is something to do.
const UPKEEP: Duration = Duration::from_secs(5);

/// Renews the lease three times within its length. Never ends well: the session ends it.
pub(super) async fn keep(lease: &Lease, term: Term, length: Duration) -> Result<()> {
    loop {
        tokio::time::sleep(length / 3).await;
        lease.keep(term).await?;
    }
}

/// Attaches leaves ahead of need and scrubs. Never ends well: the session ends it.
pub(super) async fn upkeep(mut upkeep: Upkeep, missed: Sender<Missed>) -> Result<()> {
    let mut handed_on = HashSet::new();
    loop {
        match upkeep.attach_leaves().await {
            Ok(Some(0)) => {}
            Ok(Some(leaves)) => info!(leaves, "attached {leaves} partitions ahead of need"),
            Ok(None) => debug!("somebody holds a lock; partitions are attached later"),
            Err(error) => warn!("could not attach partitions ahead of need: {error}"),
        }
        loop {
            match scrub(&mut upkeep, &missed, &mut handed_on).await {
                Ok(true) => {}
                Ok(false) => break,
                Err(error) if upkeep.is_closed() => return Err(error),
                Err(error) => {
                    warn!("the scrub could not go on now: {error}");
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
) -> Result<bool> {
    let (found, more) = upkeep.scrub().await?;
    let ids: Vec<i64> = found
        .map(|found| found.ids)
        .unwrap_or_default()
        .into_iter()
        .filter(|id| handed_on.insert(*id))
        .collect();
    if !ids.is_empty() {
        error!(
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
