//! A model of Postgres with an outbox: transactions and what they see, the log, and commits that are lost.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::sync::Notify;
use uuid::Uuid;

use crate::batch::{Batch, Mark};
use crate::entry::Entry;
use crate::error::{Error, Kind, Result, Target};
use crate::group::Group;
use crate::outbox::{Cursor, Head, Snapshot, State, StateChange};
use crate::position::Position;

/// What one commit after another has led to.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) rows: BTreeMap<i64, Row>,
    /// Rows that are not sealed.
    pub(super) unsealed: BTreeSet<i64>,
    pub(super) last_id: i64,
    pub(super) next_xid: u64,
    pub(super) open: BTreeSet<u64>,
    last_ended: u64,
    pub(super) wake_until_s: u64,
    lease: (i64, String),
    lease_until_ms: u64,
    pub(super) cursor: Cursor,
    pub(super) last_seal: i64,
    /// Checkpoints that were ever stored.
    checkpoints: i64,
    pub(super) streams: BTreeMap<Arc<str>, Stream>,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) entry: Arc<Entry>,
    pub(super) xid: u64,
    pub(super) fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    Committed,
}

/// All that the schema holds of one stream.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Stream {
    pub(super) batches: BTreeMap<u64, Logged>,
    pub(super) head: Position,
    pub(super) purged: Position,
    pub(super) groups_lost: bool,
    pub(super) told: Option<(State, Option<String>)>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) phantoms: BTreeSet<Position>,
}

/// A batch as the log has it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Logged {
    pub(super) seal: i64,
    pub(super) first_n: u64,
    pub(super) ms: u64,
    pub(super) ids: Vec<i64>,
    pub(super) dispatched: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) struct Checkpoint {
    pub(super) canary: (String, u64),
    /// Which of all checkpoints it is.
    pub(super) taken: i64,
    pub(super) floor: Position,
    pub(super) groups: Vec<Group>,
}

/// The server.
#[derive(Debug)]
pub(super) struct Postgres {
    pub(super) facts: Facts,
    /// What is on disk.
    durable: Facts,
    /// What a standby that lags may have, the latest last.
    history: Vec<Facts>,
    /// Whether something may be lost in this run, for keeping the past costs time.
    remembers: bool,
    /// Raised at each restart; connections of another boot are dead.
    pub(super) boot: u64,
    pub(super) skew_ms: i64,
    pub(super) listeners: Vec<Arc<Notify>>,
}

/// States of the past that are kept.
const PAST: usize = 40;

pub(super) fn superseded() -> Error {
    Target::Postgres.error(Kind::Superseded, "another relay has taken the lease over")
}

fn snapshot(text: String) -> Snapshot {
    text.parse().expect("a snapshot")
}

impl Postgres {
    pub(super) fn new(remembers: bool) -> Self {
        let facts = Facts {
            rows: BTreeMap::new(),
            unsealed: BTreeSet::new(),
            last_id: 0,
            next_xid: 100,
            open: BTreeSet::new(),
            last_ended: 99,
            wake_until_s: 0,
            lease: (0, String::new()),
            lease_until_ms: 0,
            cursor: Cursor { base: snapshot("100:100:".to_owned()), window: None, high: 0 },
            last_seal: 0,
            checkpoints: 0,
            streams: BTreeMap::new(),
        };
        let (durable, history) = (facts.clone(), Vec::new());
        Self { facts, durable, history, remembers, boot: 0, skew_ms: 0, listeners: Vec::new() }
    }

    // ---- what writers do ----

    pub(super) fn draw_id(&mut self) -> i64 {
        self.facts.last_id += 1;
        self.facts.last_id
    }

    pub(super) fn begin(&mut self) -> u64 {
        let xid = self.facts.next_xid;
        self.facts.next_xid += 1;
        self.facts.open.insert(xid);
        xid
    }

    pub(super) fn insert(&mut self, xid: u64, entry: Entry) {
        let row = Row { xid, fate: Fate::Open, entry: Arc::new(entry) };
        self.facts.rows.insert(row.entry.id, row);
    }

