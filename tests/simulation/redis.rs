//! A model of Redis with streams and consumer groups, with the steps that the relay's scripts take.

use std::collections::BTreeMap;
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

use crate::group::{Group, Pending};
use crate::position::Position;
use crate::stream::{Append, Appended, Canary, Claim, Full, Limits, Owner, Place, Restored, View};

/// An entry, as its fields.
pub(super) type Fields = Arc<Vec<(&'static str, String)>>;

/// A stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Stream {
    pub(super) entries: BTreeMap<Position, Fields>,
    pub(super) last: Position,
    pub(super) groups: BTreeMap<String, Members>,
}

/// A consumer group.
#[derive(Clone, Debug, Default)]
pub(super) struct Members {
    pub(super) delivered: Position,
    pub(super) pending: BTreeMap<Position, (String, u64, u64)>,
}

/// What a Redis holds.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    identity: Option<(String, Canary)>,
    pub(super) streams: BTreeMap<Arc<str>, Stream>,
}

/// The server.
#[derive(Debug, Default)]
pub(super) struct Redis {
    pub(super) held: Held,
    /// Raised at each restart.
    pub(super) boot: u64,
    /// It has no memory for writes until then, in milliseconds of its clock.
    pub(super) full_until_ms: u64,
    nonces: u64,
}

impl Stream {
    fn following(at: Position) -> Position {
        if at == Position::START { at } else { Position { ms: at.ms, n: at.n + 1 } }
    }

    /// What a group needs first.
    fn needs(group: &Members) -> Position {
        let needed = Self::following(group.delivered);
        group.pending.keys().next().map_or(needed, |first| needed.min(*first))
    }

    fn number_before(&self, id: Position) -> u64 {
        match self.entries.keys().next() {
            Some(first) if id <= *first => first.n.saturating_sub(1),
            Some(_) if id <= self.last => {
                self.entries.range(..id).next_back().map_or(0, |(at, _)| at.n)
            }
            _ => self.last.n,
        }
    }

    fn group(&self, name: &str, group: &Members) -> Group {
        let first = self.entries.keys().next().copied();
        let needed = Self::needs(group);
        let mut floor = self.number_before(needed);
        if needed <= first.unwrap_or(self.last) {
            floor = floor.min(needed.n.saturating_sub(1));
        }
        let pending = group.pending.iter().map(|(position, (consumer, given, count))| Pending {
            position: *position,
            consumer: consumer.clone(),
            given_ms: *given,
            deliveries: *count,
        });
        Group {
            name: name.to_owned(),
            delivered: group.delivered,
            read: None,
            given: self.number_before(Self::following(group.delivered)),
            floor,
            waiting: group.pending.len() as u64,
            pending: Some(pending.collect()),
            dangling: 0,
            idle_ms: Some(0),
        }
    }

    pub(super) fn view(&self) -> View {
        View {
            place: Place::At(self.last),
            first: self.entries.keys().next().copied(),
            entries: self.entries.len() as u64,
            bytes: 0,
            removed: None,
            groups: self.groups.iter().map(|(name, group)| self.group(name, group)).collect(),
        }
    }
}

impl Redis {
    // ---- identity ----

    pub(super) fn claim(&mut self, owner: &Owner) -> Claim {
        if self.held.identity.is_some() {
            return Claim::Ours;
        }
        let canary = Canary { nonce: self.nonce(), count: 0 };
        self.held.identity = Some((owner.id.clone(), canary));
        Claim::Fresh
    }

    fn nonce(&mut self) -> String {
        self.nonces += 1;
        format!("nonce {}", self.nonces)
    }

    pub(super) fn canary(&mut self, by: u64) -> Option<Canary> {
        let (_, canary) = self.held.identity.as_mut()?;
        canary.count += by;
        Some(canary.clone())
    }

    pub(super) fn renew_canary(&mut self, owner: &Owner) -> Canary {
        let canary = Canary { nonce: self.nonce(), count: 0 };
        self.held.identity = Some((owner.id.clone(), canary.clone()));
        canary
    }

    // ---- streams ----

    pub(super) fn place(&self, stream: &str) -> Place {
        let stream = self.held.streams.get(stream);
        stream.map_or(Place::Missing, |stream| Place::At(stream.last))
    }

    pub(super) fn last(&self, stream: &str) -> Position {
        self.held.streams.get(stream).map_or(Position::START, |stream| stream.last)
    }

    pub(super) fn append(&mut self, append: &Append, limits: Limits) -> Appended {
        let last = self.last(&append.stream);
        if last != append.expected {
            return Appended::Elsewhere(last);
        }
        let adding = append.entries.len() as u64;
        let held = self.held.streams.get(&append.stream);
        let room = limits.entries.saturating_sub(held.map_or(0, |held| held.entries.len() as u64));
        if limits.entries > 0 && room < adding {
            let slowest =
                held.and_then(|held| held.groups.iter().min_by_key(|(_, g)| Stream::needs(g)));
            let group = slowest.map(|(name, _)| name.clone());
            return Appended::Full(Full { room, bound: "entries".to_owned(), group });
        }
        let held = self.held.streams.entry(append.stream.clone()).or_default();
        for ((n, ms), entry) in (append.first_n..).zip(&append.ms).zip(&append.entries) {
            let position = Position { ms: *ms, n };
            held.entries.insert(position, Arc::new(entry.fields()));
            held.last = position;
        }
        Appended::Done
    }

