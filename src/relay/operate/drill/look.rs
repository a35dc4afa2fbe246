//! What is in Redis before it is emptied, and whether all of it would come back.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ends::{Ends, unready};
use super::seen::{WatchedGroup, done};
use super::watch::{Watch, Watched};
use crate::error::{Kind, Result, Target};
use crate::group::Group;
use crate::outbox::{Database, Head, Saved};
use crate::position::Position;
use crate::relay::operate::verify::verify;
use crate::stream::{Canary, Place, Server, Shard, View, quoted};
use crate::text::{age, counted};

/// Keys that nobody would put back shown to people; more are only counted.
const SHOWN: usize = 5;
/// Numbers of the log asked at a time whether their rows are there.
const NUMBERS: usize = 10_000;
/// A checkpoint of all that was seen is waited for this long: the longest time between two, and the rounds
/// in which a stream that nobody needs is left out.
const STORED_WITHIN: Duration = Duration::from_secs(90);
/// Between two looks at what is stored.
const PAUSE: Duration = Duration::from_millis(100);

/// A drill that may begin: all that is in Redis would come back, but for what somebody has consented to.
pub struct Drill {
    ends: Ends,
    heads: Vec<Head>,
    views: Vec<View>,
    others: u64,
}

impl Drill {
    /// Looks at both servers, and waits until the relay has stored the consumer groups as they are; changes
    /// nothing. `others_too` consents to the loss of what nobody would put back. `told` is told what is
    /// being done.
    ///
    /// # Errors
    /// `Refused` with what stands in the way and what to do.
    pub async fn look(
        database: &Database,
        server: &Server,
        others_too: bool,
        mut told: impl FnMut(&str),
    ) -> Result<Self> {
        told("looking at both servers");
        let ends = Ends::open(database, server).await?;
        ends.refuse_unready().await?;
        if !ends.is_claimed().await? {
            return Err(unready(format!(
                "no relay of this database works on Redis at {}, for its key {}outbox:identity is not there \
                 or names another Postgres cluster; REDIS_URL and OUTBOX_PREFIX must be those of the relay",
                server.name(),
                server.prefix()
            )));
        }
        let mut drill = Self { ends, heads: Vec::new(), views: Vec::new(), others: 0 };
        drill.heads = drill.heads_now().await?;
        drill.refuse_others(others_too).await?;
        drill.refuse_phantoms(others_too).await?;
        told("comparing Redis with the log");
        drill.refuse_different().await?;
        drill.views = drill.ends.redis.views(&drill.names()).await?;
        drill.refuse_gone().await?;
        drill.ends.server.check_may_empty(&drill.ends.redis).await?;
        told("waiting for a checkpoint of all consumer groups");
        drill.stored().await?;
        drill.look_again(others_too).await?;
        Ok(drill)
    }

    async fn heads_now(&self) -> Result<Vec<Head>> {
        let mut heads = self.ends.log.heads().await?;
        heads.sort_by(|a, b| a.stream.cmp(&b.stream));
        Ok(heads)
    }

    /// Looks at what came while all else was looked at: the last thing before Redis is emptied.
    async fn look_again(&mut self, others_too: bool) -> Result<()> {
        self.ends.refuse_unready().await?;
        self.heads = self.heads_now().await?;
        self.refuse_others(others_too).await?;
        self.refuse_phantoms(others_too).await?;
        let mut saved = Vec::with_capacity(self.heads.len());
        for head in &self.heads {
            saved.push(self.ends.log.saved_groups(&head.stream).await?);
        }
        self.views = self.ends.redis.views(&self.names()).await?;
        let known = self.ends.redis.canaries(&self.ends.owner).await?;
        for ((head, saved), view) in self.heads.iter().zip(&saved).zip(&self.views) {
            if let Some(group) = lost_group(head, saved, view, &known) {
                return Err(unready(format!(
                    "group {group} of stream {} was made or set back just before, no checkpoint has it as \
                     it is, and it would not come back; hold the drill again",
                    head.stream
                )));
            }
        }
        Ok(())
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.heads.iter().map(|head| head.stream.clone()).collect()
    }

