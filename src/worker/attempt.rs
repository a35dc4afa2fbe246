//! One attempt with an event: the order that makes at-least-once delivery effectively-once work stands here.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt as _;

use super::event::Event;
use super::handler::{Failure, Handler};
use super::queue::{Job, Origin};
use crate::error::{Kind, Result, Target};
use crate::outbox::postgres::Transaction;
use crate::outbox::{WorkLog, is_outage};

/// How an attempt has ended, if no server was lost.
#[derive(Debug)]
pub(super) enum Ended {
    /// Effect and note are committed.
    Done,
    /// There was a note already.
    DoneBefore,
    /// Nothing of it is in Postgres.
    Failed(Failure),
    /// The same, and a statement may still run on that connection.
    Late(Failure),
}

/// Notes the event as done, lets the handler read and act, and commits all of it at once. Only behind that
/// is the event acknowledged: by the caller, and only if it is done.
///
/// # Errors
/// If the connection to Postgres was lost, or the server refuses what every attempt needs: no fault of the
/// handler's, and whether it was committed the note tells next time.
pub(super) async fn attempt<H: Handler>(
    handler: &H,
    job: &Job,
    log: &mut WorkLog,
    limit: Duration,
) -> Result<Ended> {
    let event = &job.event;
    let begun = match job.origin {
        Origin::Stream => log.begin(event.id).await?,
        Origin::DeadLetter => log.begin_again(event.id).await?,
    };
    let Some(mut work) = begun else { return Ok(Ended::DoneBefore) };
    let steps = AssertUnwindSafe(steps(handler, event, work.transaction())).catch_unwind();
    let failure = match tokio::time::timeout(limit, steps).await {
        Ok(Ok(Ok(()))) => None,
        Ok(Ok(Err(failure))) => Some(failure),
        Ok(Err(panic)) => Some(format!("the handler panicked: {}", said(&*panic)).into()),
        Err(_) => {
            let failure = format!("the handler took longer than {limit:?}").into();
            return Ok(Ended::Late(failure));
        }
    };
    if let Some(failure) = failure {
        work.roll_back().await?;
        return match is_outage(&*failure.error) {
            true => Err(Target::Postgres.error(Kind::Unavailable, failure.text())),
            false => Ok(Ended::Failed(failure)),
        };
    }
    match work.commit().await? {
        Ok(()) => Ok(Ended::Done),
        Err(refused) => Ok(Ended::Failed(refused.into())),
    }
}

async fn steps<H: Handler>(
    handler: &H,
    event: &Event,
    transaction: &mut Transaction<'_>,
) -> Result<(), Failure> {
    match handler.read(event, transaction).await? {
        Some(record) => handler.act(event, record, transaction).await,
        None => Ok(()),
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("it did not say why")
}
