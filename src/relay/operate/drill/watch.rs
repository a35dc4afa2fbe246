//! Streams, groups and consumers, from the moment Redis is empty until they are back.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::ends::Ends;
use super::report::Drilled;
use super::seen::WatchedGroup;
use crate::error::{Error, Kind, Result, Target};
use crate::outbox::Head;
use crate::position::Position;
use crate::relay::operate::verify::verify_at_least;
use crate::stream::{Place, View};
use crate::text::{age, counted, grouped};

/// Between two looks, at least; longer where a look takes long, so that the rebuild is hardly slowed down.
const PAUSE: Duration = Duration::from_millis(50);
/// Progress is told this often.
const TOLD: Duration = Duration::from_secs(2);
/// Streams named in an error; more are only counted.
const SHOWN: usize = 3;

/// A rebuild that is watched.
pub struct Watch {
    pub(super) ends: Ends,
    begun: Instant,
    within: Duration,
    pub(super) streams: Vec<Watched>,
    /// Keys that were removed and that nobody puts back.
    pub(super) others: u64,
    /// When every primary had the relay's own key again.
    pub(super) noticed: Option<Duration>,
    /// When a group was first seen to have acknowledged something.
    pub(super) acknowledged: Option<Duration>,
}

/// A stream that was there before.
pub(super) struct Watched {
    pub(super) name: Arc<str>,
    pub(super) before: View,
    /// Which life of Redis its checkpoint is of, and how far that had got.
    canary: Option<(String, u64)>,
    pub(super) groups: Vec<WatchedGroup>,
    /// When it was where it had been, with its groups.
    pub(super) whole: Option<Duration>,
    /// Its groups have got back what they had not acknowledged.
    settled: bool,
}

impl Watched {
    pub(super) fn new(head: Head, before: View, groups: Vec<WatchedGroup>) -> Self {
        let (name, canary) = (head.stream, head.canary);
        Self { name, before, canary, groups, whole: None, settled: false }
    }

    /// Where it was.
    fn end(&self) -> Position {
        match self.before.place {
            Place::At(last) => last,
            _ => Position::START,
        }
    }

    fn is_at_its_end(&self, place: &Place) -> bool {
        match place {
            Place::At(at) => *at >= self.end(),
            _ => self.before.place == Place::Missing,
        }
    }

    /// A group that the relay never saw does not come back.
    fn has_its_groups(&self, view: &View) -> bool {
        self.groups.iter().all(|group| group.stored.is_none() || group.is_back(&view.groups))
    }
}

impl Watch {
    pub(super) fn new(
        ends: Ends,
        begun: Instant,
        within: Duration,
        streams: Vec<Watched>,
        others: u64,
    ) -> Self {
        let (noticed, acknowledged) = (None, None);
        Self { ends, begun, within, streams, others, noticed, acknowledged }
    }

    /// Watches until all are back, or the time is over; then compares Redis with the log. `told` is told
    /// about progress.
    ///
    /// # Errors
    /// `Unavailable` if streams are not back by then, with what to do; any error of a server that lasts.
    pub async fn run(mut self, mut told: impl FnMut(&str)) -> Result<Drilled> {
        told("Redis is empty; watching");
        let (mut last_told, mut failed) = (Instant::now(), None);
        while !self.is_over() && self.begun.elapsed() < self.within {
            let asked = Instant::now();
            failed = match self.look().await {
                Err(error) if !matches!(error.kind(), Kind::Unavailable | Kind::Busy) => {
                    return Err(error);
                }
                looked => looked.err(),
            };
            if failed.is_some() {
                // The next look says whether that helped.
                let _ = self.ends.reconnect().await;
            }
            if last_told.elapsed() >= TOLD {
                last_told = Instant::now();
                told(&self.progress());
            }
            let left = self.within.saturating_sub(self.begun.elapsed());
            tokio::time::sleep((2 * asked.elapsed()).max(PAUSE).min(left)).await;
        }
        self.refuse_unfinished(failed).await?;
        told("comparing Redis with the log");
        let had = self.streams.iter().map(|stream| (stream.name.clone(), stream.end().n)).collect();
        let (database, server) = (&self.ends.database, &self.ends.server);
        let verified = verify_at_least(database, server, &had, |_, _, _| {}).await?;
        let names = self.names();
        let after = self.ends.redis.views(&names).await?;
        Ok(Drilled::new(&self, verified, &after))
    }

