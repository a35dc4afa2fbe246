//! Streams that have more than the log: whose are the entries?
//!
//! If Postgres lost its latest history, as a failover to a lagging standby does, entries are left
//! whose rows are gone. They cannot be taken back from consumers, so they are listed and the stream
//! goes on behind them. Anything else is somebody else's, and the stream waits for a person.

use serde_json::{Map, Value};
use tracing::error;
use uuid::Uuid;

use super::servers::{LogReader, Redis};
use crate::error::Result;
use crate::outbox::Phantom;
use crate::position::Position;
use crate::stream::StreamEntry;
use crate::telemetry::{Cause, Metrics};

/// Entries read at a time, and looked at in all: a lag of more than that needs a person.
const PAGE: usize = 1_000;
const MOST: usize = 100_000;

/// The entries after `sealed` up to `at`, if all of them are ours and their rows are gone.
pub(super) async fn phantoms(
    log: &dyn LogReader,
    redis: &dyn Redis,
    stream: &str,
    sealed: Position,
    at: Position,
    metrics: &Metrics,
) -> Result<Option<Vec<Phantom>>> {
    let (mut found, mut last) = (Vec::new(), sealed);
    while last < at {
        let page = redis.range(stream, last, at, PAGE).await?;
        if page.is_empty() || found.len() + page.len() > MOST {
            return Ok(None);
        }
        for entry in page {
            let Some(phantom) = ours(&entry, last) else { return Ok(None) };
            last = entry.position;
            found.push(phantom);
        }
    }
    let events: Vec<Uuid> =
        found.iter().filter_map(|phantom| phantom.event_id.parse().ok()).collect();
    if log.pending(stream, &events).await? {
        return Ok(None);
    }
    metrics.found(Cause::Phantom);
    error!(
        stream,
        cause = Cause::Phantom.as_str(),
        first = sealed.n + 1,
        last = at.n,
        "Postgres lost history: entries {} to {} of stream {stream} have no rows any more; they are \
         listed in outbox.phantom and the stream goes on behind them",
        sealed.n + 1,
        at.n,
    );
    Ok(Some(found))
}

/// An entry that follows `before` as only ours do.
fn ours(entry: &StreamEntry, before: Position) -> Option<Phantom> {
    let event_id = std::str::from_utf8(entry.field("id")?).ok()?;
    event_id.parse::<Uuid>().ok()?;
    entry.field("payload")?;
    if entry.position.n != before.n + 1 || entry.position.ms < before.ms {
        return None;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields: Map<String, Value> =
        entry.fields.iter().map(|(name, value)| (text(name), Value::String(text(value)))).collect();
    Some(Phantom {
        position: entry.position,
        event_id: event_id.to_owned(),
        fields: Value::Object(fields),
    })
}