    pub(super) fn restore(
        &mut self,
        stream: &str,
        expected: Position,
        floor: Position,
        groups: &[Group],
    ) -> Restored {
        let last = self.last(stream);
        if last != expected {
            return Restored::Not(Appended::Elsewhere(last));
        }
        let held = self.held.streams.entry(stream.into()).or_default();
        held.last = held.last.max(floor);
        let (mut changed, mut gone) = (0, Vec::new());
        for group in groups {
            match held.groups.get_mut(&group.name) {
                Some(members) => {
                    changed += u64::from(members.delivered != group.delivered);
                    members.delivered = group.delivered;
                }
                None => {
                    changed += 1;
                    gone.push(group.name.clone());
                }
            }
        }
        Restored::Done { changed, gone }
    }

    pub(super) fn pend(
        &mut self,
        stream: &str,
        expected: Position,
        group: &Group,
        is_gone: bool,
    ) -> Appended {
        let last = self.last(stream);
        let Some(held) = self.held.streams.get_mut(stream).filter(|_| last == expected) else {
            return Appended::Elsewhere(last);
        };
        if is_gone {
            held.groups.entry(group.name.clone()).or_default().delivered = group.delivered;
        }
        let Some(members) = held.groups.get_mut(&group.name) else { return Appended::Done };
        let listed = group.pending.as_deref().unwrap_or_default();
        let is_listed = |at: &Position| listed.iter().any(|pending| pending.position == *at);
        members.pending.retain(|at, _| *at > group.delivered || is_listed(at));
        for pending in listed.iter().filter(|pending| held.entries.contains_key(&pending.position))
        {
            let given = (pending.consumer.clone(), pending.given_ms, pending.deliveries);
            members.pending.insert(pending.position, given);
        }
        Appended::Done
    }

    pub(super) fn trim(&mut self, stream: &str, floor: Position, grouped: bool) -> u64 {
        let Some(held) = self.held.streams.get_mut(stream) else { return 0 };
        if grouped == held.groups.is_empty() {
            return 0;
        }
        let needed = held.groups.values().map(Stream::needs);
        let keep = needed.fold(Stream::following(floor), Position::min);
        let before = held.entries.len();
        held.entries = held.entries.split_off(&keep);
        (before - held.entries.len()) as u64
    }

    // ---- what consumers do ----

    /// XREADGROUP: entries that nobody of the group was given before.
    pub(super) fn read_new(
        &mut self,
        stream: &str,
        group: &str,
        count: usize,
        now_ms: u64,
    ) -> Option<Vec<(Position, Fields)>> {
        let held = self.held.streams.get_mut(stream)?;
        let members = held.groups.get_mut(group)?;
        let range = (Excluded(members.delivered), Unbounded::<Position>);
        let found: Vec<(Position, Fields)> =
            held.entries.range(range).take(count).map(|(at, f)| (*at, f.clone())).collect();
        for (at, _) in &found {
            members.delivered = *at;
            members.pending.insert(*at, ("worker".to_owned(), now_ms, 1));
        }
        Some(found)
    }

    /// Entries that the group was given and has not acknowledged.
    pub(super) fn read_pending(&mut self, stream: &str, group: &str) -> Vec<(Position, Fields)> {
        let Some(held) = self.held.streams.get(stream) else { return Vec::new() };
        let Some(members) = held.groups.get(group) else { return Vec::new() };
        let there =
            members.pending.keys().filter_map(|at| Some((*at, held.entries.get(at)?.clone())));
        there.collect()
    }

    pub(super) fn acknowledge(&mut self, stream: &str, group: &str, at: &[Position]) {
        let members = self.held.streams.get_mut(stream).and_then(|held| held.groups.get_mut(group));
        if let Some(members) = members {
            at.iter().for_each(|at| drop(members.pending.remove(at)));
        }
    }

    /// XGROUP CREATE … MKSTREAM.
    pub(super) fn make_group(&mut self, stream: &Arc<str>, group: &str, at_end: bool) {
        let held = self.held.streams.entry(stream.clone()).or_default();
        let delivered = if at_end { held.last } else { Position::START };
        let members = Members { delivered, pending: BTreeMap::new() };
        held.groups.entry(group.to_owned()).or_insert(members);
    }

    pub(super) fn range(
        &self,
        stream: &str,
        after: Position,
        through: Position,
        count: usize,
    ) -> Vec<(Position, Fields)> {
        let Some(held) = self.held.streams.get(stream).filter(|_| after < through) else {
            return Vec::new();
        };
        let range = held.entries.range((Excluded(after), Included(through)));
        range.take(count).map(|(at, fields)| (*at, fields.clone())).collect()
    }
}
