//! What goes on beside the appender's loop: requests in flight, lookups, replays, audits.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesOrdered;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::audit::Audit;
use super::checkpoint::Round;
use super::replay::Chunk;
use super::servers::Checkpoints;
use crate::batch::Mark;
use crate::error::Result;
use crate::group::Group;
use crate::position::Position;
use crate::retry::Waits;
use crate::stream::{Append, Appended, Canary, Life, Place, Restored, Shard};

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
    /// Whether the log knows a place, and how far it has been purged.
    Examined { stream: Arc<str>, epoch: u64, place: Place, in_log: bool, purged: Position },
    /// A chunk of a replay.
    Replayed { stream: Arc<str>, epoch: u64, from: Position, chunk: Chunk },
    /// Groups of a stream were put where they were, and the stream behind its floor.
    Restored { stream: Arc<str>, epoch: u64, answer: Restored, groups: Vec<Group> },
    /// Groups of a stream got back what they had not acknowledged; `end` if the log has no more.
    Pended { stream: Arc<str>, epoch: u64, end: bool, answer: Appended },
    /// Groups were looked at, primary by primary, while the canary of each was known to be this.
    Checkpointed { checkpoints: Box<dyn Checkpoints>, rounds: Vec<(Shard, Option<Canary>, Round)> },
    /// A primary is another one than the one with this canary: without an identity, or with a new canary.
    Lost { shard: Shard, known: Option<Canary>, canary: Option<Canary> },
    /// It could not be found out what was lost; the next round asks again.
    NotLost(Shard),
    /// Where streams are that were not where they should be.
    Looked { fresh: Vec<Shard>, places: Vec<(Arc<str>, u64, Place)> },
    /// An audit of all streams.
    Audited(Audit),
    /// The lives of all primaries.
    Pulse(Vec<Life>),
    /// Redis had no memory or no time for an audit or a pulse; the next one asks again.
    Busy { audit: bool },
}

/// Groups of a stream on their way back.
#[derive(Clone, Debug)]
pub(super) struct Comeback {
    pub(super) groups: Vec<Group>,
    /// Names of those that are gone.
    pub(super) gone: Vec<String>,
}

/// A stream whose groups are to be put back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rescue {
    /// Where Redis has it.
    pub(super) from: Position,
    /// It is to be behind this.
    pub(super) floor: Position,
    pub(super) epoch: u64,
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
    pub(super) emptied: Option<(Instant, BTreeSet<Arc<str>>)>,
    /// That everything was lost has been counted.
    pub(super) all_told: bool,
    /// Streams that Redis refused for now, and when to try again.
    pub(super) refused: BTreeMap<Arc<str>, Refused>,
    /// Streams that wait with their groups for the round of checkpoints that is under way.
    pub(super) to_restore: BTreeMap<Arc<str>, Rescue>,
    /// Groups that are to get back what they had not acknowledged.
    pub(super) pending: BTreeMap<Arc<str>, Comeback>,
    /// Streams to look at as soon as the round that is under way has ended.
    pub(super) urgent: BTreeSet<Arc<str>>,
    /// New partitions that get their groups for the first time: that they have none is no loss.
    pub(super) opened: BTreeSet<Arc<str>>,
    /// That groups were lost has been counted.
    pub(super) groups_told: bool,
}

impl Work {
    /// Redis was found without an identity, and these are the streams it should have.
    pub(super) fn empty(&mut self, streams: BTreeSet<Arc<str>>) {
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
    /// Entries that it has room for, where it said so.
    pub(super) room: Option<u64>,
}

impl Refused {
    pub(super) fn new() -> Self {
        Self { at: None, waits: Waits::new(), room: None }
    }

    /// There is room now.
    pub(super) fn hurry(&mut self) {
        if self.at.is_some() {
            (self.at, self.room) = (Some(Instant::now()), None);
        }
    }
}
