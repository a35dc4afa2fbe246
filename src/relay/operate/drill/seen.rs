//! A consumer group and its consumers, as they come back: pure.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::group::Group;
use crate::outbox::Saved;
use crate::stream::ConsumerSeen;

/// What a clock that counts milliseconds may be wrong by.
const TICK: Duration = Duration::from_millis(2);

/// Entries that a group has acknowledged.
pub(super) fn done(group: &Group) -> u64 {
    group.given.saturating_sub(group.waiting)
}

/// A group that was there before.
pub(super) struct WatchedGroup {
    /// As it was when Redis was emptied.
    pub(super) before: Group,
    /// As the relay puts it back; None if it never saw the group.
    pub(super) stored: Option<Group>,
    pub(super) consumers: Vec<WatchedConsumer>,
}

impl WatchedGroup {
    /// Consumers that had asked within `awaited` are expected to ask again.
    pub(super) fn new(
        before: &Group,
        saved: &Saved,
        consumers: Vec<ConsumerSeen>,
        awaited: Duration,
    ) -> Self {
        let watched = |consumer| WatchedConsumer::new(consumer, awaited);
        let mut consumers: Vec<_> = consumers.into_iter().map(watched).collect();
        consumers.sort_by(|a, b| a.name.cmp(&b.name));
        let mut group = Self { before: before.clone(), stored: None, consumers };
        group.set_stored(saved);
        group
    }

    /// A later checkpoint, of before Redis was emptied.
    pub(super) fn set_stored(&mut self, saved: &Saved) {
        self.stored = saved.groups.iter().find(|group| group.name == self.before.name).cloned();
    }

    /// It is there, and not before where the relay puts it. One that the relay never saw is not back, be it
    /// that somebody has made it anew.
    pub(super) fn is_back(&self, now: &[Group]) -> bool {
        let Some(now) = now.iter().find(|group| group.name == self.before.name) else {
            return false;
        };
        self.stored.as_ref().is_some_and(|stored| match &stored.pending {
            Some(_) => now.delivered >= stored.delivered,
            // It is put back to its floor.
            None => now.given >= stored.floor,
        })
    }

    /// It has acknowledged more than it had when it was put back.
    pub(super) fn acknowledges(&self, now: &[Group]) -> bool {
        let now = now.iter().find(|group| group.name == self.before.name);
        let stored = self.stored.as_ref().map_or(0, |stored| match stored.pending {
            Some(_) => done(stored),
            None => stored.floor,
        });
        now.is_some_and(|now| done(now) > stored)
    }

    /// Entries that it had acknowledged and is given again; None if that cannot be said, for it was never
    /// stored.
    pub(super) fn again(&self) -> Option<u64> {
        let stored = self.stored.as_ref()?;
        let given = self.before.given;
        let open = match stored.pending {
            Some(_) => given.saturating_sub(stored.given) + stored.waiting,
            None => given.saturating_sub(stored.floor),
        };
        // What waits for it waited before, too.
        Some(open.saturating_sub(self.before.waiting))
    }

    /// Consumers that the relay makes again by giving them what they had not acknowledged.
    fn made(&self) -> BTreeSet<&str> {
        let pending = self.stored.iter().flat_map(|stored| stored.pending.iter().flatten());
        pending.map(|pending| pending.consumer.as_str()).collect()
    }

    /// Its consumers as Redis has them; asked after `sent` and before `heard`, both since Redis was emptied.
    pub(super) fn see(&mut self, now: &[ConsumerSeen], sent: Duration, heard: Duration) {
        let made: BTreeSet<String> = self.made().into_iter().map(str::to_owned).collect();
        for consumer in &mut self.consumers {
            if let Some(now) = now.iter().find(|now| now.name == consumer.name) {
                let idle = Duration::from_millis(now.idle_ms);
                let asked = (sent.saturating_sub(idle), heard.saturating_sub(idle));
                consumer.see(asked, made.contains(&consumer.name));
            }
        }
    }

    /// Somebody who is expected has not been seen.
    pub(super) fn waits(&self) -> bool {
        self.consumers.iter().any(|consumer| consumer.expected && consumer.back.is_none())
    }
}

/// A consumer that was there before.
pub(super) struct WatchedConsumer {
    pub(super) name: String,
    /// How long before Redis was emptied it had asked.
    pub(super) idle: Duration,
    /// It had asked not long before.
    pub(super) expected: bool,
    /// When it asked, since Redis was emptied.
    pub(super) back: Option<Duration>,
    /// When it seemed to have asked, if that may have been the relay that made it again.
    made: Option<(Duration, Duration)>,
}