    async fn refuse_others(&mut self, others_too: bool) -> Result<()> {
        let found = self.ends.redis.other_keys(&self.names()).await?;
        self.others = found.keys.len() as u64;
        if others_too || found.keys.is_empty() && found.whole {
            return Ok(());
        }
        let mut shown: Vec<String> = found.keys.iter().take(SHOWN).map(|key| quoted(key)).collect();
        if self.others > SHOWN as u64 || !found.whole {
            shown.push("…".to_owned());
        }
        let count = match found.whole {
            true => counted(self.others, "key", "keys"),
            false => "more keys than were looked through, among them keys".to_owned(),
        };
        Err(unready(format!(
            "Redis holds {count} that no relay would put back: {}; give the outbox a Redis of its own for \
             the drill, or let them go with --others-too",
            shown.join(" ")
        )))
    }

    async fn refuse_phantoms(&self, others_too: bool) -> Result<()> {
        for phantoms in self.ends.survey.phantoms().await?.iter().filter(|_| !others_too) {
            let head = self.heads.iter().find(|head| *head.stream == *phantoms.stream);
            let floor = head.map_or(0, |head| head.floor.n);
            let ids = self.ends.log.phantoms(&phantoms.stream).await?;
            let is_needed = |id: &&String| id.parse().is_ok_and(|at: Position| at.n > floor);
            let count = ids.iter().filter(is_needed).count() as u64;
            if count > 0 {
                return Err(unready(format!(
                    "stream {} has {} whose rows Postgres lost, listed in outbox.phantom, and no relay would \
                     put them back; let them be acknowledged first, or let them go with --others-too",
                    phantoms.stream,
                    counted(count, "entry", "entries"),
                )));
            }
        }
        Ok(())
    }

    async fn refuse_different(&self) -> Result<()> {
        let verified = verify(&self.ends.database, &self.ends.server, |_, _, _| {}).await?;
        match verified.ok {
            true => Ok(()),
            false => Err(unready(
                "Redis does not hold what the log says, and a drill would not tell what it lost from what \
                 was missing before; `outbox-relay verify` shows it",
            )),
        }
    }

    /// Refuses if rows are gone that a stream would be filled from.
    async fn refuse_gone(&self) -> Result<()> {
        for (head, view) in self.heads.iter().zip(&self.views) {
            let Place::At(last) = view.place else { continue };
            let (mut after, mut gone) = (head.floor.n, Vec::new());
            loop {
                let page = self.ends.log.presence(&head.stream, after, last.n, NUMBERS).await?;
                let Some((end, _)) = page.last() else { break };
                after = *end;
                gone.extend(page.iter().filter(|(_, is_there)| !is_there).map(|(n, _)| *n));
            }
            if let Some(first) = gone.first() {
                return Err(unready(format!(
                    "{} of stream {} in Redis no row any more, the first is number {first}: they could not \
                     be put back, and the stream would halt; let every group acknowledge them first",
                    counted(gone.len() as u64, "entry has", "entries have"),
                    head.stream
                )));
            }
        }
        Ok(())
    }

    /// Waits until the relay has stored groups that are as far as those that were seen, of this Redis.
    async fn stored(&self) -> Result<()> {
        let begun = Instant::now();
        let first = self.canaries().await?;
        let mut open: Vec<usize> = (0..self.heads.len()).collect();
        let mut works = false;
        while !works || !open.is_empty() {
            if begun.elapsed() > STORED_WITHIN {
                return Err(self.not_stored(works, &open));
            }
            tokio::time::sleep(PAUSE).await;
            works = works || rose(&first, &self.canaries().await?);
            let of_life = self.of_this_life().await?;
            let mut still = Vec::new();
            for at in open {
                let is_of_it =
                    self.views[at].groups.is_empty() || of_life.contains(&self.heads[at].stream);
                if !is_of_it || !self.is_stored(at).await? {
                    still.push(at);
                }
            }
            open = still;
        }
        Ok(())
    }

    async fn canaries(&self) -> Result<Vec<(Shard, Option<Canary>)>> {
        let mut canaries = Vec::new();
        for shard in self.ends.redis.shards() {
            canaries.push((shard, self.ends.redis.canary(shard, &self.ends.owner, 0).await?));
        }
        Ok(canaries)
    }

