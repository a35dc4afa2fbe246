//! Scripts: their texts, and how they are run.

use redis::{Cmd, RedisResult, Script, Value};

use super::classify::{Class, classify};
use super::connect::code;
use super::shard::Redis;
use crate::error::Result;

/// All of them.
pub(super) struct Scripts {
    pub(super) append: Text,
    pub(super) attempt: Text,
    pub(super) canary: Text,
    pub(super) claim: Text,
    pub(super) given: Text,
    pub(super) keep: Text,
    pub(super) look: Text,
    pub(super) pend: Text,
    pub(super) position: Text,
    pub(super) rebuild: Text,
    pub(super) expiring: Text,
    pub(super) restore: Text,
    pub(super) retire: Text,
    pub(super) stale: Text,
    pub(super) survey: Text,
    pub(super) trim: Text,
}

pub(super) struct Text {
    code: &'static str,
    hash: String,
}

/// A script with the functions that it uses before it.
macro_rules! script {
    ($($file:literal),+) => { Text::new(concat!(include_str!("place.lua"), $(include_str!($file)),+)) };
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            append: script!("groups.lua", "append.lua"),
            attempt: script!("attempt.lua"),
            canary: script!("canary.lua"),
            claim: script!("claim.lua"),
            given: script!("given.lua"),
            keep: script!("keep.lua"),
            expiring: script!("expiring.lua"),
            look: script!("groups.lua", "look.lua"),
            pend: script!("groups.lua", "pend.lua"),
            position: script!("position.lua"),
            rebuild: script!("groups.lua", "rebuild.lua"),
            restore: script!("groups.lua", "restore.lua"),
            retire: script!("retire.lua"),
            stale: script!("stale.lua"),
            survey: script!("survey.lua"),
            trim: script!("groups.lua", "trim.lua"),
        }
    }
}

impl Text {
    pub(super) fn new(code: &'static str) -> Self {
        Self { code, hash: Script::new(code).get_hash().to_owned() }
    }

    /// EVALSHA or EVAL, up to where the keys begin.
    pub(super) fn begin(&self, by_hash: bool) -> Cmd {
        let mut command = redis::cmd(if by_hash { "EVALSHA" } else { "EVAL" });
        command.arg(if by_hash { &self.hash } else { self.code });
        command
    }
}

impl Redis {
    /// Runs a script `count` times in one pipeline, with what `arguments` adds each time, and
    /// returns each reply; an error reply is an `Err` in its place.
    ///
    /// Where the server does not have the script, as after SCRIPT FLUSH or a restart, all calls are
    /// sent again with its text: a script must tolerate that those of its calls that were executed
    /// are executed twice.
    pub(super) async fn run(
        &self,
        script: &Text,
        count: usize,
        arguments: impl Fn(&mut Cmd, usize),
    ) -> Result<Vec<RedisResult<Value>>> {
        let mut by_hash = true;
        loop {
            let calls = (0..count).map(|index| {
                let mut command = script.begin(by_hash);
                arguments(&mut command, index);
                command
            });
            let replies = self.send(calls.collect()).await?;
            let missing = |reply: &RedisResult<Value>| {
                let error = reply.as_ref().err();
                error.is_some_and(|error| classify(code(error)) == Class::NoScript)
            };
            if !by_hash || !replies.iter().any(missing) {
                return Ok(replies);
            }
            by_hash = false;
        }
    }
}
