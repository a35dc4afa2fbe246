//! Scripts of others: each is run with one key and texts, and answers in texts.

use redis::{FromRedisValue as _, Value};

use super::connect::in_words;
use super::script::Text;
use super::shard::Redis;
use crate::error::{Kind, Result, Target};

/// A script that somebody outside of this folder keeps beside its caller.
pub(crate) struct Call(Text);

impl Call {
    /// A script with this text. It has one key and returns a list of texts.
    pub(crate) fn new(code: &'static str) -> Self {
        Self(Text::new(code))
    }
}

impl Redis {
    /// Runs a script on `key`, which the prefix begins, where that key is, and returns what it answers. It
    /// may be executed twice, as [`Redis::run`] says.
    ///
    /// # Errors
    /// Any error of the connection; an error reply, by what it means.
    pub(crate) async fn call(
        &self,
        call: &Call,
        key: &str,
        arguments: &[&str],
    ) -> Result<Vec<String>> {
        let mut replies = self
            .run(&call.0, 1, |command, _| {
                command.arg(1).arg(self.key(key)).arg(arguments);
            })
            .await?;
        let odd = || Target::Redis.error(Kind::Internal, "Redis answers a script oddly");
        let reply: Value = replies.pop().ok_or_else(odd)?.map_err(in_words)?;
        Vec::from_redis_value(reply).map_err(|_| odd())
    }

    /// Whether all of a cluster is still where it was when connecting. It goes on where it is not, each time
    /// by a detour.
    pub(crate) fn is_in_place(&self) -> bool {
        self.refuse_moved().is_ok()
    }
}