    fn names(&self) -> Vec<Arc<str>> {
        self.streams.iter().map(|stream| stream.name.clone()).collect()
    }

    fn is_rebuilt(&self) -> bool {
        self.noticed.is_some() && self.streams.iter().all(|stream| stream.settled)
    }

    fn is_over(&self) -> bool {
        let waits = |stream: &Watched| stream.groups.iter().any(WatchedGroup::waits);
        self.is_rebuilt() && !self.streams.iter().any(waits)
    }

    fn progress(&self) -> String {
        let whole = self.streams.iter().filter(|stream| stream.whole.is_some()).count();
        let streams = counted(self.streams.len() as u64, "stream", "streams");
        let groups = || self.streams.iter().flat_map(|stream| &stream.groups);
        let expected = || groups().flat_map(|g| &g.consumers).filter(|c| c.expected);
        let back = expected().filter(|consumer| consumer.back.is_some()).count();
        let since = age(self.begun.elapsed());
        let consumers = counted(expected().count() as u64, "consumer", "consumers");
        format!("after {since}: {whole} of {streams} whole, {back} of {consumers} back")
    }

    async fn look(&mut self) -> Result<()> {
        if self.noticed.is_none() && self.ends.is_claimed().await? {
            self.noticed = Some(self.begun.elapsed());
        }
        self.see_heads().await?;
        self.see_streams().await?;
        self.see_acknowledged().await?;
        self.see_consumers().await
    }

    /// What Postgres says: checkpoints that were on their way, and whether the relay is done.
    async fn see_heads(&mut self) -> Result<()> {
        if self.streams.iter().all(|stream| stream.settled) {
            return Ok(());
        }
        let heads = self.heads().await?;
        self.see_checkpoints(&heads).await?;
        for (stream, head) in self.streams.iter_mut().zip(heads) {
            let Some(head) = head else { continue };
            // What groups had not acknowledged comes back before anything beyond that.
            let has_pending = !head.groups_lost || head.dispatched > stream.end().n;
            stream.settled = stream.whole.is_some() && has_pending;
        }
        Ok(())
    }

    /// A checkpoint that was on its way when Redis was emptied is the one that groups are put back to.
    async fn see_checkpoints(&mut self, heads: &[Option<Head>]) -> Result<()> {
        let is_later = |stream: &Watched, canary: Option<&(String, u64)>| {
            let lives = (canary.map(|canary| &canary.0), stream.canary.as_ref().map(|c| &c.0));
            lives.0 == lives.1 && canary != stream.canary.as_ref()
        };
        let canary = |head: &Option<Head>| head.as_ref().and_then(|head| head.canary.clone());
        let mut later = Vec::new();
        for (at, (stream, head)) in self.streams.iter().zip(heads).enumerate() {
            if is_later(stream, canary(head).as_ref()) {
                later.push((at, canary(head), self.ends.log.saved_groups(&stream.name).await?));
            }
        }
        if later.is_empty() {
            return Ok(());
        }
        // What was read is of that life only if what is there after it still is.
        let heads = self.heads().await?;
        for (at, read, saved) in later {
            let stream = &mut self.streams[at];
            if is_later(stream, canary(&heads[at]).as_ref()) {
                stream.groups.iter_mut().for_each(|group| group.set_stored(&saved));
                stream.canary = read;
            }
        }
        Ok(())
    }

    /// What Postgres has of each stream, in their order.
    async fn heads(&self) -> Result<Vec<Option<Head>>> {
        let heads = self.ends.log.heads().await?;
        let mut heads: HashMap<Arc<str>, Head> =
            heads.into_iter().map(|head| (head.stream.clone(), head)).collect();
        Ok(self.streams.iter().map(|stream| heads.remove(&stream.name)).collect())
    }

