//! All keys of a Redis removed at once, as an accident would: for a drill.

use std::sync::Arc;

use redis::{Value, cmd};

use super::connect::{Server, code, in_words};
use super::shard::{Redis, Shard};
use super::view::{self, View};
use crate::error::{Kind, Result, Target};

impl Server {
    /// Refuses a user that may not empty this Redis. Nothing is removed: FLUSHDB is sent with a word that it
    /// does not know, and who has no right to the command is told so before the word is looked at. Queued
    /// in a MULTI it would be emptied by whoever may FLUSHDB and not MULTI, whose FLUSHDB is run at once.
    ///
    /// # Errors
    /// `Refused` with the right that is missing; any error of the connection.
    pub async fn check_may_empty(&self, redis: &Redis) -> Result<()> {
        for shard in redis.shards() {
            let asked = cmd("FLUSHDB").arg("PROBE").to_owned();
            let reply = redis.send_to(shard, vec![asked]).await?.pop();
            let Some(Err(error)) = reply else { continue };
            let (user, name) = (self.user(), redis.shard_name(shard));
            let context = match code(&error) {
                "NOPERM" => format!(
                    "user {user} of Redis may not empty it; give it the right for as long as drills are \
                     held, with ACL SETUSER {user} +flushdb, or let REDIS_URL name another user that has it"
                ),
                _ if error.to_string().contains("unknown command") => {
                    format!(
                        "Redis at {name} does not know FLUSHDB; its configuration has disabled it"
                    )
                }
                // It does not know the word.
                "ERR" => continue,
                _ => return Err(in_words(error)),
            };
            return Err(Target::Redis.error(Kind::Refused, context));
        }
        Ok(())
    }
}

impl Redis {
    /// Removes every key of the database that the URL names, in a cluster on every primary that has keys of
    /// ours: with a prefix in braces, on one. Returns what each
    /// of these streams was like just before, in their order, where Redis could say so; nothing of others
    /// comes between, unless there are hundreds of them.
    ///
    /// # Errors
    /// Any error of the connection or of the command: of a cluster, some primaries may be empty then.
    pub async fn empty(&self, streams: &[Arc<str>]) -> Result<Vec<Option<View>>> {
        let mut views: Vec<Option<View>> = streams.iter().map(|_| None).collect();
        for shard in self.shards() {
            let here: Vec<usize> =
                (0..streams.len()).filter(|at| self.shard(&streams[*at]) == shard).collect();
            let found = self.empty_one(shard, here.iter().map(|at| &streams[*at])).await?;
            for (at, view) in here.into_iter().zip(found) {
                views[at] = view;
            }
        }
        Ok(views)
    }

    async fn empty_one<'a>(
        &self,
        shard: Shard,
        streams: impl Iterator<Item = &'a Arc<str>>,
    ) -> Result<Vec<Option<View>>> {
        let mut commands: Vec<_> = streams.map(|stream| self.look_command(stream)).collect();
        // In the background, as a Redis that is gone takes no time to be empty either.
        commands.push(cmd("FLUSHDB").arg("ASYNC").to_owned());
        let mut replies = self.send_to(shard, commands).await?;
        let odd = || Target::Redis.error(Kind::Internal, "Redis left FLUSHDB unanswered");
        let _: Value = replies.pop().ok_or_else(odd)?.map_err(in_words)?;
        let read = |reply: redis::RedisResult<Value>| view::read(reply.ok()?).ok();
        Ok(replies.into_iter().map(read).collect())
    }
}
