//! Where one stream stands on its way into Redis. Pure.
//!
//! ```text
//!   Examining ──in step──▶ Live ──not where it should be──▶ Examining
//!       │                   ▲
//!       ├──behind──▶ Replaying ──last chunk on its way──▶ Joining ──it arrived──▶ Live
//!       │                   │
//!       └──a person must act, or no room──▶ Held ──the next audit, or a retry──▶ Examining
//! ```
//!
//! Only a live stream is given rows as they are sealed. For any other, rows are dropped from memory
//! and read again from the log, so a stream that cannot go on costs nothing and holds up nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::batch::{Batch, Mark};
use crate::outbox::State;
use crate::position::Position;
use crate::stream::Append;

/// One stream's progress.
#[derive(Debug)]
pub struct Progress {
    sealed: Position,
    at: Position,
    sent: Position,
    confirmed: u64,
    delivered: u64,
    floor: Position,
    purged: Position,
    epoch: u64,
    mode: Mode,
    paused: bool,
    sound: bool,
    checkpointed: bool,
    losses: Losses,
    /// State last told to people, and why.
    pub told: (State, Option<String>),
}

/// Counts how often the groups of a stream were lost. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct Losses(Arc<AtomicU64>);

impl Losses {
    /// How often, until now.
    pub fn now(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn count(&self) {
        self.0.fetch_add(1, Ordering::AcqRel);
    }
}

/// What is being done with the stream.
#[derive(Debug)]
pub enum Mode {
    /// Where Redis has it is being looked at.
    Examining,
    /// In step; rows are appended as they are sealed.
    Live,
    /// Behind; the log is being read.
    Replaying,
    /// The last chunk of the log is on its way; what is sealed meanwhile waits here.
    Joining(Waiting),
    /// Nothing is done until it is examined or retried.
    Held,
}

/// Batches that wait in memory for the chunk before them.
#[derive(Debug, Default)]
pub struct Waiting {
    batches: Vec<Batch>,
    bytes: usize,
}

impl Waiting {
    /// Number of the first entry that waits.
    pub fn first_n(&self) -> Option<u64> {
        self.batches.first().map(|batch| batch.first_n)
    }
}

/// A batch on its way, with the mark that is due when it arrives.
#[derive(Debug)]
pub struct Outgoing {
    /// The request.
    pub append: Append,
    /// What to mark.
    pub mark: Mark,
}

/// Bytes that may wait in memory per stream; beyond it the log is read instead.
const WAITING: usize = 2 << 20;

impl Progress {
    /// A stream that is sealed up to `sealed`, was in Redis up to number `confirmed`, and needs
    /// nothing up to `floor` any more.
    pub fn new(sealed: Position, confirmed: u64, floor: Position) -> Self {
        Self {
            sealed,
            at: Position::START,
            sent: Position::START,
            confirmed,
            delivered: confirmed,
            floor,
            purged: Position::START,
            epoch: 0,
            mode: Mode::Examining,
            paused: false,
            sound: true,
            checkpointed: false,
            losses: Losses::default(),
            told: (State::Active, None),
        }
    }

    /// A stream that has had nothing sealed and, as far as we know, is not in Redis.
    pub fn fresh() -> Self {
        Self { mode: Mode::Live, ..Self::new(Position::START, 0, Position::START) }
    }

    /// Last sealed position.
    pub fn sealed(&self) -> Position {
        self.sealed
    }

    /// Where Redis has it, as last confirmed.
    pub fn at(&self) -> Position {
        self.at
    }

    /// Last position on its way to Redis, or confirmed if none is.
    pub fn sent(&self) -> Position {
        self.sent
    }

    /// Last number known to have been in Redis.
    pub fn confirmed(&self) -> u64 {
        self.confirmed
    }

    /// Last number that has ever been in Redis; a loss does not take it back.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Somebody holds it.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Every consumer group has acknowledged up to here.
    pub fn floor(&self) -> Position {
        self.floor
    }

    /// A checkpoint has stored that nobody needs an entry up to here.
    pub fn set_floor(&mut self, floor: Position) {
        self.floor = floor;
    }

    /// The log has been purged up to here.
    pub fn purged(&self) -> Position {
        self.purged
    }

    /// The log was found to be purged up to here.
    pub fn set_purged(&mut self, purged: Position) {
        self.purged = purged;
    }

    /// Its consumer groups are where they were; false from a loss until they have been put back.
    /// Meanwhile nothing that they say is stored, and nothing is trimmed by it.
    pub fn is_sound(&self) -> bool {
        self.sound
    }

    /// Redis may have lost its groups.
    pub fn lose_groups(&mut self) {
        self.sound = false;
        self.losses.count();
    }

    /// How often its groups were lost, as whoever looks at them meanwhile can see.
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// A checkpoint of it is stored, be it of a group that is gone.
    pub fn is_checkpointed(&self) -> bool {
        self.checkpointed
    }

    /// As [`Progress::is_checkpointed`] says.
    pub fn set_checkpointed(&mut self) {
        self.checkpointed = true;
    }

    /// Redis has all that is sealed.
    pub fn is_in_step(&self) -> bool {
        self.at == self.sealed
    }

    /// Its groups have been put back.
    pub fn restored(&mut self) {
        self.sound = true;
    }

