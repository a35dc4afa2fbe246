//! One attempt as a task: it is counted where that is needed, made, and the event given up if it was the
//! last.

use std::sync::Arc;
use std::time::Duration;

use super::attempt::{Ended, attempt};
use super::handler::{Failure, Handler};
use super::queue::{Job, Origin};
use super::receipts::Receipts;
use super::settings::Settings;
use crate::error::{Error, Kind, Result, Target};
use crate::outbox::{Buried, Database, WorkLog};

/// A Postgres that lets nobody in within this long is away.
const ANSWERS: Duration = Duration::from_secs(5);
/// Dead letters looked for at once, for each handler.
const RETRIED: usize = 16;

/// What attempts need; shared by all.
pub(super) struct Means<H> {
    pub(super) handler: H,
    pub(super) database: Database,
    pub(super) settings: Settings,
    pub(super) receipts: Receipts,
}

/// A task that has ended.
pub(super) struct Finished {
    pub(super) job: Job,
    /// Its connection, if it can be used again.
    pub(super) log: Option<WorkLog>,
    /// Postgres cannot be asked, so no other event needs to be tried.
    pub(super) lost: bool,
    pub(super) ended: Result<Verdict>,
}

/// What is to become of an event.
pub(super) enum Verdict {
    Done,
    DoneBefore,
    /// It is another worker's, or comes again.
    Gone,
    Failed(Failure),
    Dead(String),
}

/// Makes one attempt, on `log` if there is one.
pub(super) async fn run<H: Handler>(
    means: Arc<Means<H>>,
    mut job: Job,
    mut log: Option<WorkLog>,
) -> Finished {
    let ended = means.make(&mut job, &mut log).await;
    // One that is open after an error is well: what failed is about this event alone.
    let lost = ended.is_err() && log.as_ref().is_none_or(WorkLog::is_closed);
    if ended.is_err() {
        log = None;
    }
    Finished { job, log, lost, ended }
}

fn silent() -> Error {
    let context = format!("Postgres lets nobody in within {} s", ANSWERS.as_secs());
    Target::Postgres.error(Kind::Unavailable, context)
}

impl<H: Handler> Means<H> {
    async fn make(&self, job: &mut Job, log: &mut Option<WorkLog>) -> Result<Verdict> {
        if job.doomed.is_none() {
            if job.counted && !self.count(job, log).await? {
                return Ok(Verdict::Gone);
            }
            let made = attempt(&self.handler, job, self.open(log).await?, self.settings.limit);
            let failure = match made.await? {
                Ended::Done => return Ok(Verdict::Done),
                Ended::DoneBefore => return Ok(Verdict::DoneBefore),
                Ended::Failed(failure) => failure,
                Ended::Late(failure) => {
                    *log = None;
                    // Was it the handler, or does nobody get an answer?
                    let asked = tokio::time::timeout(ANSWERS, self.open(log)).await;
                    asked.map_err(|_| silent())??;
                    failure
                }
            };
            let last = failure.for_good || job.event.attempt >= self.settings.attempts;
            if !last && job.origin == Origin::Stream {
                return Ok(Verdict::Failed(failure));
            }
            job.doomed = Some(failure.text());
        }
        self.give_up(job, log).await
    }

    /// Counts the attempt. False if the event is no longer this worker's.
    async fn count(&self, job: &mut Job, log: &mut Option<WorkLog>) -> Result<bool> {
        let counted = match job.origin {
            Origin::Stream => self.receipts.attempt(job.event.position).await,
            Origin::DeadLetter => self.open(log).await?.take_retry(job.event.id).await?,
        };
        if let Some(attempt) = counted {
            (job.event.attempt, job.counted, job.charged) = (attempt, false, true);
        }
        Ok(counted.is_some())
    }

    async fn give_up(&self, job: &Job, log: &mut Option<WorkLog>) -> Result<Verdict> {
        let (log, why) = (self.open(log).await?, job.doomed.clone().unwrap_or_default());
        let buried = match job.origin {
            Origin::Stream => log.bury(&job.event.buried(), &why).await?,
            Origin::DeadLetter => log.dead_again(job.event.id, &why).await.map(|()| true)?,
        };
        Ok(if buried { Verdict::Dead(why) } else { Verdict::DoneBefore })
    }

    /// Dead letters that somebody wants tried once more.
    pub(super) async fn retries(&self, log: &mut Option<WorkLog>) -> Result<Vec<Buried>> {
        let Settings { stream, handlers, .. } = &self.settings;
        self.open(log).await?.retries(stream, *handlers * RETRIED).await
    }

    async fn open<'a>(&self, log: &'a mut Option<WorkLog>) -> Result<&'a mut WorkLog> {
        let Settings { group, limit, .. } = &self.settings;
        let opened = match log.take() {
            Some(opened) => opened,
            None => WorkLog::open(&self.database, group, *limit).await?,
        };
        Ok(log.insert(opened))
    }
}