    /// Streams that are where they were, with their groups.
    async fn see_streams(&mut self) -> Result<()> {
        let open = |(_, stream): &(usize, &Watched)| stream.whole.is_none();
        let open: Vec<usize> =
            self.streams.iter().enumerate().filter(open).map(|(at, _)| at).collect();
        let names: Vec<_> = open.iter().map(|at| self.streams[*at].name.clone()).collect();
        let places = self.ends.redis.positions(&names).await?;
        let open: Vec<usize> = open
            .into_iter()
            .zip(places)
            .filter(|(at, place)| self.streams[*at].is_at_its_end(place))
            .map(|(at, _)| at)
            .collect();
        let names: Vec<_> = open.iter().map(|at| self.streams[*at].name.clone()).collect();
        let views = self.ends.redis.views(&names).await?;
        let now = self.begun.elapsed();
        for (at, view) in open.into_iter().zip(views) {
            if self.streams[at].has_its_groups(&view) {
                self.streams[at].whole = Some(now);
            }
        }
        Ok(())
    }

    /// The first acknowledgement after the rebuild.
    async fn see_acknowledged(&mut self) -> Result<()> {
        if self.acknowledged.is_some() {
            return Ok(());
        }
        let whole: Vec<&Watched> =
            self.streams.iter().filter(|stream| stream.whole.is_some()).collect();
        let names: Vec<_> = whole.iter().map(|stream| stream.name.clone()).collect();
        let views = self.ends.redis.views(&names).await?;
        let goes_on = |(stream, view): (&&Watched, &View)| {
            stream.groups.iter().any(|group| group.acknowledges(&view.groups))
        };
        if whole.iter().zip(&views).any(goes_on) {
            self.acknowledged = Some(self.begun.elapsed());
        }
        Ok(())
    }

    /// Consumers that ask again.
    async fn see_consumers(&mut self) -> Result<()> {
        let mut groups = Vec::new();
        for (at, stream) in self.streams.iter().enumerate().filter(|(_, s)| s.whole.is_some()) {
            let open = stream.groups.iter().enumerate().filter(|(_, group)| group.waits());
            groups.extend(open.map(|(group, _)| (at, group)));
        }
        let name = |(at, group): &(usize, usize)| {
            let stream = &self.streams[*at];
            (stream.name.clone(), stream.groups[*group].before.name.clone())
        };
        let names: Vec<_> = groups.iter().map(name).collect();
        let sent = self.begun.elapsed();
        let found = self.ends.redis.consumers(&names).await?;
        let heard = self.begun.elapsed();
        for ((at, group), consumers) in groups.into_iter().zip(found) {
            self.streams[at].groups[group].see(&consumers, sent, heard);
        }
        Ok(())
    }

    /// Refuses to report a rebuild that did not end.
    async fn refuse_unfinished(&self, failed: Option<Error>) -> Result<()> {
        if self.is_rebuilt() {
            return Ok(());
        }
        let open = || self.streams.iter().filter(|stream| !stream.settled).map(|one| &*one.name);
        let mut names: Vec<&str> = open().collect();
        let more = names.len().saturating_sub(SHOWN);
        names.truncate(SHOWN);
        let streams = match (&names[..], more) {
            ([], _) => "the relay's own key is".to_owned(),
            ([one], _) => format!("stream {one} is"),
            (names, 0) => format!("streams {} are", names.join(", ")),
            (names, more) => {
                format!("streams {} and {} more are", names.join(", "), grouped(more as u64))
            }
        };
        let why = match failed {
            Some(error) => error.to_string(),
            None => self.why(&open().collect()).await.unwrap_or_else(|error| error.to_string()),
        };
        Err(Target::Redis.error(
            Kind::Unavailable,
            format!(
                "Redis was emptied, and within {} {streams} not back: {why}; `outbox-relay status` says how \
                 far it is, and `outbox-relay verify` whether anything is missing when it is done",
                age(self.within)
            ),
        ))
    }

    /// Why these streams are not back, as far as Postgres knows.
    async fn why(&self, open: &HashSet<&str>) -> Result<String> {
        if let Some(leaderless) = self.ends.leaderless().await? {
            return Ok(leaderless);
        }
        let streams = self.ends.survey.streams().await?;
        let held = streams.iter().filter(|one| open.contains(&*one.stream));
        let mut held = held.filter(|one| !matches!(&*one.state, "active" | "rebuilding"));
        Ok(match held.next() {
            Some(one) => {
                let reason = one.reason.as_ref().map_or(String::new(), |why| format!(" ({why})"));
                format!("stream {} is {}{reason}", one.stream, one.state)
            }
            None => "a relay leads, and has not put all of it back yet".to_owned(),
        })
    }
}
