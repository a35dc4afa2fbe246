//! I4, I5, I6: Redis has what is sealed, as it is, and nothing before it.

use super::*;

impl Oracle {
    /// Entries were added to a stream.
    pub(crate) fn appended(&mut self, now_ms: u64, facts: &Facts, append: &Append) {
        let (name, log) = (&append.stream, facts.streams.get(&append.stream));
        for n in append.expected.n + 1..append.first_n {
            let floor = self.floors.get(name).copied().unwrap_or(0);
            let gone = self.vanished.keys().any(|(stream, at)| stream == name && at.n == n);
            self.must(gone || n <= floor, "I6", || format!("stream {name} leaves out entry {n}"));
        }
        let highest = self.highest.entry(name.clone()).or_default();
        *highest = append.last().n.max(*highest);
        let losses = self.losses.get_mut(name).into_iter().flatten();
        for loss in losses.filter(|loss| append.last().n >= loss.had) {
            loss.healed_ms.get_or_insert(now_ms);
        }
        for ((n, ms), entry) in (append.first_n..).zip(&append.ms).zip(&append.entries) {
            self.counts.appended += 1;
            let at = Position { ms: *ms, n };
            let sealed = log.and_then(|log| sealed_event(facts, log, at));
            let vanished = self.vanished.get(&(name.clone(), at)).copied();
            let is_sealed = [sealed, vanished].contains(&Some(entry.event_id));
            self.must(is_sealed, "I6", || {
                format!("entry {at} of stream {name} is in Redis and not sealed as what it is")
            });
        }
    }

    /// A stream begins or goes on behind `floor`.
    pub(crate) fn moved_on(&mut self, stream: &Name, floor: u64) {
        let known = self.floors.get(stream).copied().unwrap_or(0);
        self.must(floor <= known, "I6", || {
            format!("stream {stream} leaves out entries up to {floor}")
        });
    }

    pub(crate) fn stream_is_the_log(
        &mut self,
        facts: &Facts,
        name: &Name,
        log: &LogStream,
        stream: &Stream,
    ) {
        let first = stream.entries.keys().next().map_or(stream.last.n + 1, |first| first.n);
        // Postgres may have lost the floor again.
        let floor = self.floors.get(name).copied().unwrap_or(0).max(log.floor().n);
        self.must(first <= floor + 1, "I1", || {
            format!("stream {name} begins with entry {first}, its floor is {floor}")
        });
        let purged = log.purged.n;
        for (at, id) in log.log().filter(|(at, _)| at.n >= first) {
            let there = stream.entries.get(&at);
            let row = facts.rows.get(&id);
            // An older stream is moved on to its floor, and what nobody needs is not put back.
            if there.is_none() && at.n <= floor {
                continue;
            }
            let same = there.zip(row).is_some_and(|(there, row)| **there == row.entry.fields());
            self.must(same, "I4", || {
                let places: Vec<String> = stream.entries.keys().map(ToString::to_string).collect();
                format!("entry {at} of stream {name} is not its row, and {places:?} are there")
            });
        }
        for at in stream.entries.keys().filter(|at| at.n > purged) {
            let is_known = log.locate(at.n) == Some(*at) || log.phantoms.contains(at);
            self.must(is_known, "I4", || format!("entry {at} of stream {name} is not in the log"));
        }
    }
}
