//! The model of Redis as one relay reaches it: a connection over a wire of its own.

use std::sync::Arc;

use async_trait::async_trait;

use super::wire::{Net, Wire};
use super::world::{OUTBOX, Shared, World};
use crate::error::{Kind, Result, Target};
use crate::group::Group;
use crate::position::Position;
use crate::relay::servers::{Redis, RedisServer};
use crate::stream::{
    Append, Appended, Canary, Claim, Life, Limits, Owner, Place, Restored, Shard, StreamEntry, View,
};

/// The model of Redis as one relay reaches it.
#[derive(Debug)]
pub(super) struct RedisDoor {
    pub(super) world: Shared,
    pub(super) net: Net,
}

#[derive(Debug)]
struct Connection {
    world: Shared,
    wire: Wire,
    boot: u64,
}

#[async_trait]
impl RedisServer for RedisDoor {
    fn name(&self) -> String {
        "model".to_owned()
    }

    async fn connect(&self) -> Result<Arc<dyn Redis>> {
        let wire = self.net.connect().await?;
        let boot = self.world.with(|world| world.redis.boot);
        Ok(Arc::new(Connection { world: self.world.clone(), wire, boot }))
    }
}

fn busy() -> String {
    "OOM command not allowed when used memory > 'maxmemory'.".to_owned()
}

impl Connection {
    async fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut World) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (world, boot) = (self.world.clone(), self.boot);
        let carried = move || {
            world.with(|world| {
                world.steps += 1;
                match world.redis.boot == boot {
                    true => command(world),
                    false => Err(Target::Redis.error(Kind::Unavailable, "the server went away")),
                }
            })
        };
        self.wire.call(carried).await
    }

    /// As [`Connection::ask`], of a command that needs memory.
    async fn write<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut World) -> T + Send + 'static,
    ) -> Result<T> {
        self.ask(|world| match world.redis_is_full() {
            true => Err(Target::Redis.error(Kind::Busy, busy())),
            false => Ok(command(world)),
        })
        .await
    }
}

#[async_trait]
impl Redis for Connection {
    fn key(&self, stream: &str) -> String {
        stream.to_owned()
    }

    fn shards(&self) -> Vec<Shard> {
        vec![Shard(0)]
    }

    fn shard(&self, _: &str) -> Shard {
        Shard(0)
    }

    fn shard_name(&self, _: Shard) -> String {
        "model".to_owned()
    }

    async fn ping(&self) -> Result<()> {
        self.ask(|_| Ok(())).await
    }

    async fn make_all_durable(&self) -> Result<()> {
        Ok(())
    }

    async fn refuse_unfit(&self) -> Result<()> {
        self.ping().await
    }

    async fn life(&self) -> Result<Vec<Life>> {
        let boot = self.boot.to_string();
        self.ask(|_| Ok(vec![Life { run_id: boot, ..Life::default() }])).await
    }

    async fn claim(&self, _: Shard, owner: &Owner) -> Result<Claim> {
        let owner = owner.clone();
        let ours = self.ask(|world| Ok(world.redis.canary(0).is_some())).await?;
        match ours {
            true => Ok(Claim::Ours),
            false => self.write(move |world| world.redis.claim(&owner)).await,
        }
    }

    async fn canary(&self, _: Shard, _: &Owner, by: u64) -> Result<Option<Canary>> {
        match by {
            0 => self.ask(|world| Ok(world.redis.canary(0))).await,
            _ => self.write(move |world| world.redis.canary(by)).await,
        }
    }

    async fn canaries(&self, owner: &Owner) -> Result<Vec<Canary>> {
        Ok(self.canary(Shard(0), owner, 0).await?.into_iter().collect())
    }

    async fn renew_canary(&self, _: Shard) -> Result<Canary> {
        let owner = Owner { id: OUTBOX.to_string(), system: "1".to_owned(), former: Vec::new() };
        self.write(move |world| world.redis.renew_canary(&owner)).await
    }

    async fn positions(&self, streams: &[Arc<str>]) -> Result<Vec<Place>> {
        let streams = streams.to_vec();
        self.ask(move |world| Ok(streams.iter().map(|name| world.redis.place(name)).collect()))
            .await
    }

    async fn range(
        &self,
        stream: &str,
        after: Position,
        through: Position,
        count: usize,
    ) -> Result<Vec<StreamEntry>> {
        let stream = stream.to_owned();
        let bytes =
            |(name, value): &(&str, String)| (name.as_bytes().to_vec(), value.as_bytes().to_vec());
        self.ask(move |world| {
            let found = world.redis.range(&stream, after, through, count).into_iter();
            let entries = found.map(|(position, fields)| StreamEntry {
                position,
                fields: fields.iter().map(bytes).collect(),
            });
            Ok(entries.collect())
        })
        .await
    }

    async fn last_before(&self, _: &str, _: Position) -> Result<Option<Position>> {
        Ok(None)
    }

    async fn append(&self, appends: &[Append], limits: Limits) -> Result<Vec<Appended>> {
        // One request each: others come between the scripts of a pipeline.
        let asked = appends.iter().map(|append| {
            let append = append.clone();
            self.ask(move |world| match world.redis_is_full() {
                true if world.redis.last(&append.stream) == append.expected => {
                    Ok(Appended::Refused(busy()))
                }
                _ => Ok(world.append(&append, limits)),
            })
        });
        futures_util::future::try_join_all(asked).await
    }

    async fn views(&self, streams: &[Arc<str>]) -> Result<Vec<View>> {
        let mut views = Vec::with_capacity(streams.len());
        for stream in streams {
            let name = stream.clone();
            let view = self.ask(move |world| {
                let held = world.redis.held.streams.get(&name);
                Ok(held.map_or_else(missing, super::redis::Stream::view))
            });
            views.push(view.await?);
        }
        Ok(views)
    }

    async fn trim(&self, streams: &[(Arc<str>, Position, bool)]) -> Result<Vec<u64>> {
        let mut trimmed = Vec::with_capacity(streams.len());
        for (stream, floor, grouped) in streams.iter().cloned() {
            trimmed.push(self.ask(move |world| Ok(world.trim(&stream, floor, grouped))).await?);
        }
        Ok(trimmed)
    }

    async fn restore(
        &self,
        stream: &str,
        expected: Position,
        floor: Position,
        groups: &[Group],
    ) -> Result<Restored> {
        let (stream, groups) = (stream.to_owned(), groups.to_vec());
        self.ask(move |world| {
            Ok(match world.redis_is_full() {
                true => Restored::Not(Appended::Refused(busy())),
                false => world.restore(&stream, expected, floor, &groups),
            })
        })
        .await
    }

    async fn pend(
        &self,
        stream: &str,
        expected: Position,
        groups: &[Group],
        gone: &[String],
    ) -> Result<Appended> {
        for group in groups {
            let (stream, group) = (stream.to_owned(), group.clone());
            let is_gone = gone.contains(&group.name);
            let pended = self.ask(move |world| {
                Ok(match world.redis_is_full() {
                    true => Appended::Refused(busy()),
                    false => world.pend(&stream, expected, &group, is_gone),
                })
            });
            match pended.await? {
                Appended::Done => {}
                other => return Ok(other),
            }
        }
        Ok(Appended::Done)
    }
}

fn missing() -> View {
    let (first, removed, groups) = (None, None, Vec::new());
    View { place: Place::Missing, first, entries: 0, bytes: 0, removed, groups }
}
