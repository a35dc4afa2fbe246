//! I7: no group misses an entry, and none is given again what a checkpoint has as done.

use super::*;

impl Oracle {
    /// A group begins, behind number `gone`: what came before it is not its concern.
    pub(crate) fn joins(&mut self, now_ms: u64, stream: &Name, group: &str, gone: u64) {
        let late_ms = (gone > 0 || self.highest.contains_key(stream)).then_some(now_ms);
        let reader = self.readers.entry((stream.clone(), group.to_owned())).or_default();
        // What it did before it was lost it did: an older Redis may say so again.
        (reader.is_away, reader.late_ms) = (false, late_ms);
        reader.settled.clear();
        let floor = self.floors.get(stream).copied().unwrap_or(0);
        self.begins_behind(stream, group, gone.max(floor));
    }

    /// Those that have begun, and that Redis or a checkpoint knows.
    pub(crate) fn groups(&self) -> Vec<(Name, String)> {
        let known = self.readers.iter().filter(|(_, reader)| !reader.is_away);
        known.map(|(place, _)| place.clone()).collect()
    }

    /// A group is gone, and has to begin anew.
    pub(crate) fn leaves(&mut self, stream: Name, group: String) {
        if let Some(reader) = self.readers.get_mut(&(stream, group)) {
            reader.is_away = true;
        }
    }

    fn begins_behind(&mut self, stream: &Name, group: &str, n: u64) {
        let known = self.sealed.iter().chain(&self.vanished);
        let before = known.filter(|((name, at), _)| name == stream && at.n <= n);
        let events: Vec<Uuid> = before.map(|(_, event)| *event).collect();
        if let Some(reader) = self.readers.get_mut(&(stream.clone(), group.to_owned())) {
            reader.acknowledged.extend(events);
        }
    }

    /// A group was given an event; `new` if it asked for what it had not been given.
    pub(crate) fn given(
        &mut self,
        now_ms: u64,
        stream: &Name,
        group: &str,
        event: Uuid,
        new: bool,
    ) {
        let Some(reader) = self.readers.get_mut(&(stream.clone(), group.to_owned())) else {
            return;
        };
        let settled = reader.settled_ms <= now_ms && reader.settled.contains(&event);
        let again = new && !reader.given.insert(event);
        let lossy = self.lossy.contains(stream);
        self.must(!again || lossy, "I7", || {
            format!("group {group} of stream {stream} is given {event} again, and nothing was lost")
        });
        self.must(!settled, "I7", || {
            format!("group {group} of stream {stream} is given {event} again, which a checkpoint has as done")
        });
    }

    pub(crate) fn acknowledged(&mut self, stream: &Name, group: &str, event: Uuid) {
        if let Some(reader) = self.readers.get_mut(&(stream.clone(), group.to_owned())) {
            reader.acknowledged.insert(event);
            reader.again.remove(&event);
        }
    }

    /// Somebody has set a group back: it is to do these again, and they are there until it has.
    pub(crate) fn rewound(&mut self, stream: &Name, group: &str, events: BTreeSet<Uuid>) {
        let Some(reader) = self.readers.get_mut(&(stream.clone(), group.to_owned())) else {
            return;
        };
        reader.given.retain(|event| !events.contains(event));
        // What is not back yet is given again as well.
        reader.settled.clear();
        reader.again.extend(events.iter().filter(|event| reader.acknowledged.remove(*event)));
    }

    /// A floor was stored.
    pub(crate) fn stored(&mut self, now_ms: u64, facts: &Facts, stream: &Name, floor: u64) {
        // A checkpoint that was on its way when a group began does not know it.
        let is_new = |reader: &Reader| reader.late_ms.is_some_and(|ms| now_ms < ms + ON_ITS_WAY_MS);
        let new = self.readers.iter().filter(|((name, _), r)| name == stream && is_new(r));
        for group in new.map(|((_, group), _)| group.clone()).collect::<Vec<_>>() {
            self.begins_behind(stream, &group, floor);
        }
        let known = self.floors.entry(stream.clone()).or_default();
        let before = *known;
        *known = floor.max(before);
        if let Some(log) = facts.streams.get(stream) {
            let settled = log.log().filter(|(at, _)| at.n > before && at.n <= floor);
            let rows = settled.filter_map(|(_, id)| facts.rows.get(&id));
            let events: Vec<Uuid> = rows.map(|row| row.entry.event_id).collect();
            self.removed(stream, &events, "the floor has passed the number");
        }
        let losses = self.losses.get_mut(stream).into_iter().flatten();
        // A checkpoint that was on its way when Redis lost it.
        for loss in losses.filter(|loss| !loss.reported && loss.healed_ms.is_none()) {
            loss.floor = loss.floor.max(floor);
        }
    }

