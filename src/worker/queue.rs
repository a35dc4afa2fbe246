//! What a worker holds, and what of it may begin: pure. Times are since the worker began.
//!
//! Events of one key stand behind each other, in the order of their positions, and the first of them runs or
//! waits alone: so one that is to be tried again holds back those behind it, and no others.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::event::Event;
use crate::position::Position;

/// Events held at most, most of them behind one that waits: as many as the relay's checkpoints keep of a
/// group.
const MOST: usize = 10_000;
/// Bytes held at most.
const MOST_BYTES: usize = 64 << 20;

/// An event with where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) event: Event,
    pub(super) origin: Origin,
    /// Its attempt is counted in Redis before it begins.
    pub(super) counted: bool,
    /// Nothing else runs beside it: it may be what kills workers.
    pub(super) alone: bool,
    /// This attempt was counted.
    pub(super) charged: bool,
    /// It is to be given up, for this reason.
    pub(super) doomed: Option<String>,
    /// It is not tried before.
    pub(super) due: Option<Duration>,
}

/// Where an event comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Its stream.
    Stream,
    /// The dead letters: somebody wants it tried once more.
    DeadLetter,
}

/// What must not be worked on at the same time.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Key {
    /// Events of one key.
    Of(Arc<str>),
    /// An event without a key.
    Alone(Position),
}

/// Events of one key.
#[derive(Debug, Default)]
struct Line {
    running: bool,
    jobs: VecDeque<Job>,
    place: Place,
}

/// Where a line stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    /// Its first event runs, or it has none.
    #[default]
    Nowhere,
    /// Its first event may begin.
    Ready,
    /// Its first event may begin then.
    Waiting(Duration),
}

/// All that a worker holds.
#[derive(Debug, Default)]
pub(super) struct Queue {
    lines: HashMap<Key, Line>,
    /// Keys whose first event may begin, in order; also some that no longer stand there.
    ready: VecDeque<Key>,
    waiting: BTreeSet<(Duration, Key)>,
    held: HashSet<Position>,
    /// When events that were forgotten were due: read again they wait no longer than they had to.
    were_due: HashMap<Position, Duration>,
    bytes: usize,
    /// Keys whose first event may begin.
    open: usize,
    running: usize,
    alone: bool,
}

impl Job {
    pub(super) fn key(&self) -> Key {
        match &self.event.key {
            Some(key) => Key::Of(key.as_str().into()),
            None => Key::Alone(self.event.position),
        }
    }
}

impl Line {
    /// Puts an event before those that come after it.
    fn insert(&mut self, job: Job) {
        let position = job.event.position;
        let at = self.jobs.partition_point(|other| other.event.position < position);
        self.jobs.insert(at, job);
    }

    /// Takes out what came by the stream and does not run.
    fn forget(&mut self) -> VecDeque<Job> {
        let all = std::mem::take(&mut self.jobs).into_iter();
        let (kept, forgotten) = all.partition(|job| job.origin == Origin::DeadLetter);
        self.jobs = kept;
        forgotten
    }

    fn open(&self) -> usize {
        usize::from(self.place == Place::Ready)
    }

    /// Where it stands at `now`.
    fn stands(&self, now: Duration) -> Place {
        match self.jobs.front() {
            Some(first) if !self.running => match first.due {
                Some(due) if due > now => Place::Waiting(due),
                _ => Place::Ready,
            },
            _ => Place::Nowhere,
        }
    }
}

impl Queue {
    /// Adds an event, in its place; one that is held already is held once.
    pub(super) fn push(&mut self, mut job: Job, now: Duration) {
        if self.held.insert(job.event.position) {
            if let Some(was_due) = self.were_due.remove(&job.event.position) {
                job.due = job.due.map(|due| due.min(was_due));
            }
            self.bytes += job.event.bytes();
            self.change(&job.key(), now, |line| line.insert(job));
        }
    }

    /// Gives back an event whose attempt has ended, to be tried again when it is due.
    pub(super) fn put_back(&mut self, job: Job, now: Duration) {
        self.ended();
        self.change(&job.key(), now, |line| {
            line.running = false;
            line.insert(job);
        });
    }

    /// Takes leave of an event whose attempt has ended for good.
    pub(super) fn settle(&mut self, job: &Job, now: Duration) {
        self.ended();
        self.let_go(job);
        self.change(&job.key(), now, |line| line.running = false);
    }