    /// Ends a transaction; `durable` if it waits for the disk.
    pub(super) fn end(&mut self, xid: u64, ids: &[i64], commits: bool, durable: bool) {
        let facts = &mut self.facts;
        facts.open.remove(&xid);
        facts.last_ended = facts.last_ended.max(xid);
        for id in ids {
            match facts.rows.get_mut(id) {
                Some(row) if commits => {
                    row.fate = Fate::Committed;
                    facts.unsealed.insert(*id);
                }
                _ => drop(facts.rows.remove(id)),
            }
        }
        if commits && durable {
            self.committed();
        }
    }

    /// A transaction of somebody else that came and went.
    pub(super) fn mark_xid(&mut self) -> u64 {
        let xid = self.begin();
        self.end(xid, &[], true, false);
        xid
    }

    pub(super) fn notify(&self) {
        self.listeners.iter().for_each(|listener| listener.notify_one());
    }

    fn committed(&mut self) {
        if !self.remembers {
            return;
        }
        self.durable = self.facts.clone();
        self.history.push(self.facts.clone());
        if self.history.len() > PAST {
            self.history.remove(0);
        }
    }

    // ---- what is lost ----

    /// An immediate stop: what had not reached the disk is gone. Returns what there was.
    pub(super) fn crash(&mut self) -> Facts {
        let durable = self.durable.clone();
        self.becomes(durable)
    }

    /// A standby takes over that has not got the latest `lag` commits.
    pub(super) fn fail_over(&mut self, lag: usize) -> Facts {
        let at = self.history.len().saturating_sub(lag + 1);
        let standby = self.history.get(at).cloned().unwrap_or_else(|| self.durable.clone());
        self.history.truncate(at + 1);
        self.durable = standby.clone();
        self.becomes(standby)
    }

    fn becomes(&mut self, mut facts: Facts) -> Facts {
        for xid in std::mem::take(&mut facts.open) {
            facts.rows.retain(|_, row| row.xid != xid);
            facts.last_ended = facts.last_ended.max(xid);
        }
        self.boot += 1;
        self.listeners.clear();
        std::mem::replace(&mut self.facts, facts)
    }

    // ---- the lease ----

    pub(super) fn take_lease(&mut self, holder: &str, length_ms: u64, now_ms: u64) -> Option<i64> {
        let facts = &mut self.facts;
        if facts.lease.1 != holder && facts.lease_until_ms > now_ms {
            return None;
        }
        facts.lease = (facts.lease.0 + 1, holder.to_owned());
        facts.lease_until_ms = now_ms + length_ms;
        let token = facts.lease.0;
        self.committed();
        Some(token)
    }

    pub(super) fn fence(&self, token: i64) -> Result<()> {
        match self.facts.lease.0 == token {
            true => Ok(()),
            false => Err(superseded()),
        }
    }

    pub(super) fn keep_lease(&mut self, token: i64, until_ms: u64) -> Result<()> {
        self.fence(token)?;
        self.facts.lease_until_ms = until_ms;
        Ok(())
    }

    // ---- finding ----

    pub(super) fn snapshot(&self) -> Snapshot {
        let facts = &self.facts;
        let xmax = facts.last_ended + 1;
        let open: Vec<String> =
            facts.open.iter().filter(|xid| **xid < xmax).map(u64::to_string).collect();
        let xmin = facts.open.first().copied().unwrap_or(xmax).min(xmax);
        snapshot(format!("{xmin}:{xmax}:{}", open.join(",")))
    }

    /// Committed rows that `target` shows and `base` does not, with an id above `after`.
    pub(super) fn find(
        &self,
        base: &Snapshot,
        target: &Snapshot,
        after: i64,
        rows: usize,
    ) -> Vec<Entry> {
        let found = self.facts.rows.range(after.saturating_add(1)..);
        let new = found.filter(|(_, row)| {
            row.fate == Fate::Committed && shows(target, row.xid) && !shows(base, row.xid)
        });
        new.take(rows).map(|(_, row)| (*row.entry).clone()).collect()
    }