    /// Streams whose checkpoint is of a life that Redis is in.
    async fn of_this_life(&self) -> Result<HashSet<Arc<str>>> {
        let heads = self.ends.log.heads().await?;
        let known = self.ends.redis.canaries(&self.ends.owner).await?;
        Ok(heads.into_iter().filter(|head| is_of(head, &known)).map(|head| head.stream).collect())
    }

    async fn is_stored(&self, at: usize) -> Result<bool> {
        let (stream, seen) = (&self.heads[at].stream, &self.views[at]);
        let saved = self.ends.log.saved_groups(stream).await?;
        let now = self.ends.redis.view(stream).await?;
        Ok(covers(&saved, seen, &now))
    }

    fn not_stored(&self, works: bool, open: &[usize]) -> crate::error::Error {
        let time = age(STORED_WITHIN);
        if !works {
            return unready(format!(
                "the relay that leads has made no checkpoint of Redis at {} for {time}; look at its log, \
                 and whether its REDIS_URL and OUTBOX_PREFIX are these",
                self.ends.server.name()
            ));
        }
        let stream = open.first().map_or("", |at| &self.heads[*at].stream);
        unready(format!(
            "the relay has not stored the consumer groups of stream {stream} as they are for {time}, and \
             they would not come back; look at its log"
        ))
    }

    /// Empties Redis, and begins to watch. `within` is how long everything may take to come back.
    ///
    /// # Errors
    /// Any error of Redis; it may be empty then, all of it or a part.
    pub async fn empty(self, within: Duration) -> Result<Watch> {
        let Self { ends, heads, views, others } = self;
        let names: Vec<Arc<str>> = heads.iter().map(|head| head.stream.clone()).collect();
        let of_group = |(head, view): (&Head, &View)| {
            let stream = head.stream.clone();
            view.groups.iter().map(|g| (stream.clone(), g.name.clone())).collect::<Vec<_>>()
        };
        let groups: Vec<_> = heads.iter().zip(&views).flat_map(of_group).collect();
        let consumers = ends.redis.consumers(&groups).await?;
        let consumers: std::collections::HashMap<_, _> =
            groups.into_iter().zip(consumers).collect();
        let last = ends.redis.empty(&names).await.map_err(|error| {
            let context = "Redis may have been emptied, all of it or a part, for it did not say so: the \
                           relay puts back what is gone, and `outbox-relay status` says how far it is";
            Target::Redis.error_by(Kind::Unavailable, context, error)
        })?;
        let begun = Instant::now();
        let mut streams = Vec::with_capacity(heads.len());
        for ((head, view), last) in heads.into_iter().zip(views).zip(last) {
            let before = last.unwrap_or(view);
            let saved = ends.log.saved_groups(&head.stream).await?;
            let groups = before.groups.iter().map(|group| {
                let key = (head.stream.clone(), group.name.clone());
                let consumers = consumers.get(&key).cloned().unwrap_or_default();
                WatchedGroup::new(group, &saved, consumers, within)
            });
            let groups = groups.collect();
            streams.push(Watched::new(head, before, groups));
        }
        Ok(Watch::new(ends, begun, within, streams, others))
    }
}

/// Each primary goes on with the life that it had, and has been looked at again.
fn rose(first: &[(Shard, Option<Canary>)], now: &[(Shard, Option<Canary>)]) -> bool {
    first.len() == now.len()
        && first.iter().zip(now).all(|(first, now)| match (&first.1, &now.1) {
            (Some(first), Some(now)) => first.nonce == now.nonce && first.count < now.count,
            _ => false,
        })
}

/// The checkpoint of a stream is of a life that Redis is in, of which nothing is known to be lost.
fn is_of(head: &Head, known: &[Canary]) -> bool {
    let is = |(nonce, count): &(String, u64)| {
        known.iter().any(|canary| canary.nonce == *nonce && canary.count >= *count)
    };
    !head.groups_lost && head.canary.as_ref().is_some_and(is)
}

/// A group that is there `now` and that would not come back from what was stored before.
fn lost_group<'a>(head: &Head, saved: &Saved, now: &'a View, known: &[Canary]) -> Option<&'a str> {
    let comes_back = |group: &&Group| {
        let same = |saved: &&Group| saved.name == group.name;
        let stored = saved.groups.iter().find(same);
        is_of(head, known) && stored.is_some_and(|stored| stored.delivered <= group.delivered)
    };
    now.groups.iter().find(|group| !comes_back(group)).map(|group| &*group.name)
}