    /// The next event that may begin.
    pub(super) fn take(&mut self, now: Duration) -> Option<Job> {
        while let Some((due, key)) = self.waiting.first().cloned()
            && due <= now
        {
            self.change(&key, now, |_| ());
        }
        if self.alone {
            return None;
        }
        loop {
            let key = self.ready.front()?;
            let line = self.lines.get(key).filter(|line| line.place == Place::Ready);
            let Some(first) = line.and_then(|line| line.jobs.front()) else {
                self.ready.pop_front();
                continue;
            };
            if first.alone && self.running > 0 {
                return None;
            }
            let key = self.ready.pop_front()?;
            let job = self.change(&key, now, |line| {
                line.running = true;
                line.jobs.pop_front()
            })?;
            (self.running, self.alone) = (self.running + 1, job.alone);
            return Some(job);
        }
    }

    /// Forgets all that came by the stream and does not run: it will be read again.
    pub(super) fn forget(&mut self, now: Duration) {
        self.were_due.retain(|_, due| *due > now);
        let keys: Vec<Key> = self.lines.keys().cloned().collect();
        for key in keys {
            let forgotten = self.change(&key, now, Line::forget);
            for job in forgotten {
                self.let_go(&job);
                if let Some(due) = job.due {
                    self.were_due.insert(job.event.position, due);
                }
            }
        }
    }

    /// Forgets what came by the stream and stands behind an event that is no longer ours: that one comes
    /// again first.
    pub(super) fn forget_behind(&mut self, job: &Job, now: Duration) {
        let forgotten = self.change(&job.key(), now, Line::forget);
        forgotten.iter().for_each(|job| self.let_go(job));
    }

    /// How many events may be added, so that `ahead` stand ready.
    pub(super) fn room(&self, ahead: usize) -> usize {
        match self.bytes < MOST_BYTES {
            true => ahead.saturating_sub(self.open).min(MOST.saturating_sub(self.held.len())),
            false => 0,
        }
    }

    /// When the first one that waits may begin.
    pub(super) fn due(&self) -> Option<Duration> {
        self.waiting.first().map(|(due, _)| *due)
    }

