//! The way through all keys, in steps with rests between, and the removal of what is stale.

use std::collections::HashSet;

use tokio::time::Instant;

use super::judge::{self, Found};
use super::rules::{Kind, Rule};
use super::tally::{Tally, shown};
use super::{Removal, Review, Wish};
use crate::error::Result;
use crate::stream::{GroupSurvey, KeySurvey, Redis, Shard};

/// After each step it rests for so many times as long as the step took, our own part included: it takes a
/// third of the time of Redis at most. A step of 500 keys was seen to take Redis 3 ms.
const REST: u32 = 2;

/// A review at work.
pub(super) struct Search<'a> {
    pub(super) redis: &'a Redis,
    pub(super) wish: &'a Wish,
    /// Keys of the streams that the relay fills, if that is known.
    pub(super) relays: Option<HashSet<Vec<u8>>>,
    pub(super) review: &'a mut Review,
    pub(super) tally: &'a mut Tally,
}

impl Search<'_> {
    /// Looks at all keys, up to the bound; there are about `all`.
    pub(super) async fn all(
        &mut self,
        all: u64,
        progress: &mut (dyn FnMut(u64, u64) + Send),
    ) -> Result<()> {
        let primaries = self.redis.primaries();
        let share = self.wish.keys.div_ceil(primaries.len().max(1) as u64);
        self.review.whole = true;
        for shard in primaries {
            let before = self.review.keys;
            let mut cursor = None;
            loop {
                let begun = Instant::now();
                cursor = self.step(shard, cursor).await?;
                progress(self.review.keys, all);
                if cursor.is_none() {
                    break;
                }
                if self.review.keys - before >= share {
                    self.review.whole = false;
                    break;
                }
                tokio::time::sleep(begun.elapsed() * REST).await;
            }
        }
        Ok(())
    }

    async fn step(&mut self, shard: Shard, cursor: Option<String>) -> Result<Option<String>> {
        let page = self.redis.keys_after(shard, cursor.as_deref()).await?;
        let own = self.redis.key("outbox:").into_bytes();
        let (owns, others): (Vec<_>, Vec<_>) =
            page.keys.into_iter().partition(|key| key.starts_with(&own));
        self.review.relay_keys += owns.len() as u64;
        self.review.keys += (owns.len() + others.len()) as u64;
        for key in self.redis.survey(&others).await? {
            self.one(&key).await?;
        }
        Ok(page.next)
    }

    async fn one(&mut self, key: &KeySurvey) -> Result<()> {
        let wish = self.wish;
        let rule = wish.rules.of(&key.key);
        let (place, rule) = (rule.map(|rule| rule.0), rule.map(|rule| rule.1));
        let begun = Instant::now();
        let mut found = match key.kind.as_str() {
            "stream" => self.stream(key, rule).await?,
            _ => judge::key(rule, key),
        };
        if let ("list", Some(limit)) = (key.kind.as_str(), rule.and_then(|rule| rule.limit)) {
            found.extend(judge::length(self.redis.list_length(&key.key).await?, limit));
        }
        if matches!(key.kind.as_str(), "stream" | "list") {
            tokio::time::sleep(begun.elapsed() * REST).await;
        }
        if let Some(rule) = rule
            && self.removed(key, rule).await?
        {
            return Ok(());
        }
        for found in found {
            self.tally.add(place, &key.key, key.bytes, found);
        }
        Ok(())
    }

    /// What is wrong with a stream. The relay's needs no rule; if there is one, it is about its groups.
    async fn stream(&mut self, key: &KeySurvey, rule: Option<&Rule>) -> Result<Vec<Found>> {
        let idle = judge::idle(rule);
        let Some(mut stream) = self.redis.survey_stream(&key.key, idle).await? else {
            return Ok(Vec::new());
        };
        let relays = match &self.relays {
            // A copy that `replay` made expires.
            Some(known) => known.contains(&key.key) || stream.like_ours && key.expires.is_some(),
            None => stream.like_ours && key.key.starts_with(self.redis.key("").as_bytes()),
        };
        if relays {
            self.review.relay_keys += 1;
        }
        if let Some(rule) = rule {
            for group in &mut stream.groups {
                self.remove_consumers(key, rule, group).await?;
            }
        }
        let mut found = if relays { Vec::new() } else { judge::key(rule, key) };
        found.extend(judge::stream(rule, key, &stream, relays));
        Ok(found)
    }

    /// Removes a key that is stale, if its rule says so and it still is. Says whether it is gone.
    async fn removed(&mut self, key: &KeySurvey, rule: &Rule) -> Result<bool> {
        let Some(after) = rule.stale_after.filter(|_| rule.remove) else { return Ok(false) };
        let may = rule.kind != Kind::Queue && key.kind != "stream" && judge::is_stale(rule, key);
        if !may || self.wish.removal == Removal::No {
            return Ok(false);
        }
        let dry = self.wish.removal == Removal::Dry;
        if !dry && !self.redis.remove_stale(key, after, rule.longest_expiry).await? {
            return Ok(false);
        }
        self.review.removed.keys += 1;
        self.review.removed.name(shown(&key.key));
        Ok(!dry)
    }

    /// Removes consumers that are away from a group, if the rule says so, and takes them out of what was
    /// found.
    async fn remove_consumers(
        &mut self,
        key: &KeySurvey,
        rule: &Rule,
        group: &mut GroupSurvey,
    ) -> Result<()> {
        let Some(idle) = rule.longest_idle.filter(|_| rule.remove) else { return Ok(()) };
        if self.wish.removal == Removal::No {
            return Ok(());
        }
        let mut stay = Vec::new();
        for consumer in std::mem::take(&mut group.idle) {
            let dry = self.wish.removal == Removal::Dry;
            let gone =
                dry || self.redis.remove_consumer(&key.key, &group.name, &consumer, idle).await?;
            if gone {
                let name = judge::idle_consumer(group, &consumer);
                self.review.removed.consumers += 1;
                self.review.removed.name(format!("{} {name}", shown(&key.key)));
            }
            if dry || !gone {
                stay.push(consumer);
            }
        }
        group.idle = stay;
        Ok(())
    }
}
