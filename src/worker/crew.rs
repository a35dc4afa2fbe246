//! The worker at work: what it reads, what runs, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{error, warn};

use super::event::Event;
use super::handler::{Handler, Outcome};
use super::queue::{Job, Origin, Queue};
use super::reader::{LOOK_BACK, Read};
use super::task::{Finished, Means, Verdict, run};
use crate::error::{Error, Kind, Result, Target};
use crate::outbox::{Buried, WorkLog};
use crate::retry::Waits;
use crate::stream::Delivery;
use crate::telemetry::Troubles;

/// How often it is looked for dead letters that somebody wants tried again.
const RETRIES: Duration = Duration::from_secs(1);
/// Long enough to wait for when there is nothing to wait for.
const DAY: Duration = Duration::from_secs(86_400);

/// A worker at work.
pub(super) struct Crew<H> {
    means: Arc<Means<H>>,
    queue: Queue,
    running: JoinSet<Finished>,
    /// Looks for dead letters.
    looking: JoinSet<(Option<WorkLog>, Result<Vec<Buried>>)>,
    /// Connections that nobody uses now.
    logs: Vec<WorkLog>,
    room: watch::Sender<usize>,
    /// The reader is to look for what was given before.
    look_back: Arc<AtomicBool>,
    /// Nothing begins before, for Postgres was lost.
    paused: Option<Duration>,
    begun: Instant,
    waits: Waits,
    troubles: Troubles,
    unread: Troubles,
}

impl<H: Handler> Crew<H> {
    pub(super) fn new(
        means: Means<H>,
        log: WorkLog,
        look_back: Arc<AtomicBool>,
    ) -> (Self, watch::Receiver<usize>) {
        let (room, room_told) = watch::channel(means.settings.ahead());
        let crew = Self {
            means: Arc::new(means),
            queue: Queue::default(),
            running: JoinSet::new(),
            looking: JoinSet::new(),
            logs: vec![log],
            room,
            look_back,
            paused: None,
            begun: Instant::now(),
            waits: Waits::new(),
            troubles: Troubles::default(),
            unread: Troubles::default(),
        };
        (crew, room_told)
    }

    /// Works until `stop`.
    ///
    /// # Errors
    /// `Internal` if nothing is read any more.
    pub(super) async fn work(
        &mut self,
        mut read: mpsc::Receiver<Read>,
        stop: impl Future<Output = ()>,
    ) -> Result<()> {
        let mut stop = std::pin::pin!(stop);
        let mut retries = Duration::ZERO;
        loop {
            let now = self.now();
            self.begin(now);
            let room = self.queue.room(self.means.settings.ahead());
            self.room.send_if_modified(|told| std::mem::replace(told, room) != room);
            let free = self.queue.running() < self.means.settings.handlers;
            let next = if free { self.queue.due() } else { None };
            let due = self.paused.or(next).unwrap_or(now + DAY);
            tokio::select! {
                () = &mut stop => return Ok(()),
                Some(finished) = self.running.join_next() => self.finish(finished),
                Some(found) = self.looking.join_next() => self.raise(found),
                given = read.recv() => match given {
                    Some(read) => self.take(read),
                    None => return Err(Error::new(Kind::Internal, "the reader of a worker has ended")),
                },
                () = sleep_until(self.begun + due) => self.paused = None,
                () = sleep_until(self.begun + retries) => {
                    retries = self.now() + RETRIES;
                    self.look_for_retries();
                }
            }
        }
    }

    /// Lets what runs end, for as long as the settings say; what does not is rolled back.
    pub(super) async fn drain(mut self) {
        self.looking.abort_all();
        let drain = self.means.settings.drain;
        let all = async {
            while let Some(finished) = self.running.join_next().await {
                self.finish(finished);
            }
        };
        if timeout(drain, all).await.is_err() {
            let left = self.running.len();
            warn!(left, "{left} attempts did not end in time; they are undone, and count");
        }
        self.running.shutdown().await;
    }

    /// Since it began.
    fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    /// Begins what may begin.
    fn begin(&mut self, now: Duration) {
        while self.paused.is_none() && self.queue.running() < self.means.settings.handlers {
            let Some(job) = self.queue.take(now) else { return };
            let log = self.idle_log();
            self.running.spawn(run(Arc::clone(&self.means), job, log));
        }
    }

    /// A connection that nobody uses now, if there is one that is open.
    fn idle_log(&mut self) -> Option<WorkLog> {
        self.logs.retain(|log| !log.is_closed());
        self.logs.pop()
    }

    /// Takes what was read.
    fn take(&mut self, read: Read) {
        match read {
            Read::Anew => self.queue.forget(self.now()),
            Read::Given(given) => given.iter().for_each(|delivery| self.take_one(delivery)),
        }
    }