    /// Events that run.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    fn ended(&mut self) {
        self.running -= 1;
        // One that runs alone was the only one.
        self.alone &= self.running > 0;
    }

    fn let_go(&mut self, job: &Job) {
        self.held.remove(&job.event.position);
        self.bytes -= job.event.bytes();
    }

    /// Changes a line, and what is known of it.
    fn change<T>(&mut self, key: &Key, now: Duration, change: impl FnOnce(&mut Line) -> T) -> T {
        let line = self.lines.entry(key.clone()).or_default();
        self.open -= line.open();
        let changed = change(line);
        let (before, after) = (line.place, line.stands(now));
        line.place = after;
        self.open += line.open();
        if line.jobs.is_empty() && !line.running {
            self.lines.remove(key);
        }
        if before != after {
            if let Place::Waiting(due) = before {
                self.waiting.remove(&(due, key.clone()));
            }
            match after {
                Place::Ready => self.ready.push_back(key.clone()),
                Place::Waiting(due) => _ = self.waiting.insert((due, key.clone())),
                Place::Nowhere => {}
            }
        }
        changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(n: u64, key: &str) -> Job {
        let event = Event {
            id: uuid::Uuid::from_u128(n.into()),
            stream: "orders".to_owned(),
            position: Position { ms: 1, n },
            key: (!key.is_empty()).then(|| key.to_owned()),
            kind: None,
            at: String::new(),
            payload: "{}".to_owned(),
            headers: None,
            given_at: std::time::SystemTime::UNIX_EPOCH,
            attempt: 1,
        };
        let (origin, doomed, due) = (Origin::Stream, None, None);
        Job { event, origin, counted: false, charged: false, alone: false, doomed, due }
    }

    fn queue(jobs: impl IntoIterator<Item = Job>, now: Duration) -> Queue {
        let mut queue = Queue::default();
        jobs.into_iter().for_each(|job| queue.push(job, now));
        queue
    }

    fn taken(queue: &mut Queue, now: Duration) -> Vec<u64> {
        std::iter::from_fn(|| queue.take(now)).map(|job| job.event.position.n).collect()
    }

    #[test]
    fn events_of_a_key_begin_one_after_the_other_and_others_beside_them() {
        let now = Duration::ZERO;
        let mut queue = queue([job(1, "a"), job(2, "a"), job(3, "b"), job(4, ""), job(5, "")], now);
        assert_eq!(taken(&mut queue, now), [1, 3, 4, 5]);
        queue.settle(&job(3, "b"), now);
        assert!(taken(&mut queue, now).is_empty());
        queue.settle(&job(1, "a"), now);
        assert_eq!(taken(&mut queue, now), [2]);
        [job(2, "a"), job(4, ""), job(5, "")].iter().for_each(|job| queue.settle(job, now));
        assert!(queue.lines.is_empty() && queue.held.is_empty() && queue.bytes == 0);
        assert_eq!((queue.open, queue.running), (0, 0));
    }

    #[test]
    fn one_that_waits_holds_back_its_key_alone() {
        let (now, later) = (Duration::ZERO, Duration::from_secs(5));
        let mut queue = queue([job(1, "a"), job(2, "a"), job(3, "b"), job(4, "b")], now);
        let first = queue.take(now).expect("the first may begin");
        queue.put_back(Job { due: Some(later), ..first }, now);
        assert_eq!((queue.due(), queue.room(10)), (Some(later), 9));
        assert_eq!(taken(&mut queue, now), [3]);
        queue.settle(&job(3, "b"), now);
        assert_eq!(taken(&mut queue, now), [4]);
        assert_eq!(taken(&mut queue, later), [1]);
        assert_eq!(queue.due(), None);
    }

    #[test]
    fn an_event_is_held_once_and_in_its_place() {
        let now = Duration::ZERO;
        let mut queue = queue([job(3, "a"), job(3, "a"), job(5, "a"), job(4, "a")], now);
        assert_eq!(taken(&mut queue, now), [3]);
        // Read again while it runs, as after an error.
        queue.push(job(3, "a"), now);
        queue.push(job(2, "a"), now);
        queue.settle(&job(3, "a"), now);
        for n in [2, 4, 5] {
            assert_eq!(taken(&mut queue, now), [n]);
            queue.settle(&job(n, "a"), now);
        }
        assert!(taken(&mut queue, now).is_empty());
    }

    #[test]
    fn what_is_forgotten_comes_again_behind_what_runs() {
        let (now, later) = (Duration::ZERO, Duration::from_secs(5));
        let waiting = Job { due: Some(later), ..job(6, "c") };
        let mut queue = queue([job(1, "a"), job(2, "a"), job(3, "b"), waiting], now);
        let first = queue.take(now).expect("the first may begin");
        queue.forget(now);
        assert_eq!((queue.room(10), queue.due(), queue.held.len()), (10, None, 1));
        [job(1, "a"), job(2, "a"), job(3, "b")].into_iter().for_each(|job| queue.push(job, now));
        assert_eq!(taken(&mut queue, now), [3]);
        queue.put_back(first, now);
        assert_eq!(taken(&mut queue, now), [1]);
        queue.settle(&job(1, "a"), now);
        assert_eq!(taken(&mut queue, now), [2]);
    }

    #[test]
    fn a_suspect_runs_alone() {
        let now = Duration::ZERO;
        let suspect = Job { alone: true, ..job(2, "b") };
        let mut queue = queue([job(1, "a"), suspect.clone(), job(3, "c")], now);
        assert_eq!(taken(&mut queue, now), [1]);
        queue.settle(&job(1, "a"), now);
        assert_eq!(taken(&mut queue, now), [2]);
        // It may be none any more when it is given back.
        queue.put_back(Job { alone: false, due: Some(Duration::from_secs(5)), ..suspect }, now);
        assert_eq!(taken(&mut queue, now), [3]);
    }

    #[test]
    fn what_waited_before_it_was_forgotten_waits_no_longer() {
        let (now, later) = (Duration::ZERO, Duration::from_secs(5));
        let mut queue = queue([Job { due: Some(later), ..job(1, "a") }], now);
        queue.forget(now);
        queue.push(Job { due: Some(10 * later), ..job(1, "a") }, now);
        assert_eq!(queue.due(), Some(later));
    }

    #[test]
    fn a_key_that_runs_leaves_room_for_others() {
        let now = Duration::ZERO;
        let mut queue = queue((1..=50).map(|n| job(n, "a")), now);
        assert_eq!(queue.room(10), 9);
        assert_eq!(taken(&mut queue, now), [1]);
        assert_eq!(queue.room(10), 10);
        queue.settle(&job(1, "a"), now);
        assert_eq!(queue.room(10), 9);
    }

    #[test]
    fn room_ends_where_memory_does() {
        let now = Duration::ZERO;
        let later = Some(now + Duration::from_secs(5));
        let jobs = (1..=MOST as u64).map(|n| Job { due: later, ..job(n, "a") });
        let mut queue = queue(jobs, now);
        assert_eq!(queue.room(10), 0);
        queue.forget(now);
        assert_eq!(queue.room(10), 10);
        let mut large = job(1, "a");
        large.event.payload = " ".repeat(MOST_BYTES);
        queue.push(large, now);
        assert_eq!(queue.room(10), 0);
    }
}