/// What is stored is no older than what was `seen`; `now` was looked at after that was read, so that a group
/// that somebody has set back is not taken for one that was stored later.
fn covers(saved: &Saved, seen: &View, now: &View) -> bool {
    let Place::At(last) = seen.place else { return true };
    seen.groups.iter().all(|seen| {
        let seen = seen.clone().within(last);
        let Some(now) = now.groups.iter().find(|group| group.name == seen.name) else {
            // Somebody has destroyed it.
            return true;
        };
        saved.groups.iter().any(|saved| {
            let is_as_far = saved.delivered >= seen.delivered && done(saved) >= done(&seen);
            saved.name == seen.name
                && (is_as_far || now.delivered < seen.delivered)
                && saved.delivered <= now.delivered
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outbox::State;

    fn view(delivered: u64, waiting: u64) -> View {
        let at = |n| Position { ms: n, n };
        let group = Group {
            name: "mail".into(),
            delivered: at(delivered),
            given: delivered,
            waiting,
            pending: None,
            ..Group::default()
        };
        View {
            place: Place::At(at(100)),
            first: None,
            entries: 0,
            bytes: 0,
            removed: None,
            groups: vec![group],
        }
    }

    fn saved(delivered: u64, waiting: u64) -> Saved {
        Saved { floor: Position::START, groups: view(delivered, waiting).groups }
    }

    #[test]
    fn a_checkpoint_covers_what_was_seen_if_it_is_as_far() {
        let seen = view(50, 10);
        assert!(covers(&saved(50, 10), &seen, &view(50, 10)));
        assert!(covers(&saved(60, 10), &seen, &view(70, 0)));
        assert!(!covers(&saved(49, 9), &seen, &view(50, 10)), "it was given more");
        assert!(!covers(&saved(50, 11), &seen, &view(50, 10)), "it has acknowledged more");
        assert!(!covers(&Saved::default(), &seen, &seen), "it is new");
        assert!(!covers(&saved(50, 10), &view(20, 0), &view(20, 0)), "somebody has set it back");
        let gone = View { groups: Vec::new(), ..view(0, 0) };
        assert!(covers(&saved(10, 0), &seen, &gone), "somebody has destroyed it");
    }

    #[test]
    fn a_group_comes_back_if_a_checkpoint_of_this_life_has_it() {
        let head = |nonce: &str, count, groups_lost| Head {
            stream: "orders".into(),
            sealed: Position::START,
            dispatched: 0,
            floor: Position::START,
            purged: Position::START,
            canary: Some((nonce.into(), count)),
            checkpointed_us: 0,
            groups_lost,
            told: (State::Active, None),
        };
        let known = [Canary { nonce: "a".into(), count: 7 }];
        let lost = |head: &Head, saved: &Saved| {
            lost_group(head, saved, &view(50, 10), &known).map(str::to_owned)
        };
        let of_this = head("a", 7, false);
        assert_eq!(lost(&of_this, &saved(50, 10)), None);
        assert_eq!(lost(&of_this, &saved(40, 0)), None, "it has gone on, as it may");
        let mail = Some("mail".to_owned());
        assert_eq!(lost(&of_this, &Saved::default()), mail, "it was made after the checkpoint");
        assert_eq!(lost(&of_this, &saved(60, 0)), mail, "somebody has set it back");
        assert_eq!(lost(&head("b", 7, false), &saved(50, 10)), mail, "of another life");
        assert_eq!(lost(&head("a", 8, false), &saved(50, 10)), mail, "Redis has gone back");
        assert_eq!(lost(&head("a", 7, true), &saved(50, 10)), mail, "it is known to be lost");
        assert_eq!(lost(&Head { canary: None, ..of_this }, &saved(50, 10)), mail);
    }

    #[test]
    fn a_relay_works_on_a_redis_whose_counter_it_raises() {
        let canary =
            |nonce: &str, count| vec![(Shard(0), Some(Canary { nonce: nonce.into(), count }))];
        assert!(rose(&canary("a", 1), &canary("a", 2)));
        assert!(!rose(&canary("a", 1), &canary("a", 1)));
        assert!(!rose(&canary("a", 1), &canary("b", 2)));
        assert!(!rose(&canary("a", 1), &[(Shard(0), None)]));
    }
}
