//! One event: its rows, their positions, their stream entries, and which groups have acknowledged
//! them.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use super::status::time;
use crate::error::Result;
use crate::group::Group;
use crate::outbox::{Database, TracedRow, trace as trace_rows};
use crate::position::Position;
use crate::stream::{Place, Redis, Server};

/// What is known of an event.
#[derive(Debug, Serialize)]
pub struct Trace {
    /// The event.
    pub event_id: String,
    /// Redis could be asked.
    pub redis_answers: bool,
    /// One element per row: an application may have used an identity twice.
    pub entries: Vec<TracedEntry>,
}

/// One row of the event.
#[derive(Debug, Serialize)]
pub struct TracedEntry {
    /// The row's `id`.
    pub id: i64,
    /// Its stream.
    pub stream: String,
    /// Its key.
    pub key: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// When it was inserted.
    pub created_at: String,
    /// `pending`, `sealed` or `dispatched`.
    pub state: String,
    /// Its number in the stream.
    pub n: Option<u64>,
    /// Its ID in the stream.
    pub entry_id: Option<String>,
    /// When it was known to be in Redis.
    pub dispatched_at: Option<String>,
    /// The entry is in Redis now; None if that is not known.
    pub in_redis: Option<bool>,
    /// It is not in Redis because every group had acknowledged it.
    pub trimmed: bool,
    /// The consumer groups of the stream.
    pub groups: Vec<GroupTrace>,
}

/// What one group has done with the entry.
#[derive(Debug, Serialize)]
pub struct GroupTrace {
    /// Its name.
    pub group: String,
    /// `waiting` (not given to it yet), `pending` (given, not acknowledged), `acknowledged`, or `unknown`
    /// where more than 10,000 entries are pending.
    pub state: &'static str,
    /// Which consumer it was given to, while it is pending.
    pub consumer: Option<String>,
    /// How often it was given, while it is pending.
    pub deliveries: Option<u64>,
    /// Seconds since it was last given, while it is pending.
    pub idle_seconds: Option<f64>,
}

/// Traces `event`. `progress` is told how many ids have been looked through, and how many there are.
///
/// # Errors
/// If Postgres cannot be asked. A Redis that does not answer leaves its part open.
pub async fn trace(
    database: &Database,
    server: &Server,
    event: Uuid,
    progress: impl FnMut(i64, i64),
) -> Result<Trace> {
    let (connection, identity) = database.connect_checked("trace").await?;
    let rows = trace_rows(&connection, event, progress).await?;
    let redis = server.connect().await;
    if let Ok(redis) = &redis {
        redis.refuse_other(&identity.outbox.to_string()).await?;
    }
    let mut entries = Vec::with_capacity(rows.len());
    for row in rows {
        let position = row.entry_id.as_deref().and_then(|id| id.parse().ok());
        let mut entry = TracedEntry::from(row);
        if let (Ok(redis), Some(position)) = (&redis, position) {
            look(redis, &mut entry, position).await?;
        }
        entries.push(entry);
    }
    Ok(Trace { event_id: event.to_string(), redis_answers: redis.is_ok(), entries })
}

async fn look(redis: &Redis, entry: &mut TracedEntry, position: Position) -> Result<()> {
    let view = redis.view(&entry.stream).await?;
    if !matches!(view.place, Place::At(_)) {
        entry.in_redis = Some(false);
        return Ok(());
    }
    let before = Position { n: position.n - 1, ..position };
    let found = redis.range(&entry.stream, before, position, 1).await?;
    entry.in_redis = Some(!found.is_empty());
    let acknowledged = |group: &Group| group.acknowledged(position) == Some(true);
    entry.trimmed =
        found.is_empty() && position.n <= view.trimmed() && view.groups.iter().all(acknowledged);
    entry.groups = view.groups.iter().map(|group| of_group(group, position)).collect();
    Ok(())
}

fn of_group(group: &Group, position: Position) -> GroupTrace {
    let pending = group.pending.iter().flatten().find(|pending| pending.position == position);
    let state = match (pending, group.acknowledged(position)) {
        (Some(_), _) => "pending",
        (None, Some(true)) => "acknowledged",
        (None, Some(false)) => "waiting",
        (None, None) => "unknown",
    };
    GroupTrace {
        group: group.name.clone(),
        state,
        consumer: pending.map(|pending| pending.consumer.clone()),
        deliveries: pending.map(|pending| pending.deliveries),
        idle_seconds: pending.map(|pending| idle_seconds(pending.given_ms)),
    }
}

/// Seconds since a time of the clock of Redis, by our own clock.
fn idle_seconds(given_ms: u64) -> f64 {
    let idle_ms = Timestamp::now().as_millisecond().saturating_sub_unsigned(given_ms);
    idle_ms.max(0) as f64 / 1_000.0
}

impl From<TracedRow> for TracedEntry {
    fn from(row: TracedRow) -> Self {
        Self {
            id: row.id,
            stream: row.stream,
            key: row.key,
            kind: row.kind,
            created_at: time(row.created_at),
            state: row.state,
            n: row.n,
            entry_id: row.entry_id,
            dispatched_at: row.dispatched_at.map(time),
            in_redis: None,
            trimmed: false,
            groups: Vec::new(),
        }
    }
}
