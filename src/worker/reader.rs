//! Reads a stream: first what this consumer was given before and has not acknowledged, then what is new,
//! and now and then what other consumers have let lie.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use super::settings::Settings;
use crate::error::Result;
use crate::position::Position;
use crate::retry::Waits;
use crate::stream::{Consumer, Delivery, Server};
use crate::telemetry::Troubles;

/// Entries asked for at once, at most.
const MOST: usize = 100;
/// How long Redis is let wait for new entries.
const BLOCK: Duration = Duration::from_secs(1);
/// How often it is looked for what was given and is not held: the relay may have put a group back unseen.
pub(super) const LOOK_BACK: Duration = Duration::from_secs(5);

/// After so many jumps in a row it is looked back in time only.
const JUMPS: u32 = 3;

/// What was read.
#[derive(Debug)]
pub(super) enum Read {
    /// All that was read and has not begun is read again: Redis may have lost it.
    Anew,
    /// Entries, in order.
    Given(Vec<Delivery>),
}

/// Reads one stream.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) server: Server,
    pub(super) settings: Settings,
    /// How many entries there is room for.
    pub(super) room: watch::Receiver<usize>,
    pub(super) read: mpsc::Sender<Read>,
    /// Somebody wants it to look for what was given before.
    pub(super) look_back: Arc<AtomicBool>,
}

/// Nobody wants to be told any more.
struct Over;

impl Reader {
    /// Reads until nobody wants to be told any more. A lost Redis is waited for.
    pub(super) async fn run(mut self) {
        let (mut waits, mut troubles) = (Waits::new(), Troubles::default());
        while !self.read.is_closed() {
            let Err(error) = self.read_on_one_connection(&mut waits).await else { return };
            let wait = waits.next_wait();
            troubles.tell(&error, wait);
            sleep(wait).await;
        }
    }

    /// Reads until an error. `Ok` when nobody wants to be told any more.
    async fn read_on_one_connection(&mut self, waits: &mut Waits) -> Result<()> {
        let Settings { stream, group, consumer, claim_after, .. } = self.settings.clone();
        let consumer = Consumer::connect(&self.server, &stream, &group, &consumer).await?;
        if consumer.is_forgotten().await? {
            // It was lost before a checkpoint had stored it.
            consumer.make_group().await?;
        }
        let begun = self.read.send(Read::Anew).await;
        if begun.is_err() || self.look_back(&consumer, Position::END).await?.is_err() {
            return Ok(());
        }
        let (mut looked_back, mut claimed) = (Instant::now(), None::<Instant>);
        let (mut next, mut jumps) = (None, 0);
        loop {
            let Ok(room) = self.room().await else { return Ok(()) };
            if claimed.is_none_or(|claimed| claimed.elapsed() >= claim_after / 2) {
                let found = consumer.claim(claim_after, room).await?;
                // There may be more of them.
                claimed = (found.len() < room).then(Instant::now);
                if self.tell(found).await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let new = consumer.read(room, BLOCK).await?;
            waits.reset();
            let ends = new.first().zip(new.last());
            let ends = ends.map(|(first, last)| (first.entry.position, last.entry.position));
            // Another consumer has what is left out, or the relay has set the group to where it was: then
            // there are older ones that come first. Where others read as well, that is so nearly each time.
            let jumped = ends.is_some_and(|(first, _)| next != Some(first.n));
            jumps = if jumped { jumps + 1 } else { 0 };
            next = ends.map_or(next, |(_, last)| Some(last.n + 1));
            let asked = self.look_back.swap(false, Ordering::Relaxed);
            if asked || jumped && jumps <= JUMPS || looked_back.elapsed() >= LOOK_BACK {
                looked_back = Instant::now();
                let before = ends.map_or(Position::END, |(first, _)| first);
                if self.look_back(&consumer, before).await?.is_err() {
                    return Ok(());
                }
            }
            if self.tell(new).await.is_err() {
                return Ok(());
            }
        }
    }

    /// Reads all before `before` that this consumer was given and has not acknowledged.
    async fn look_back(
        &mut self,
        consumer: &Consumer,
        before: Position,
    ) -> Result<Result<(), Over>> {
        let mut after = Position::START;
        loop {
            let Ok(room) = self.room().await else { return Ok(Err(Over)) };
            let mut given = consumer.given(after, room).await?;
            let Some(last) = given.last() else { return Ok(Ok(())) };
            after = last.entry.position;
            given.retain(|delivery| delivery.entry.position < before);
            if self.tell(given).await.is_err() {
                return Ok(Err(Over));
            }
            if after >= before {
                return Ok(Ok(()));
            }
        }
    }

    /// Waits until there is room. Returns for how many.
    async fn room(&mut self) -> Result<usize, Over> {
        let room = self.room.wait_for(|room| *room > 0).await;
        room.map(|room| (*room).min(MOST)).map_err(|_| Over)
    }

    async fn tell(&self, given: Vec<Delivery>) -> Result<(), Over> {
        match given.is_empty() {
            true => Ok(()),
            false => self.read.send(Read::Given(given)).await.map_err(|_| Over),
        }
    }
}
