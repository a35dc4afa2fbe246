//! What goes on beside the appender's loop: requests in flight, lookups, replays, audits.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::audit::Audit;
use super::replay::Chunk;
use crate::batch::Mark;
use crate::error::Result;
use crate::position::Position;
use crate::retry::Waits;
use crate::stream::{Append, Appended, Life, Place};

/// One request in flight: which stream, in which epoch, up to where.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) epoch: u64,
    pub(super) last: Position,
    pub(super) mark: Mark,
    /// When each entry was inserted, in microseconds.
    pub(super) created_us: Vec<i64>,
}

impl Ticket {
    pub(super) fn new(epoch: u64, append: &Append, mark: Mark) -> Self {
        Self { epoch, last: append.last(), mark, created_us: append.created_us() }
    }
}

pub(super) type Answers = Result<(Vec<Ticket>, Vec<Appended>)>;

/// What tasks beside the loop report.
#[derive(Debug)]
pub(super) enum Report {
    /// Whether the log knows a place.
    Examined { stream: Arc<str>, epoch: u64, place: Place, in_log: bool },
    /// A chunk of a replay.
    Replayed { stream: Arc<str>, epoch: u64, from: Position, chunk: Chunk },
    /// A stream moved on to its floor.
    Moved { stream: Arc<str>, epoch: u64, answer: Appended },
    /// Where streams are that were not where they should be.
    Looked { fresh: bool, places: Vec<(Arc<str>, u64, Place)> },
    /// An audit of all streams.
    Audited(Audit),
    /// The life of the server.
    Pulse(Life),
    /// Redis had no memory or no time for an audit or a pulse; the next one asks again.
    Busy { audit: bool },
}

/// What is going on beside the loop; nothing at first.
#[derive(Default)]
pub(super) struct Work {
    pub(super) in_flight: FuturesOrdered<BoxFuture<'static, Answers>>,
    pub(super) tasks: JoinSet<Result<Report>>,
    pub(super) to_replay: VecDeque<Arc<str>>,
    pub(super) replaying: usize,
    pub(super) auditing: bool,
    /// When Redis was last found without an identity, and the streams not looked at since: what they
    /// lost went with everything else.
    pub(super) emptied: Option<(Instant, HashSet<Arc<str>>)>,
    /// That everything was lost has been counted.
    pub(super) all_told: bool,
    /// Streams that Redis refused for now, and when to try again.
    pub(super) refused: HashMap<Arc<str>, Refused>,
}

impl Work {
    /// Redis was found without an identity, and these are the streams it should have.
    pub(super) fn empty(&mut self, streams: HashSet<Arc<str>>) {
        self.emptied = Some((Instant::now(), streams));
        self.all_told = false;
    }

    /// A stream has been looked at, in a look that began at `asked`. Returns whether what it lost went
    /// with everything else.
    pub(super) fn looked_at(&mut self, stream: &Arc<str>, asked: Instant) -> bool {
        let emptied = self.emptied.as_mut().filter(|(at, _)| *at <= asked);
        emptied.is_some_and(|(_, streams)| streams.remove(stream))
    }
}

/// A stream that Redis refused for now.
pub(super) struct Refused {
    /// When to try again; None while it is being tried.
    pub(super) at: Option<Instant>,
    pub(super) waits: Waits,
}