    /// Every transaction older than `xid` has ended.
    pub(super) fn is_settled(&self, xid: u64) -> bool {
        let xmax = self.facts.last_ended + 1;
        self.facts.open.first().copied().unwrap_or(xmax).min(xmax) > xid
    }

    // ---- the log ----

    pub(super) fn seal(
        &mut self,
        token: i64,
        seal: i64,
        cursor: Cursor,
        batches: &[Batch],
        marks: &[Mark],
    ) -> Result<()> {
        self.fence(token)?;
        let facts = &mut self.facts;
        for batch in batches {
            let ids: Vec<i64> = batch.entries.iter().map(|entry| entry.id).collect();
            facts.unsealed.retain(|id| !ids.contains(id));
            let logged =
                Logged { seal, first_n: batch.first_n, ms: batch.ms, ids, dispatched: false };
            let stream = facts.streams.entry(batch.stream.clone()).or_default();
            stream.batches.insert(batch.last_n(), logged);
        }
        (facts.cursor, facts.last_seal) = (cursor, seal);
        self.mark(token, marks)
    }

    pub(super) fn mark(&mut self, token: i64, marks: &[Mark]) -> Result<()> {
        self.fence(token)?;
        for mark in marks {
            let stream = self.facts.streams.get_mut(&mark.stream);
            if let Some(batch) = stream.and_then(|stream| stream.batches.get_mut(&mark.last_n)) {
                batch.dispatched |= batch.seal == mark.seal;
            }
        }
        self.committed();
        Ok(())
    }

    /// Marks batches whose last number is in this range, or takes marks back.
    pub(super) fn mark_range(
        &mut self,
        token: i64,
        stream: &str,
        numbers: std::ops::RangeInclusive<u64>,
        dispatched: bool,
    ) -> Result<()> {
        self.fence(token)?;
        if let Some(stream) = self.facts.streams.get_mut(stream)
            && numbers.start() <= numbers.end()
        {
            stream.groups_lost |= !dispatched;
            stream.batches.range_mut(numbers).for_each(|(_, batch)| batch.dispatched = dispatched);
        }
        self.committed();
        Ok(())
    }

    pub(super) fn set_states(&mut self, token: i64, changes: &[StateChange]) -> Result<()> {
        self.fence(token)?;
        for change in changes {
            if let Some(stream) = self.facts.streams.get_mut(&change.stream) {
                stream.told = Some((change.state, change.reason.clone()));
            }
        }
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        token: i64,
        stream: &str,
        last: Position,
        phantoms: &[Position],
    ) -> Result<()> {
        self.fence(token)?;
        if let Some(stream) = self.facts.streams.get_mut(stream) {
            stream.phantoms.extend(phantoms);
            stream.batches.range_mut(..=last.n).for_each(|(_, batch)| batch.dispatched = true);
            if stream.head.n < last.n {
                stream.head = last;
            }
        }
        self.committed();
        Ok(())
    }

    pub(super) fn heads(&self) -> Vec<Head> {
        let streams = self.facts.streams.iter();
        streams.map(|(name, stream)| stream.as_head(name)).collect()
    }

    pub(super) fn row(&self, id: i64) -> Option<Entry> {
        self.facts.rows.get(&id).map(|row| (*row.entry).clone())
    }

    pub(super) fn has_pending(&self, stream: &str, events: &[Uuid]) -> bool {
        self.facts.unsealed.iter().any(|id| {
            let entry = &self.facts.rows[id].entry;
            &*entry.stream == stream && events.contains(&entry.event_id)
        })
    }

    // ---- checkpoints and purge ----

    pub(super) fn save(
        &mut self,
        token: i64,
        canary: &(String, u64),
        checkpoints: &[crate::outbox::Checkpoint],
    ) -> Result<Vec<(Arc<str>, Position)>> {
        self.fence(token)?;
        let mut saved = Vec::new();
        for one in checkpoints {
            let Some(stream) = self.facts.streams.get_mut(&one.stream) else { continue };
            if stream.groups_lost && !one.restored {
                continue;
            }
            let floor = stream.floor_at(one.floor.max(stream.purged.n));
            let before = stream.checkpoint.take();
            stream.groups_lost &= one.groups.is_none();
            let (canary, groups) = match (&one.groups, before) {
                (Some(groups), _) => (canary.clone(), groups.clone()),
                (None, Some(before)) => (before.canary, before.groups),
                (None, None) => (canary.clone(), Vec::new()),
            };
            self.facts.checkpoints += 1;
            let taken = self.facts.checkpoints;
            stream.checkpoint = Some(Checkpoint { canary, taken, floor, groups });
            saved.push((one.stream.clone(), floor));
        }
        self.committed();
        Ok(saved)
    }

