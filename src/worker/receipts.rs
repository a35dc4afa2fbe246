//! What a worker tells Redis: what it has done, what it tries again, and that it works.

use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::settings::Settings;
use crate::error::Result;
use crate::position::Position;
use crate::retry::Waits;
use crate::stream::{Consumer, Server};
use crate::telemetry::Troubles;

/// Told in one go, at most.
const MOST: usize = 1_000;

/// What Redis is to be told.
#[derive(Debug)]
enum Message {
    Done(Position),
    Spare(Position),
    Attempt(Position, oneshot::Sender<Option<u64>>),
}

/// Tells Redis, in the background. Cloning is cheap; it ends when all clones are gone and all is told.
#[derive(Clone, Debug)]
pub(super) struct Receipts(mpsc::UnboundedSender<Message>);

/// The other end.
#[derive(Debug)]
pub(super) struct Clerk {
    server: Server,
    settings: Settings,
    told: mpsc::UnboundedReceiver<Message>,
    done: Vec<Position>,
    spared: Vec<Position>,
    attempts: Vec<(Position, oneshot::Sender<Option<u64>>)>,
}

impl Receipts {
    pub(super) fn new(server: Server, settings: Settings) -> (Self, Clerk) {
        let (sender, told) = mpsc::unbounded_channel();
        let (done, spared, attempts) = (Vec::new(), Vec::new(), Vec::new());
        let clerk = Clerk { server, settings, told, done, spared, attempts };
        (Self(sender), clerk)
    }

    /// The event is done: acknowledges it, however long Redis is away. One that Redis loses meanwhile is
    /// given again, and is found to be done.
    pub(super) fn done(&self, position: Position) {
        let _ = self.0.send(Message::Done(position));
    }

    /// An attempt that was counted could not be made: takes it back.
    pub(super) fn spare(&self, position: Position) {
        let _ = self.0.send(Message::Spare(position));
    }

    /// Counts one more attempt; which one it is, or None if the event is no longer this worker's. Waits while
    /// Redis is away.
    pub(super) async fn attempt(&self, position: Position) -> Option<u64> {
        let (sender, counted) = oneshot::channel();
        let _ = self.0.send(Message::Attempt(position, sender));
        counted.await.ok().flatten()
    }
}

impl Clerk {
    /// Tells Redis until there is nothing left to tell and nobody left to ask.
    pub(super) async fn run(mut self) {
        let (mut waits, mut troubles) = (Waits::new(), Troubles::default());
        loop {
            let Err(error) = self.tell_on_one_connection(&mut waits).await else { return };
            let wait = waits.next_wait();
            troubles.tell(&error, wait);
            sleep(wait).await;
        }
    }

    async fn tell_on_one_connection(&mut self, waits: &mut Waits) -> Result<()> {
        let Settings { stream, group, consumer, claim_after, .. } = self.settings.clone();
        let consumer = Consumer::connect(&self.server, &stream, &group, &consumer).await?;
        let mut keep = interval((claim_after / 3).max(Duration::from_millis(1)));
        keep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // What an error has left over comes first.
            consumer.acknowledge(&self.done).await?;
            self.done.clear();
            while let Some(position) = self.spared.last() {
                consumer.spare(*position).await?;
                self.spared.pop();
            }
            while let Some((position, _)) = self.attempts.last() {
                let counted = consumer.attempt(*position).await?;
                if let Some((_, asked)) = self.attempts.pop() {
                    let _ = asked.send(counted);
                }
            }
            tokio::select! {
                message = self.told.recv() => match message {
                    Some(message) => self.take(message),
                    None => return Ok(()),
                },
                _ = keep.tick() => {
                    consumer.keep().await?;
                    waits.reset();
                }
            }
        }
    }

    /// Takes a message and those that are there behind it.
    fn take(&mut self, first: Message) {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Done(position) => self.done.push(position),
                Message::Spare(position) => self.spared.push(position),
                Message::Attempt(position, asked) => self.attempts.push((position, asked)),
            }
            let room = self.done.len() + self.spared.len() + self.attempts.len() < MOST;
            next = if room { self.told.try_recv().ok() } else { None };
        }
    }
}