    /// Changes whenever what is on its way is no longer to be believed.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// What is being done with it.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// A batch was sealed. Returns it if it is to be sent now.
    pub fn seal(&mut self, batch: Batch) -> Option<Outgoing> {
        self.sealed = batch.last();
        match &mut self.mode {
            Mode::Live => return Some(self.send(batch)),
            Mode::Joining(waiting) if waiting.bytes < WAITING => {
                waiting.bytes += batch.entries.iter().map(|entry| entry.size()).sum::<usize>();
                waiting.batches.push(batch);
            }
            Mode::Joining(_) => self.mode = Mode::Replaying,
            Mode::Examining | Mode::Replaying | Mode::Held => {}
        }
        None
    }

    fn send(&mut self, batch: Batch) -> Outgoing {
        let (expected, mark) = (self.sent, batch.mark());
        self.sent = batch.last();
        let append = Append {
            stream: batch.stream,
            expected,
            first_n: batch.first_n,
            ms: vec![batch.ms; batch.entries.len()],
            entries: batch.entries,
        };
        Outgoing { append, mark }
    }

    /// Redis has it at `last`, in answer to a request of `epoch`. False if that is no longer to be
    /// believed.
    pub fn arrived(&mut self, epoch: u64, last: Position) -> bool {
        let believed = epoch == self.epoch;
        if believed {
            self.at = last;
            self.confirmed = self.confirmed.max(last.n);
            self.delivered = self.delivered.max(last.n);
        }
        believed
    }

    /// Stops believing what is on its way and looks where Redis has it.
    pub fn examine(&mut self) {
        self.epoch += 1;
        self.mode = Mode::Examining;
    }

    /// Stops believing what is on its way and waits.
    pub fn hold(&mut self) {
        self.epoch += 1;
        self.mode = Mode::Held;
    }

    /// Holds it until [`Progress::resume`], whatever is found meanwhile.
    pub fn pause(&mut self) {
        self.paused = true;
        self.hold();
    }

    /// Nobody holds it any more; it is to be examined.
    pub fn resume(&mut self) {
        self.paused = false;
    }

    /// Redis has it at `at` and that is ours: goes on from there by reading the log.
    pub fn replay(&mut self, at: Position) {
        self.epoch += 1;
        (self.at, self.sent, self.confirmed) = (at, at, at.n);
        self.delivered = self.delivered.max(at.n);
        self.mode = Mode::Replaying;
    }

    /// The chunk that is being read reaches what is sealed now: what is sealed from here on waits
    /// for it in memory.
    pub fn join(&mut self) {
        self.mode = Mode::Joining(Waiting::default());
    }

    /// All of the log is in Redis. Returns what waited, to be sent now.
    pub fn go_live(&mut self) -> Vec<Outgoing> {
        self.sent = self.at;
        let waiting = match std::mem::replace(&mut self.mode, Mode::Live) {
            Mode::Joining(waiting) => waiting.batches,
            _ => Vec::new(),
        };
        waiting.into_iter().map(|batch| self.send(batch)).collect()
    }

    /// Redis has it at `at`, which is all that is sealed.
    pub fn in_step(&mut self, at: Position) {
        self.epoch += 1;
        (self.at, self.sent, self.confirmed) = (at, at, at.n);
        self.delivered = self.delivered.max(at.n);
        self.mode = Mode::Live;
    }

    /// The stream goes on behind `last`: entries in Redis whose rows Postgres lost.
    pub fn settle(&mut self, last: Position) {
        self.sealed = self.sealed.max(last);
        self.in_step(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Entry;

    const fn at(ms: u64, n: u64) -> Position {
        Position { ms, n }
    }

    fn batch(first_n: u64, ms: u64) -> Batch {
        let entry = Entry {
            id: 1,
            event_id: uuid::Uuid::nil(),
            stream: "a".into(),
            key: None,
            kind: None,
            payload: "{}".into(),
            headers: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        };
        Batch { seal: 1, stream: "a".into(), first_n, ms, entries: vec![entry] }
    }

    #[test]
    fn each_append_of_a_live_stream_names_the_one_before() {
        let mut stream = Progress::fresh();
        let first = stream.seal(batch(1, 10)).expect("an append");
        let second = stream.seal(batch(2, 11)).expect("an append");
        assert_eq!((first.append.expected, second.append.expected), (Position::START, at(10, 1)));
        assert!(stream.arrived(stream.epoch(), at(10, 1)));
        assert_eq!((stream.at(), stream.sent()), (at(10, 1), at(11, 2)));
    }

    #[test]
    fn what_was_on_its_way_before_an_examination_is_not_believed() {
        let mut stream = Progress::fresh();
        stream.seal(batch(1, 10));
        let before = stream.epoch();
        stream.examine();
        assert!(!stream.arrived(before, at(10, 1)));
        assert!(stream.seal(batch(2, 11)).is_none(), "dropped; the log has it");
        assert_eq!(stream.sealed(), at(11, 2));
    }

    #[test]
    fn what_is_sealed_while_the_last_chunk_is_on_its_way_follows_it() {
        let mut stream = Progress::new(at(10, 1), 0, Position::START);
        stream.replay(Position::START);
        stream.join();
        assert!(stream.seal(batch(2, 11)).is_none());
        assert!(stream.arrived(stream.epoch(), at(10, 1)));
        let outgoing = stream.go_live();
        assert_eq!(outgoing.len(), 1);
        assert_eq!((outgoing[0].append.expected, outgoing[0].mark.last_n), (at(10, 1), 2));
        assert_eq!(stream.sent(), at(11, 2));
    }
}
