//! I1, I2, I3, I5: what is sealed is what was committed, once, in order.

use super::*;

impl Oracle {
    pub(crate) fn sealing(&mut self, facts: &Facts, batches: &[Batch]) {
        for batch in batches {
            let name = &batch.stream;
            let sealed = facts.streams.get(name).map_or(Position::START, LogStream::sealed);
            self.must(batch.first_n == sealed.n + 1 && batch.ms >= sealed.ms, "I5", || {
                format!(
                    "stream {name} is sealed up to {sealed}, then {}-{}",
                    batch.ms, batch.first_n
                )
            });
            for (n, entry) in (batch.first_n..).zip(&batch.entries) {
                let at = Position { ms: batch.ms, n };
                self.sealed.insert((name.clone(), at), entry.event_id);
                let row = facts.rows.get(&entry.id);
                let row = row.filter(|row| row.entry.event_id == entry.event_id);
                self.must(row.is_some_and(|row| row.fate == Fate::Committed), "I2", || {
                    format!("row {} of stream {name} is sealed and was not committed", entry.id)
                });
                self.must(facts.unsealed.contains(&entry.id), "I1", || {
                    format!("row {} of stream {name} is sealed twice", entry.id)
                });
                self.in_order(entry.event_id);
            }
        }
    }

    fn in_order(&mut self, event: Uuid) {
        let Some(Event { stream, key: Some((key, number)), .. }) = self.events.get(&event) else {
            return;
        };
        let (place, number) = ((stream.clone(), key.clone()), *number);
        let before = self.last_of_key.insert(place.clone(), number).unwrap_or(0);
        self.must(before < number, "I3", || {
            format!("{place:?}: number {number} comes after {before}")
        });
    }

    pub(crate) fn log_is_complete(&mut self, facts: &Facts) {
        let mut places: BTreeMap<Uuid, Vec<(Name, Position)>> = BTreeMap::new();
        for (name, log) in &facts.streams {
            for (at, id) in log.log() {
                if let Some(row) = facts.rows.get(&id) {
                    places.entry(row.entry.event_id).or_default().push((name.clone(), at));
                }
            }
        }
        for row in facts.rows.values().filter(|row| row.fate == Fate::Committed) {
            let (event, stream) = (row.entry.event_id, &row.entry.stream);
            let at = places.remove(&event).unwrap_or_default();
            let once = at.len() == 1 && at[0].0 == *stream;
            self.must(once, "I1", || format!("event {event} of {stream} is sealed as {at:?}"));
            let known = self.events.get(&event).is_some_and(|event| event.committed);
            self.must(known, "I2", || format!("event {event} of {stream} was never committed"));
        }
    }

    /// Events that have their rows, or had them until nobody needed them any more.
    pub(crate) fn kept(&self, facts: &Facts) -> BTreeSet<Uuid> {
        let rows = facts.rows.values().filter(|row| row.fate == Fate::Committed);
        let purged = self
            .sealed
            .iter()
            .filter(|((name, at), _)| facts.streams.get(name).is_some_and(|log| *at <= log.purged));
        rows.map(|row| row.entry.event_id).chain(purged.map(|(_, event)| *event)).collect()
    }

    /// What writers committed has its row, or had it until nobody needed it any more.
    pub(crate) fn journal_is_kept(&mut self, facts: &Facts) {
        let kept = self.kept(facts);
        let mut committed = self.events.iter().filter(|(_, event)| event.committed);
        let lost = committed.find(|(event, _)| !kept.contains(*event));
        if let Some((event, Event { stream, .. })) = lost {
            let sentence = format!("event {event} of {stream} was committed and is nowhere");
            self.violated("I1", &sentence);
        }
    }
}
