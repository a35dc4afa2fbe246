//! Streams held and let go.

use crate::error::{Kind, Result, Target};
use crate::outbox::{Database, Hold};

/// Holds `stream` in the name of `who`: its rows are sealed and wait in Postgres. A relay obeys within
/// about a second. Returns false if it was held before.
///
/// # Errors
/// `Refused` if no row has ever named the stream.
pub async fn pause(database: &Database, stream: &str, who: &str) -> Result<bool> {
    let hold = open(database).await?;
    hold.pause(stream, who).await?.map(|was| !was).ok_or_else(|| unknown(stream))
}

/// Lets `stream` flow again. Returns false if nobody held it.
///
/// # Errors
/// `Refused` if there is no such stream.
pub async fn resume(database: &Database, stream: &str) -> Result<bool> {
    open(database).await?.resume(stream).await?.ok_or_else(|| unknown(stream))
}

async fn open(database: &Database) -> Result<Hold> {
    Ok(Hold::new(database.connect_checked("operate").await?.0))
}

pub(super) fn unknown(stream: &str) -> crate::error::Error {
    let context = format!(
        "no row has ever named the stream {stream:?}; `outbox-relay status --all` lists all streams"
    );
    Target::Postgres.error(Kind::Refused, context)
}
