//! I8: every loss is told, as what it is, and nothing else is.

use super::*;

impl Oracle {
    /// Redis has lost all of a stream after number `left`.
    pub(crate) fn lost(&mut self, now_ms: u64, facts: &Facts, stream: &Name, left: u64) {
        self.counts.losses += 1;
        self.lossy.insert(stream.clone());
        // A relay may know more of it than a Postgres that has lost its latest commits.
        let log = facts.streams.get(stream);
        let marked = log.map_or(0, LogStream::dispatched);
        // What is told as lost, and on its way back, is not told again.
        let told = |loss: &Loss| loss.reported && loss.healed_ms.is_none() && loss.marked >= marked;
        let reported = self.losses.get(stream).is_some_and(|losses| losses.iter().any(told));
        let floor = self.floors.get(stream).copied().unwrap_or(0);
        let had = self.highest.get(stream).copied().unwrap_or(0);
        let due_ms = now_ms.max(self.troubled_ms) + NOTICED_MS;
        let (healed_ms, excused) = (None, false);
        let loss =
            Loss { at_ms: now_ms, left, floor, marked, had, due_ms, healed_ms, reported, excused };
        self.losses.entry(stream.clone()).or_default().push(loss);
    }

    /// Redis has a stream up to here, by what happened to it: what it had lost before may be there again
    /// before anybody has looked.
    pub(crate) fn came_back(&mut self, stream: &Name, last: u64) {
        let losses = self.losses.get_mut(stream).into_iter().flatten();
        let there = losses.filter(|loss| loss.healed_ms.is_none() && loss.marked <= last);
        there.for_each(|loss| loss.excused = true);
    }

    /// The groups of a stream are not what they were; `gone` if the stream is.
    pub(crate) fn groups_lost(&mut self, now_ms: u64, facts: &Facts, stream: &Name, gone: bool) {
        // One that is gone begins with the checkpoint; one that is there may be read before it is put back.
        let from_ms = if gone { 0 } else { now_ms.max(self.troubled_ms) + NOTICED_MS };
        self.set_back(from_ms, facts, stream);
    }

    /// Something keeps relays from their work until then, in milliseconds.
    pub(crate) fn troubled(&mut self, until_ms: u64) {
        self.troubled_ms = self.troubled_ms.max(until_ms);
        let due = self.troubled_ms + NOTICED_MS;
        let losses = self.losses.values_mut().flatten().filter(|loss| !loss.reported);
        losses.for_each(|loss| loss.due_ms = loss.due_ms.max(due));
        let waiting = self.readers.values_mut().filter(|reader| reader.settled_ms > 0);
        waiting.for_each(|reader| reader.settled_ms = reader.settled_ms.max(due));
    }

    /// The relay said that Redis lost its identity, went back, or lost groups.
    pub(crate) fn alarmed(&mut self, said: &str) {
        let lossy = !self.lossy.is_empty() || self.emptied;
        self.must(lossy, "I8", || format!("nothing was lost, and a relay said: {said}"));
    }

    /// The relay said that Redis lost these entries.
    pub(crate) fn reported(&mut self, now_ms: u64, stream: &str, first: u64, last: u64) {
        self.counts.reports += 1;
        let floor = self.floors.get(stream).copied().unwrap_or(0);
        let mut right = false;
        for loss in self.losses.get_mut(stream).into_iter().flatten() {
            // Whoever follows a relay that told it, and died, tells what is not back yet.
            let follows = loss.excused || loss.reported && loss.healed_ms.is_none();
            let behind = first > loss.left && (follows || first <= floor + 1);
            let begins = first == loss.left + 1 || behind;
            let again = loss.healed_ms.is_some_and(|healed| now_ms > healed + ON_ITS_WAY_MS);
            if loss.at_ms <= now_ms && begins && last <= loss.had && !again {
                right = true;
                if last >= loss.marked {
                    (loss.reported, loss.marked) = (true, last);
                }
            }
        }
        // What Redis lost while the relay was about to tell more than that is told with it.
        let losses = self.losses.get_mut(stream).into_iter().flatten();
        for loss in losses.filter(|loss| loss.healed_ms.is_none() && first <= loss.left + 1) {
            loss.reported |= right && last >= loss.marked;
        }
        if !right {
            let known = self.losses.get(stream).map(|losses| losses.iter().rev().take(3));
            let known: Vec<&Loss> = known.into_iter().flatten().collect();
            let sentence = format!(
                "entries {first} to {last} of {stream} are reported lost, which they are not: {known:?}"
            );
            self.violated("I8", &sentence);
        }
    }

    /// Of streams that wait for a person, `halted`, what else they lack comes out when they go on.
    pub(crate) fn losses_are_reported(&mut self, now_ms: u64, halted: &BTreeSet<Name>) {
        let mut complaint = None;
        for (stream, losses) in self.losses.iter().filter(|(name, _)| !halted.contains(*name)) {
            for (at, loss) in losses.iter().enumerate() {
                let until = losses.get(at + 1).map_or(now_ms, |next| next.at_ms);
                let had_time = until > loss.due_ms || at + 1 == losses.len();
                let matters = loss.marked > loss.left.max(loss.floor) && !loss.excused;
                if matters && had_time && !loss.reported {
                    complaint = Some(format!("nobody said that stream {stream} suffered {loss:?}"));
                }
            }
        }
        if let Some(complaint) = complaint {
            self.violated("I8", &complaint);
        }
    }
}
