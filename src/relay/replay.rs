//! One chunk of the log, read and appended: how a stream that is behind catches up, whatever the
//! reason.

use std::sync::Arc;

use super::Bounds;
use super::servers::{LogReader, Redis};
use crate::error::{Error, Kind, Result};
use crate::outbox::Logged;
use crate::position::Position;
use crate::stream::{Append, Appended, Limits};

/// What came of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// The stream is here now; when each of the entries appended was inserted, in microseconds.
    Reached(Position, Vec<i64>),
    /// The log has nothing more.
    End,
    /// The row of this number is no longer in Postgres.
    Gone(u64),
    /// The append did not take place.
    Not(Appended),
}

/// Reads what the log has of `stream` after `at` up to number `through`, and appends it.
pub(super) async fn chunk(
    log: &dyn LogReader,
    redis: &dyn Redis,
    stream: &Arc<str>,
    at: Position,
    through: u64,
    bounds: Bounds,
    limits: Limits,
) -> Result<Chunk> {
    let logged = log.read(stream, at.n, through, bounds.rows, bounds.bytes).await?;
    let Some(first) = logged.first() else { return Ok(Chunk::End) };
    let first_n = first.position.n;
    let append = run(stream, at, logged);
    if append.entries.is_empty() {
        return Ok(Chunk::Gone(first_n));
    }
    let (last, created_us) = (append.last(), append.created_us());
    let answer = redis.append(std::slice::from_ref(&append), limits).await?.pop();
    Ok(match answer {
        Some(Appended::Done) => Chunk::Reached(last, created_us),
        Some(other) => Chunk::Not(other),
        None => return Err(Error::new(Kind::Internal, "Redis answered nothing")),
    })
}

/// The first run of consecutive numbers whose rows are there. Numbers leap only over entries whose
/// rows Postgres lost with its history.
fn run(stream: &Arc<str>, expected: Position, logged: Vec<Logged>) -> Append {
    let first_n = logged.first().map_or(0, |logged| logged.position.n);
    let (mut ms, mut entries) = (Vec::new(), Vec::new());
    for (n, logged) in (first_n..).zip(logged) {
        let Some(entry) = logged.entry.filter(|_| logged.position.n == n) else { break };
        ms.push(logged.position.ms);
        entries.push(entry);
    }
    Append { stream: stream.clone(), expected, first_n, ms, entries }
}
