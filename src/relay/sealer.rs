//! Seals what was found, then hands it on; marks what has arrived.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::mpsc::{Receiver, Sender, UnboundedReceiver};
use tokio::time::Instant;

use super::plan::Heads;
use super::report;
use super::servers::Log;
use crate::batch::{Batch, Mark};
use crate::error::Result;
use crate::failpoint::failpoint;
use crate::outbox::{Found, Reached, Seal, StateChange};
use crate::telemetry::Metrics;

/// Marks wait this long for a seal that carries them, then they are committed on their own.
const LINGER: Duration = Duration::from_millis(25);
/// Notes written at a time.
const NOTES: usize = 1_000;

/// What the appender tells the log, in order.
#[derive(Debug)]
pub(super) enum Note {
    /// A batch is in Redis.
    Arrived(Mark),
    /// Batches are in Redis up to a number.
    Reached(Reached),
    /// Redis has a stream only up to this number.
    Lost(Arc<str>, u64),
    /// The state of a stream changed.
    State(StateChange),
    /// A stream, as rows name it, is to have so many partitions, and the new ones are held.
    Split(Arc<str>, u32),
}

/// The number from which seals go on, so that a leaf of the log that fills slowly comes to its end and
/// can be purged. Cloning is cheap; all clones are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Leap(Arc<AtomicI64>);

impl Leap {
    pub(super) fn set(&self, seal: i64) {
        self.0.store(seal, Ordering::Relaxed);
    }

    /// The number after `last`.
    fn next(&self, last: i64) -> i64 {
        (last + 1).max(self.0.load(Ordering::Relaxed))
    }
}

/// What is to be done next.
enum Next {
    /// So many notes; none if appending has ended.
    Notes(usize),
    /// Rows; None if reading has ended.
    Found(Option<Found>),
    /// Marks have waited long enough.
    Due,
}

/// The one that writes the log.
pub(super) struct Sealer {
    pub(super) log: Box<dyn Log>,
    pub(super) heads: Heads,
    pub(super) last_seal: i64,
    pub(super) leap: Leap,
    pub(super) found: Receiver<Found>,
    /// Where sealed batches go; None once reading or appending has ended.
    pub(super) sealed: Option<Sender<Vec<Batch>>>,
    pub(super) notes: UnboundedReceiver<Note>,
    pub(super) metrics: Metrics,
}

impl Sealer {
    /// Seals until reading ends, then marks until appending ends.
    pub(super) async fn run(mut self) -> Result<()> {
        let mut marks = Vec::new();
        let mut notes = Vec::new();
        let mut due = None;
        let mut notes_first = false;
        loop {
            // By turns: notes of a rebuild must not keep other streams from being sealed, nor a backlog
            // keep what has arrived from being marked.
            notes_first = !notes_first;
            match self.next(&mut notes, notes_first, due).await {
                Next::Notes(0) => break,
                Next::Notes(_) => {
                    let sorted = Notes::sort(&mut notes, &mut marks);
                    self.write(sorted, &mut marks).await?;
                    due = match marks.is_empty() {
                        true => None,
                        false => due.or_else(|| Some(Instant::now() + LINGER)),
                    };
                }
                Next::Found(Some(found)) if self.is_appending() => {
                    self.seal(found, std::mem::take(&mut marks)).await?;
                    due = None;
                }
                Next::Found(_) => {
                    // What arrived before is still marked.
                    self.sealed = None;
                    self.found.close();
                }
                Next::Due => {
                    self.log.mark(&std::mem::take(&mut marks)).await?;
                    due = None;
                }
            }
        }
        if !marks.is_empty() {
            self.log.mark(&marks).await?;
        }
        Ok(())
    }

    /// Waits for what is to be done next; of notes and rows that are both there, one comes first.
    async fn next(
        &mut self,
        notes: &mut Vec<Note>,
        notes_first: bool,
        due: Option<Instant>,
    ) -> Next {
        let is_sealing = self.sealed.is_some();
        let lingered = tokio::time::sleep_until(due.unwrap_or_else(Instant::now));
        if notes_first {
            tokio::select! {
                biased;
                () = lingered, if due.is_some() => Next::Due,
                count = self.notes.recv_many(notes, NOTES) => Next::Notes(count),
                found = self.found.recv(), if is_sealing => Next::Found(found),
            }
        } else {
            tokio::select! {
                biased;
                () = lingered, if due.is_some() => Next::Due,
                found = self.found.recv(), if is_sealing => Next::Found(found),
                count = self.notes.recv_many(notes, NOTES) => Next::Notes(count),
            }
        }
    }