    /// Takes away what is dispatched and at or below number `n` of a stream.
    pub(super) fn purge(&mut self, stream: &str, n: u64) {
        let Some(stream) = self.facts.streams.get_mut(stream) else { return };
        while let Some((last_n, batch)) = stream.batches.first_key_value() {
            let last_n = *last_n;
            if last_n > n || !batch.dispatched {
                break;
            }
            // The stream carries its head on, when no batch is left.
            let Some((_, batch)) = stream.batches.pop_first() else { break };
            batch.ids.iter().for_each(|id| drop(self.facts.rows.remove(id)));
            stream.purged = Position { ms: batch.ms, n: last_n };
            if stream.head.n < last_n {
                stream.head = stream.purged;
            }
        }
        self.committed();
    }
}

fn shows(snapshot: &Snapshot, xid: u64) -> bool {
    let xmax: u64 = snapshot.xmax().parse().expect("an xid");
    xid < xmax && !snapshot.in_progress().iter().any(|open| *open == xid.to_string())
}

impl Stream {
    /// The position that the log gives to number `n`, or gave before it was lost.
    pub(super) fn locate(&self, n: u64) -> Option<Position> {
        let batch = self.batches.range(n..).next().filter(|(_, batch)| batch.first_n <= n);
        let known = [self.head, self.purged].into_iter().find(|known| known.n == n && n > 0);
        let phantom = self.phantoms.iter().find(|at| at.n == n).copied();
        batch.map(|(_, batch)| Position { ms: batch.ms, n }).or(known).or(phantom)
    }

    fn floor_at(&self, n: u64) -> Position {
        let known = [self.purged, self.head].into_iter().find(|known| known.n == n);
        let batch = self.batches.range(n..).next();
        let ms = known.map(|known| known.ms).or(batch.map(|(_, batch)| batch.ms));
        match n {
            0 => Position::START,
            _ => Position { ms: ms.unwrap_or(0), n },
        }
    }

    /// Nobody needs anything up to here, as of the latest checkpoint.
    pub(super) fn floor(&self) -> Position {
        let floor = self.checkpoint.as_ref().map_or(Position::START, |kept| kept.floor);
        if floor.n > self.purged.n { floor } else { self.purged }
    }

    pub(super) fn sealed(&self) -> Position {
        let last = self.batches.last_key_value();
        let last = last.map_or(Position::START, |(n, batch)| Position { ms: batch.ms, n: *n });
        if last.n > self.head.n { last } else { self.head }
    }

    pub(super) fn dispatched(&self) -> u64 {
        let marked = self.batches.iter().rev().find(|(_, batch)| batch.dispatched);
        marked.map_or(0, |(n, _)| *n).max(self.head.n)
    }

    fn as_head(&self, name: &Arc<str>) -> Head {
        Head {
            stream: name.clone(),
            sealed: self.sealed(),
            dispatched: self.dispatched(),
            floor: self.floor(),
            purged: self.purged,
            canary: self.checkpoint.as_ref().map(|kept| kept.canary.clone()),
            checkpointed_us: self.checkpoint.as_ref().map_or(0, |kept| kept.taken),
            groups_lost: self.groups_lost,
            told: self.told.clone().unwrap_or((State::Active, None)),
        }
    }

    /// Each sealed number that the log still has, with the id of its row.
    pub(super) fn log(&self) -> impl Iterator<Item = (Position, i64)> {
        self.batches.values().flat_map(|batch| {
            let numbers = batch.first_n..;
            numbers.zip(&batch.ids).map(|(n, id)| (Position { ms: batch.ms, n }, *id))
        })
    }
}