impl WatchedConsumer {
    fn new(consumer: ConsumerSeen, awaited: Duration) -> Self {
        let idle = Duration::from_millis(consumer.idle_ms);
        let expected = idle <= awaited;
        Self { name: consumer.name, idle, expected, back: None, made: None }
    }

    /// It asked between two moments, or was made again by the relay.
    fn see(&mut self, asked: (Duration, Duration), may_be_made: bool) {
        match self.made {
            _ if self.back.is_some() => {}
            _ if !may_be_made => self.back = Some(asked.1),
            None => self.made = Some(asked),
            // Later than what was seen first, whatever the way there and back took.
            Some(made) if asked.0 > made.1 + TICK => self.back = Some(asked.1),
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::group::Pending;
    use crate::position::Position;

    fn group(given: u64, pending: &[u64]) -> Group {
        let at = |n| Position { ms: n, n };
        let one = |n: &u64| Pending {
            position: at(*n),
            consumer: "worker".into(),
            given_ms: 0,
            deliveries: 1,
        };
        Group {
            name: "mail".into(),
            delivered: at(given),
            given,
            waiting: pending.len() as u64,
            pending: Some(pending.iter().map(one).collect()),
            ..Group::default()
        }
    }

    fn watched(before: &Group, stored: Group) -> WatchedGroup {
        let saved = Saved { groups: vec![stored], ..Saved::default() };
        let consumer =
            |name: &str, idle_ms| ConsumerSeen { name: name.into(), pending: 0, idle_ms };
        let consumers = vec![consumer("worker", 5), consumer("other", 5), consumer("old", 9_000)];
        WatchedGroup::new(before, &saved, consumers, Duration::from_secs(5))
    }

    #[test]
    fn what_was_acknowledged_since_the_checkpoint_is_given_again() {
        let again = |before: &Group, stored| watched(before, stored).again().expect("it is stored");
        assert_eq!(again(&group(10, &[]), group(10, &[])), 0);
        assert_eq!(again(&group(10, &[9]), group(10, &[7, 8, 9])), 2);
        assert_eq!(again(&group(15, &[9, 15]), group(10, &[7, 8, 9])), 6, "7, 8, 11 to 14");
        let many = Group { pending: None, floor: 4, waiting: 5, ..group(10, &[]) };
        assert_eq!(again(&group(10, &[9]), many), 5, "all after its floor, but what waits");
    }

    #[test]
    fn it_is_back_where_the_relay_puts_it() {
        let watched = watched(&group(12, &[]), group(10, &[]));
        assert!(!watched.is_back(&[]));
        assert!(!watched.is_back(&[group(9, &[])]), "somebody has made it anew");
        assert!(watched.is_back(&[group(10, &[])]) && watched.is_back(&[group(20, &[])]));
        assert!(!watched.acknowledges(&[group(10, &[])]));
        assert!(watched.acknowledges(&[group(12, &[12])]));
    }

    #[test]
    fn one_that_was_never_stored_is_not_back() {
        let before = group(12, &[]);
        let watched =
            WatchedGroup::new(&before, &Saved::default(), Vec::new(), Duration::from_secs(5));
        assert!(!watched.is_back(std::slice::from_ref(&before)), "somebody has made it anew");
        assert_eq!(watched.again(), None);
    }

    #[test]
    fn one_that_the_relay_makes_again_is_back_only_when_it_asks() {
        let ms = Duration::from_millis;
        let mut watched = watched(&group(10, &[9]), group(10, &[9]));
        let now = |worker, other| {
            let consumer =
                |name: &str, idle_ms| ConsumerSeen { name: name.into(), pending: 1, idle_ms };
            [consumer("worker", worker), consumer("other", other)]
        };
        let back = |watched: &WatchedGroup, name| {
            watched.consumers.iter().find(|consumer| consumer.name == name).and_then(|c| c.back)
        };
        watched.see(&now(10, 10), ms(100), ms(110));
        assert_eq!(back(&watched, "other"), Some(ms(100)));
        watched.see(&now(50, 5), ms(150), ms(190));
        assert_eq!(back(&watched, "worker"), None, "only a slow answer");
        assert_eq!(back(&watched, "other"), Some(ms(100)), "the first time counts");
        assert!(watched.waits());
        watched.see(&now(20, 5), ms(200), ms(201));
        assert_eq!(back(&watched, "worker"), Some(ms(181)));
        assert!(!watched.waits(), "nobody waits for one that had been asleep for long");
    }
}
