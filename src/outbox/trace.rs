//! The rows of one event, and where the log has them.

use jiff::Timestamp;
use uuid::Uuid;

use super::connect::{Connection, answer};
use crate::error::Result;

/// Ids looked through by one statement, so that a person sees that it goes on.
const RANGE: i64 = 1_000_000;

/// One row with its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TracedRow {
    /// The row's `id`.
    pub id: i64,
    /// Its stream.
    pub stream: String,
    /// Its key.
    pub key: Option<String>,
    /// Its type.
    pub kind: Option<String>,
    /// When it was inserted.
    pub created_at: Timestamp,
    /// Its number in the stream, once it is sealed.
    pub n: Option<u64>,
    /// Its ID in Redis, once it is sealed.
    pub entry_id: Option<String>,
    /// `pending`, `sealed` or `dispatched`.
    pub state: String,
    /// When it was known to be in Redis.
    pub dispatched_at: Option<Timestamp>,
}

/// All rows of `event`, in id order: an application may have used an identity twice. `progress` is
/// told how many ids have been looked through, and how many there are.
///
/// # Errors
/// As any statement.
pub async fn trace(
    connection: &Connection,
    event: Uuid,
    mut progress: impl FnMut(i64, i64),
) -> Result<Vec<TracedRow>> {
    // The newest rows first, which is where people look; a plan by the index on id.
    connection.batch("set enable_seqscan = off; set enable_bitmapscan = off").await?;
    let client = connection.client();
    let bounds = "select coalesce(min(id) - 1, 0), coalesce(max(id), 0) from outbox.entry";
    let row = answer(client.query_one(bounds, &[])).await?;
    let (lowest, highest): (i64, i64) = (row.get(0), row.get(1));
    let find = connection.prepare(include_str!("../../sql/queries/find_event.sql")).await?;
    let (mut ids, mut to): (Vec<i64>, i64) = (Vec::new(), highest);
    while to > lowest {
        let from = lowest.max(to - RANGE);
        let rows = answer(client.query(&find, &[&event, &from, &to])).await?;
        ids.extend(rows.iter().map(|row| row.get::<_, i64>(0)));
        to = from;
        progress(highest - to, highest - lowest);
    }
    ids.sort_unstable();
    let mut traced = Vec::with_capacity(ids.len());
    for id in ids {
        let sql = include_str!("../../sql/queries/trace.sql");
        let row = answer(client.query_opt(sql, &[&id])).await?;
        traced.extend(row.map(|row| TracedRow {
            id: row.get("id"),
            stream: row.get("stream"),
            key: row.get("key"),
            kind: row.get("type"),
            created_at: row.get("created_at"),
            n: row.get::<_, Option<i64>>("n").map(i64::unsigned_abs),
            entry_id: row.get("entry_id"),
            state: row.get("state"),
            dispatched_at: row.get("dispatched_at"),
        }));
    }
    Ok(traced)
}