    fn take_one(&mut self, delivery: &Delivery) {
        let settings = &self.means.settings;
        match Event::read(&settings.stream, &delivery.entry, SystemTime::now()) {
            Ok(event) => {
                let (now, begun) = (self.now(), delivery.deliveries);
                // The first delivery alone says nothing of an attempt.
                let wait = if begun > 1 { settings.wait_after(begun) } else { Duration::ZERO };
                let used_up = begun >= settings.attempts && begun > 1;
                let job = Job {
                    event: Event { attempt: begun.max(1), ..event },
                    origin: Origin::Stream,
                    counted: begun > 0,
                    charged: false,
                    alone: begun > 1 && begun + 1 >= settings.attempts,
                    doomed: used_up.then(|| format!(
                        "given to workers {begun} times, and none came to an end with it: they died, or were \
                         stopped"
                    )),
                    due: Some(now + wait.saturating_sub(delivery.idle)),
                };
                self.queue.push(job, now);
            }
            // It stays where it is: to acknowledge it would be to say that its work is done.
            Err(why) => {
                let error = Target::Redis.error(Kind::Refused, why);
                self.unread.tell(&error, LOOK_BACK);
            }
        }
    }

    /// Looks for dead letters that somebody wants tried once more, unless it does already.
    fn look_for_retries(&mut self) {
        if self.looking.is_empty() && self.paused.is_none() {
            let (means, mut log) = (Arc::clone(&self.means), self.idle_log());
            self.looking.spawn(async move {
                let found = means.retries(&mut log).await;
                (log.filter(|log| !log.is_closed()), found)
            });
        }
    }

    /// Takes the dead letters that were found.
    fn raise(&mut self, found: Result<(Option<WorkLog>, Result<Vec<Buried>>), JoinError>) {
        let Ok((log, found)) = found else { return };
        self.logs.extend(log);
        match found {
            Ok(found) => {
                for buried in found {
                    let (event, origin) =
                        (Event::raised(buried, SystemTime::now()), Origin::DeadLetter);
                    let (doomed, due) = (None, None);
                    let job = Job {
                        event,
                        origin,
                        counted: true,
                        charged: false,
                        alone: false,
                        doomed,
                        due,
                    };
                    self.queue.push(job, self.now());
                }
            }
            Err(error) => self.troubles.tell(&error, RETRIES),
        }
    }

    /// Decides what becomes of an event after an attempt.
    fn finish(&mut self, finished: Result<Finished, JoinError>) {
        let Finished { mut job, log, lost, ended } = match finished {
            Ok(finished) => finished,
            // Attempts catch what handlers do: this is a fault of ours.
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        self.logs.extend(log.filter(|log| !log.is_closed()));
        let now = self.now();
        let outcome = match ended {
            Ok(Verdict::Gone) => {
                self.queue.forget_behind(&job, now);
                self.queue.settle(&job, now);
                self.look_back.store(true, Ordering::Relaxed);
                return;
            }
            Ok(Verdict::Failed(failure)) => {
                let again_in = self.means.settings.wait_after(job.event.attempt);
                job.due = Some(now + again_in);
                (job.counted, job.charged, job.alone) = (true, false, false);
                Outcome::Failed { error: failure.text(), again_in }
            }
            Ok(Verdict::Done) => Outcome::Done,
            Ok(Verdict::DoneBefore) => Outcome::DoneBefore,
            Ok(Verdict::Dead(error)) => Outcome::Dead { error },
            Err(error) => {
                let wait = self.wait_for_postgres(&error, lost, now);
                job.due = Some(now + wait);
                if job.origin == Origin::Stream && std::mem::take(&mut job.charged) {
                    self.means.receipts.spare(job.event.position);
                    job.counted = true;
                }
                Outcome::Interrupted { error: error.to_string() }
            }
        };
        report(&job.event, &self.means.settings.group, &outcome);
        self.tell(&job.event, &outcome);
        match outcome {
            Outcome::Failed { .. } | Outcome::Interrupted { .. } => self.queue.put_back(job, now),
            Outcome::Done | Outcome::DoneBefore | Outcome::Dead { .. } => {
                self.waits.reset();
                if job.origin == Origin::Stream {
                    self.means.receipts.done(job.event.position);
                }
                self.queue.settle(&job, now);
            }
        }
    }

    /// Nothing begins for a while if Postgres is lost. Returns how long the event that met the error waits.
    fn wait_for_postgres(&mut self, error: &Error, lost: bool, now: Duration) -> Duration {
        match self.paused {
            // Another one has met it before.
            Some(until) if lost => until.saturating_sub(now),
            _ => {
                let wait = self.waits.next_wait();
                self.troubles.tell(error, wait);
                self.paused = if lost { Some(now + wait) } else { self.paused };
                wait
            }
        }
    }

    /// Tells the handler, whatever it makes of that.
    fn tell(&self, event: &Event, outcome: &Outcome) {
        let told = std::panic::AssertUnwindSafe(|| self.means.handler.ended(event, outcome));
        if std::panic::catch_unwind(told).is_err() {
            error!(event = %event.id, "the handler panicked when it was told how an attempt had ended");
        }
    }
}

/// Says what became of an event, where people should know.
fn report(event: &Event, group: &str, outcome: &Outcome) {
    let (id, stream, attempt) = (event.id, &event.stream, event.attempt);
    match outcome {
        Outcome::Failed { error, again_in } => warn!(
            event = %id, stream, group, attempt,
            "attempt {attempt} with event {id} of {stream} has failed, the next is in {again_in:?}: {error}"
        ),
        Outcome::Dead { error } => error!(
            event = %id, stream, group, attempt,
            "event {id} of {stream} is given up after {attempt} attempts: {error}; `outbox-relay dead list` \
             shows it"
        ),
        Outcome::Done | Outcome::DoneBefore | Outcome::Interrupted { .. } => {}
    }
}