    fn is_appending(&self) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| !sealed.is_closed())
    }

    /// One batch: positions first, then the commit that fixes them, and only then on to Redis.
    async fn seal(&mut self, found: Found, marks: Vec<Mark>) -> Result<()> {
        let seal = self.leap.next(self.last_seal);
        let plan = self.heads.plan(seal, found.entries, found.clock.us / 1_000);
        failpoint("before_seal");
        let (batches, new_streams) = (&plan.batches[..], &plan.new_streams[..]);
        self.log
            .seal(Seal { seal, cursor: &found.cursor, batches, new_streams, marks: &marks })
            .await?;
        failpoint("after_seal");
        self.last_seal = seal;
        self.metrics.sealed(plan.batches.iter().map(|batch| batch.entries.len()).sum());
        if let Some(sealed) = &self.sealed {
            // If appending has ended, the log has them.
            let _ = sealed.send(plan.batches).await;
        }
        Ok(())
    }

    /// Writes notes in the order in which each stream needs them: what is marked is the beginning of
    /// a stream at any time, so marks do not wait where later numbers are marked.
    async fn write(&mut self, notes: Notes, marks: &mut Vec<Mark>) -> Result<()> {
        for (stream, n) in &notes.lost {
            self.log.unmark(stream, *n).await?;
        }
        if !notes.reached.is_empty() && !marks.is_empty() {
            self.log.mark(&std::mem::take(marks)).await?;
        }
        if !notes.reached.is_empty() {
            self.log.mark_through(&notes.reached).await?;
        }
        if !notes.states.is_empty() {
            self.log.set_states(&notes.states).await?;
        }
        for (stream, partitions) in notes.splits {
            self.split(&stream, partitions).await?;
        }
        Ok(())
    }

    /// Between two seals, so that each row is on one side of the change.
    async fn split(&mut self, stream: &Arc<str>, partitions: u32) -> Result<()> {
        let ends = self.heads.ends(stream);
        failpoint("before_split");
        if self.log.split(stream, partitions, &ends).await? {
            failpoint("after_split");
            self.heads.split(stream, partitions);
            report::split(stream, ends.len(), partitions);
        }
        Ok(())
    }
}

/// Notes of many streams, sorted so that one statement serves all of a kind.
#[derive(Debug, Default)]
struct Notes {
    lost: Vec<(Arc<str>, u64)>,
    reached: Vec<Reached>,
    states: Vec<StateChange>,
    splits: Vec<(Arc<str>, u32)>,
}

impl Notes {
    /// What is lost is written before what was reached, so a loss takes back what earlier notes
    /// and `marks` say of its stream. Of several states of a stream the last one counts.
    fn sort(notes: &mut Vec<Note>, marks: &mut Vec<Mark>) -> Self {
        let mut sorted = Self::default();
        for note in notes.drain(..) {
            match note {
                Note::Arrived(mark) => {
                    // Behind what was reached: part of it, or it would be marked before it.
                    let reached = sorted.reached.iter_mut().rev().find(|r| r.stream == mark.stream);
                    match reached {
                        Some(reached) => reached.through = mark.last_n,
                        None => marks.push(mark),
                    }
                }
                Note::Reached(reached) => sorted.reached.push(reached),
                Note::Lost(stream, n) => {
                    marks.retain(|mark| mark.stream != stream || mark.last_n <= n);
                    for reached in sorted.reached.iter_mut().filter(|r| r.stream == stream) {
                        reached.through = reached.through.min(n);
                    }
                    sorted.lost.push((stream, n));
                }
                Note::State(change) => {
                    sorted.states.retain(|state| state.stream != change.stream);
                    sorted.states.push(change);
                }
                Note::Split(stream, partitions) => sorted.splits.push((stream, partitions)),
            }
        }
        sorted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_takes_back_what_was_said_before_it_and_nothing_after() {
        let stream: Arc<str> = "a".into();
        let mark = |last_n| Mark { seal: 1, stream: stream.clone(), last_n };
        let reached = |after, through| Reached { stream: stream.clone(), after, through };
        let mut marks = vec![mark(3)];
        let mut notes = vec![
            Note::Arrived(mark(9)),
            Note::Reached(reached(0, 9)),
            Note::Lost(stream.clone(), 5),
            Note::Reached(reached(5, 8)),
        ];
        let sorted = Notes::sort(&mut notes, &mut marks);
        assert_eq!(marks, [mark(3)]);
        assert_eq!(sorted.lost, [(stream.clone(), 5)]);
        assert_eq!(sorted.reached, [reached(0, 5), reached(5, 8)]);
    }

    #[test]
    fn what_arrives_behind_a_replay_is_marked_with_it() {
        let stream: Arc<str> = "a".into();
        let reached = |after, through| Reached { stream: stream.clone(), after, through };
        let mut notes = vec![
            Note::Lost(stream.clone(), 0),
            Note::Reached(reached(0, 8)),
            Note::Arrived(Mark { seal: 1, stream: stream.clone(), last_n: 9 }),
        ];
        let mut marks = Vec::new();
        let sorted = Notes::sort(&mut notes, &mut marks);
        assert!(marks.is_empty());
        assert_eq!(sorted.reached, [reached(0, 9)]);
    }
}
