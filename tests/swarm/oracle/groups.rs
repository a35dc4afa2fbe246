//! What consumer groups were given, against what they had acknowledged.

use std::collections::HashMap;

use outbox_relay::position::Position;

use super::super::consumers::{Act, Deed};
use super::super::losses::{Loss, Sayings};
use super::super::moment::{Micros, SECOND};
use super::super::stage::Stage;
use super::Verdict;

/// How long after a loss was told its groups are back at the latest, once nothing says otherwise.
const SETTLING: Micros = 2 * SECOND;

impl Verdict {
    /// I7: no group skips an entry, and none is given one again without need.
    pub(super) fn groups(&mut self, stage: &Stage) {
        for group in &stage.groups {
            for stream in &stage.streams {
                let seat = (group.clone(), stream.clone());
                if stage.destroyed.contains_key(&seat) {
                    continue;
                }
                let last = stage.watcher.sealed(stream);
                if let Some(n) = stage.missing(group, stream, last) {
                    self.broken(
                        7,
                        format!(
                            "group {group} was never given entry {n} of stream {stream}, of {last}"
                        ),
                    );
                }
            }
        }
        let sayings = Sayings::read(&stage.logs());
        for ((group, stream), deeds) in stage.consumers.deeds() {
            let rewound = stage.rewound.get(&(group.clone(), stream.clone()));
            let before = |deed: &&Deed| rewound.is_none_or(|at| deed.done < *at);
            let losses = stage.losses.iter().filter(|loss| loss.stream == stream);
            let losses: Vec<(&Loss, Micros)> =
                losses.map(|loss| (loss, over(stage, &sayings, loss))).collect();
            let mut acknowledged: HashMap<u64, Deed> = HashMap::new();
            for deed in deeds.iter().filter(before) {
                match acknowledged.get(&deed.n) {
                    _ if deed.act == Act::Acknowledged => {
                        acknowledged.insert(deed.n, *deed);
                    }
                    _ if deed.act != Act::Given => {}
                    Some(was) if was.done < deed.asked && !is_due(&losses, &group, was, deed) => {
                        self.needless += 1;
                        let sentence = format!(
                            "group {group} was given entry {} of stream {stream} at {}, which it had \
                             acknowledged at {} and no loss since takes back",
                            deed.n, deed.done, was.done
                        );
                        self.broken(7, sentence);
                    }
                    _ => {}
                }
            }
        }
    }
}

/// Whether a loss explains that an entry that was acknowledged is given again.
fn is_due(losses: &[(&Loss, Micros)], group: &str, was: &Deed, deed: &Deed) -> bool {
    losses.iter().any(|(loss, over)| {
        if loss.began > deed.done || was.asked > *over {
            return false;
        }
        // What is there again is read before the relay has come.
        let goes_back = loss.kind.goes_back();
        if goes_back && (deed.asked <= *over || was.done >= loss.began) {
            return true;
        }
        let Some(known) = &loss.known else { return true };
        let Some(stored) = known.groups.iter().find(|stored| stored.name == group) else {
            return true;
        };
        stored.acknowledged(Position { ms: deed.ms, n: deed.n }) != Some(true)
    })
}

/// When the groups that were lost with it are back.
fn over(stage: &Stage, sayings: &Sayings, loss: &Loss) -> Micros {
    let stream = sayings.told.iter().filter(|told| told.stream == loss.stream).map(|told| told.at);
    let all = sayings.all.iter().filter(|_| loss.kind.loses_all()).map(|(at, _)| *at);
    let Some(told) = stream.chain(all).filter(|at| *at >= loss.began).min() else {
        return Micros::MAX;
    };
    let settled = told.max(loss.ended) + SETTLING;
    let seen = stage.watcher.seen.lock().unwrap();
    let Some(sound) = seen.sound.get(&loss.stream) else { return Micros::MAX };
    let then = sound.iter().rev().find(|(at, _)| *at <= settled);
    if then.is_some_and(|(_, sound)| *sound) {
        return settled;
    }
    let back = sound.iter().find(|(at, sound)| *at > settled && *sound);
    back.map_or(Micros::MAX, |(at, _)| *at + SETTLING)
}
