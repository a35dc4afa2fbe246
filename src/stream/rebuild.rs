//! A stream filled anew beside the old one, then put in its place in one step.

use redis::{Value, cmd};

use super::append::{Append, Appended, Limits};
use super::connect::in_words;
use super::positions::Place;
use super::restore::Restored;
use super::shard::Redis;
use super::slot::slot;
use crate::error::{Kind, Result, Target};
use crate::position::Position;

/// Pending entries carried over per group: more would keep the server from others for long.
const PENDING: usize = 10_000;

/// What came of putting the copy in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// The stream is what the copy was.
    Done {
        /// Groups carried over.
        groups: u64,
        /// Their pending entries.
        pending: u64,
    },
    /// The stream went on to this position meanwhile; nothing was changed.
    Moved(Position),
}

/// The end of the old stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OldEnd {
    /// Its last position, if what stands there is not ours.
    pub foreign: Option<Position>,
    /// Up to here it was ours.
    pub ours: Position,
}

impl Redis {
    /// Removes what an earlier rebuild of `stream` left half done.
    ///
    /// # Errors
    /// Any error of the connection or of the command.
    pub async fn discard_copy(&self, stream: &str) -> Result<()> {
        self.command::<Value>(cmd("UNLINK").arg(self.copy_key(stream))).await.map(drop)
    }

    /// Appends to the copy of the stream what is to be in it.
    ///
    /// # Errors
    /// As [`Redis::append`].
    pub async fn append_to_copy(&self, append: &Append) -> Result<Appended> {
        self.append_at(std::slice::from_ref(append), Limits::NONE, |stream| self.copy_key(stream))
            .await?
            .pop()
            .ok_or_else(|| Target::Redis.error(Kind::Internal, "Redis answered nothing"))
    }

    /// Makes the copy, or, if it is at `expected`, makes it go on behind `floor`.
    ///
    /// # Errors
    /// As [`Redis::append`].
    pub async fn move_copy(
        &self,
        stream: &str,
        expected: Position,
        floor: Position,
    ) -> Result<Restored> {
        self.restore_at(&self.copy_key(stream), expected, floor, &[]).await
    }

    /// Puts the copy in the place of the stream, with the groups of the old one.
    ///
    /// # Errors
    /// Any error of the connection or of the script.
    pub async fn replace_by_copy(&self, stream: &str, old: &OldEnd) -> Result<Replaced> {
        let foreign = old.foreign.map(|position| position.to_string()).unwrap_or_default();
        let replies = self
            .run(&self.scripts.rebuild, 1, |command, _| {
                command.arg(2).arg(self.key(stream)).arg(self.copy_key(stream));
                command.arg(&foreign).arg(old.ours.to_string()).arg(PENDING);
            })
            .await?;
        let odd = || Target::Redis.error(Kind::Internal, "Redis answers the rebuild script oddly");
        let reply = replies.into_iter().next().ok_or_else(odd)?.map_err(in_words)?;
        let parts: Vec<String> = redis::from_redis_value(reply).map_err(|_| odd())?;
        match parts.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["done", groups, pending] => Ok(Replaced::Done {
                groups: groups.parse().map_err(|_| odd())?,
                pending: pending.parse().map_err(|_| odd())?,
            }),
            ["moved", last] => Ok(Replaced::Moved(last.parse().map_err(|_| odd())?)),
            _ => Err(odd()),
        }
    }

    /// Where the stream is.
    ///
    /// # Errors
    /// As [`Redis::positions`].
    pub async fn place(&self, stream: &str) -> Result<Place> {
        let places = self.positions(&[stream.into()]).await?;
        let none = || Target::Redis.error(Kind::Internal, "Redis answered nothing");
        places.into_iter().next().ok_or_else(none)
    }

    /// Key of the copy: in the slot of the stream, for a script may not cross slots in a cluster.
    fn copy_key(&self, stream: &str) -> String {
        let key = self.key(stream);
        let plain = self.key(&format!("outbox:rebuild:{stream}"));
        let whole = self.key(&format!("outbox:rebuild:{{{key}}}"));
        // For a key with braces in it that are no tag.
        let numbered =
            (0..u32::MAX).map(|tag| self.key(&format!("outbox:rebuild:{{{tag}}}:{stream}")));
        let mut keys = [plain.clone(), whole].into_iter().chain(numbered);
        keys.find(|copy| slot(copy) == slot(&key)).unwrap_or(plain)
    }
}
