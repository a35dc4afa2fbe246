//! Keeps the lease while the session lasts, and the schema in order.

use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tracing::{debug, error, info};

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
    loop {
        match upkeep.attach_leaves().await {
            Ok(0) => {}
            Ok(leaves) => info!(leaves, "attached {leaves} partitions ahead of need"),
            // Somebody holds a lock: there is time until the next leaf is needed.
            Err(error) => debug!("could not attach partitions now: {error}"),
        }
        while scrub(&mut upkeep, &missed).await? {}
        tokio::time::sleep(UPKEEP).await;
    }
}

/// One step of the scrub; true if another can follow at once.
async fn scrub(upkeep: &mut Upkeep, missed: &Sender<Missed>) -> Result<bool> {
    let (found, more) = upkeep.scrub().await?;
    if let Some(found) = found {
        error!(
            rows = found.ids.len(),
            first_id = found.ids.first(),
            "the scrub found {} committed rows that the search had missed; they are sealed now, out \
             of their order. This is a fault of the relay, or rows were written around the schema",
            found.ids.len(),
        );
        let ended = |_| Error::new(Kind::Internal, "reading ended before upkeep");
        missed.send(found).await.map_err(ended)?;
    }
    Ok(more)
}
