//! A stream that is somebody's for a while, and then gone: a part of the log, copied.

use std::time::Duration;

use super::append::{Appended, read};
use super::shard::Redis;
use crate::error::{Kind, Result, Target};
use crate::position::Position;

impl Redis {
    /// Makes the empty stream `stream` that expires after `time`, if there is no such key.
    ///
    /// # Errors
    /// As [`Redis::append`].
    pub async fn begin_expiring(&self, stream: &str, time: Duration) -> Result<Appended> {
        self.expiring(stream, "none", Position::START, time.as_secs()).await
    }

    /// Says anew when `stream` expires, if it is still at `expected`.
    ///
    /// # Errors
    /// As [`Redis::append`].
    pub async fn keep_expiring(
        &self,
        stream: &str,
        expected: Position,
        time: Duration,
    ) -> Result<Appended> {
        self.expiring(stream, "stream", expected, time.as_secs()).await
    }

    /// Removes `stream` if it is still at `expected`.
    ///
    /// # Errors
    /// As [`Redis::append`].
    pub async fn end_expiring(&self, stream: &str, expected: Position) -> Result<Appended> {
        self.expiring(stream, "stream", expected, 0).await
    }

    async fn expiring(
        &self,
        stream: &str,
        kind: &str,
        expected: Position,
        seconds: u64,
    ) -> Result<Appended> {
        let mut replies = self
            .run(&self.scripts.expiring, 1, |command, _| {
                command.arg(1).arg(self.key(stream));
                command.arg(kind).arg(expected.to_string()).arg(seconds);
            })
            .await?;
        let none = || Target::Redis.error(Kind::Internal, "Redis answered nothing");
        read(expected, replies.pop().ok_or_else(none)?)
    }
}
