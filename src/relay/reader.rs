//! Finds rows and hands them on, running ahead of sealing by a few batches.

use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender};
use tokio::time::Instant;

use super::clock::DatabaseClock;
use super::pace::{Pace, Search, Step};
use super::servers::{Finder, Wake};
use super::{Bounds, Stop};
use crate::error::{Error, Kind, Result, Target};
use crate::outbox::{Armed, Cursor, Found, Missed};

/// Reads until it is stopped. Rows that it read and nobody sealed are found again by the next one.
pub(super) struct Reader {
    pub(super) finder: Box<dyn Finder>,
    pub(super) cursor: Cursor,
    pub(super) wake: Option<Box<dyn Wake>>,
    pub(super) poll: Duration,
    pub(super) bounds: Bounds,
    pub(super) missed: Receiver<Missed>,
    pub(super) clock: DatabaseClock,
    pub(super) found: Sender<Found>,
}

impl Reader {
    pub(super) async fn run(mut self, stop: Stop) -> Result<()> {
        let begun = Instant::now();
        let mut pace = Pace::new(self.poll, self.wake.is_some());
        let mut asked: Option<Armed> = None;
        let mut step = Step::Search;
        let mut slept = Duration::ZERO;
        while !stop.is_set() && !self.found.is_closed() {
            step = match step {
                Step::Search => {
                    let found = self.search().await?;
                    pace.searched(found, std::mem::take(&mut slept), begun.elapsed())
                }
                Step::Ask => {
                    let now = begun.elapsed();
                    asked = Some(self.wake()?.arm(pace.question()).await?);
                    pace.asked(now)
                }
                Step::StopAsking => {
                    self.wake()?.disarm().await?;
                    Step::Search
                }
                Step::CheckOver => {
                    let over = match &asked {
                        Some(asked) => self.wake()?.settled(asked).await?,
                        None => false,
                    };
                    pace.checked(over, begun.elapsed())
                }
                Step::Wait(longest) => {
                    let since = Instant::now();
                    self.wait(longest, &stop).await?;
                    slept = since.elapsed();
                    Step::Search
                }
            };
        }
        // Only if we stop of our own accord: the session that follows a failure asks anew.
        if let Some(wake) = self.wake.as_ref().filter(|_| stop.is_set()) {
            wake.disarm().await?;
        }
        Ok(())
    }

    async fn search(&mut self) -> Result<Search> {
        let found = self.finder.find(&self.cursor, self.bounds.rows, self.bounds.bytes).await?;
        self.clock.set(found.clock);
        self.cursor = found.cursor.clone();
        let rows = found.entries.len();
        if rows > 0 {
            self.hand_on(found).await;
        }
        Ok(Search { rows, more: self.cursor.window.is_some() })
    }

    /// If sealing has ended, so does reading: what was found is found again.
    async fn hand_on(&self, found: Found) {
        let _ = self.found.send(found).await;
    }

    async fn wait(&mut self, longest: Duration, stop: &Stop) -> Result<()> {
        let notified = async {
            match &self.wake {
                Some(wake) => wake.notified().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = stop.wait() => {}
            () = self.found.closed() => {}
            () = notified => {}
            () = tokio::time::sleep(longest) => {}
            Some(missed) = self.missed.recv() => self.recover(missed).await?,
        }
        match &self.wake {
            Some(wake) if wake.is_closed() => Err(Target::Postgres
                .error(Kind::Unavailable, "lost the connection to Postgres that listens")),
            _ => Ok(()),
        }
    }

    /// Hands on rows that the search should have found and the scrub found instead.
    async fn recover(&mut self, missed: Missed) -> Result<()> {
        for ids in missed.ids.chunks(self.bounds.rows.min(100)) {
            let entries = self.finder.entries(ids).await?;
            if entries.is_empty() {
                continue;
            }
            let clock = self.finder.find(&self.cursor, 1, 1).await?.clock;
            let cursor = self.cursor.clone();
            self.hand_on(Found { entries, cursor, clock }).await;
        }
        Ok(())
    }

    fn wake(&self) -> Result<&dyn Wake> {
        self.wake
            .as_deref()
            .ok_or_else(|| Error::new(Kind::Internal, "asked for wake-ups without LISTEN"))
    }
}