    /// Entries were removed from Redis, which somebody may have set a group back to.
    pub(crate) fn trimmed(&mut self, stream: &Name, events: &[Uuid]) {
        let again = |reader: &Reader, event: &Uuid| reader.again.contains(event);
        self.needed("Redis was trimmed", stream, events, again);
        self.removed(stream, events, "Redis was trimmed");
    }

    /// Entries were taken away for good. What a group does again is there as long as Redis has it.
    pub(crate) fn removed(&mut self, stream: &Name, events: &[Uuid], what: &str) {
        let left = |reader: &Reader, event: &Uuid| {
            !reader.acknowledged.contains(event) && !reader.again.contains(event)
        };
        self.needed(what, stream, events, left);
    }

    fn needed(
        &mut self,
        what: &str,
        stream: &Name,
        events: &[Uuid],
        needs: impl Fn(&Reader, &Uuid) -> bool,
    ) {
        let needing = self.readers.iter().filter(|((name, _), r)| name == stream && !r.is_away);
        let missed = needing.flat_map(|((_, group), reader)| {
            let missed = events.iter().find(|event| needs(reader, event));
            missed.map(|event| (group.clone(), *event))
        });
        if let Some((group, event)) = missed.collect::<Vec<_>>().pop() {
            let sentence = format!("{what} of {event}, which group {group} of {stream} needs");
            self.violated("I7", &sentence);
        }
    }

    pub(crate) fn everything_is_acknowledged(
        &mut self,
        facts: &Facts,
        name: &Name,
        log: &LogStream,
        redis: &Redis,
    ) {
        let readers = self.readers.iter().filter(|((stream, _), _)| stream == name);
        let mut complaint = None;
        for ((_, group), reader) in readers {
            let rows = log.log().filter_map(|(at, id)| Some((at, facts.rows.get(&id)?)));
            let missed = rows.map(|(at, row)| (at, row.entry.event_id));
            let mut missed = missed.filter(|(_, event)| !reader.acknowledged.contains(event));
            if let Some((at, _)) = missed.next() {
                let is_there =
                    redis.held.streams.get(name).is_some_and(|s| s.groups.contains_key(group));
                let gone = if is_there { "" } else { ", and is gone" };
                complaint = Some(format!("group {group} of {name} has not done entry {at}{gone}"));
            }
        }
        if let Some(complaint) = complaint {
            self.violated("I7", &complaint);
        }
    }

    /// The groups of a stream are lost, or went back: until `from_ms` they may be given again what they did
    /// since, and never what the latest checkpoint has as done.
    pub(super) fn set_back(&mut self, from_ms: u64, facts: &Facts, stream: &Name) {
        self.lossy.insert(stream.clone());
        let groups = self.readers.keys().filter(|(name, _)| name == stream);
        for (_, group) in groups.cloned().collect::<Vec<_>>() {
            self.settle(from_ms, facts, stream, &group);
        }
    }

    /// The relay has put a group back.
    pub(crate) fn settled(&mut self, facts: &Facts, stream: &Name, group: &str) {
        self.settle(0, facts, stream, group);
    }

    fn settle(&mut self, from_ms: u64, facts: &Facts, stream: &Name, group: &str) {
        let (log, place) = (facts.streams.get(stream), (stream.clone(), group.to_owned()));
        let Some((log, reader)) = log.zip(self.readers.get_mut(&place)) else { return };
        let done = log.log().filter(|(at, _)| is_done(log, group, *at));
        let events = done.filter_map(|(_, id)| Some(facts.rows.get(&id)?.entry.event_id));
        (reader.settled, reader.settled_ms) = (events.collect(), from_ms);
    }

    /// Postgres has lost checkpoints.
    pub(super) fn unsettle(&mut self, stream: &Name) {
        self.lossy.insert(stream.clone());
        let readers = self.readers.iter_mut().filter(|((name, _), _)| name == stream);
        readers.for_each(|(_, reader)| reader.settled.clear());
    }
}

/// A group had acknowledged an entry when its latest checkpoint was taken.
fn is_done(log: &LogStream, group: &str, at: Position) -> bool {
    let kept = log.checkpoint.as_ref();
    let group = kept.and_then(|kept| kept.groups.iter().find(|kept| kept.name == group));
    group.is_some_and(|group| group.acknowledged(at) == Some(true))
}
