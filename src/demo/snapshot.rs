//! A snapshot that Redis has written.

use std::time::Duration;

use redis::RedisResult;

use super::journal::STREAMS;
use super::streams::{self, Streams};
use crate::position::Position;

/// SAVE answers when all is on disk.
const SAVE_LIMIT: Duration = Duration::from_secs(60);

/// Nobody can write for so long at most, whatever becomes of us.
const PAUSE_MS: u64 = 5000;

/// What the file `dump.rdb` of Redis holds.
pub(super) struct Snapshot {
    /// Entries in it.
    pub(super) total: u64,
    /// The last entry of each stream.
    pub(super) last: [Position; STREAMS.len()],
}

impl Snapshot {
    /// Lets Redis write one, while nobody can append, so that it is known what is in it.
    pub(super) async fn save(streams: &mut Streams) -> RedisResult<Self> {
        let mut connection = streams::connect_for(streams.url(), SAVE_LIMIT).await?;
        pause_writes(streams).await?;
        let (total, last) = (streams.total().await?, streams.last_positions().await?);
        redis::cmd("SAVE").exec_async(&mut connection).await?;
        redis::cmd("CLIENT").arg("UNPAUSE").exec_async(&mut connection).await?;
        Ok(Self { total, last })
    }

    /// How many entries both streams had been given by then.
    pub(super) fn appended(&self) -> u64 {
        self.last.iter().map(|last| last.n).sum()
    }
}

/// Nobody can append, read as a group or acknowledge from now on, for [`PAUSE_MS`] or until Redis ends.
pub(super) async fn pause_writes(streams: &Streams) -> RedisResult<()> {
    let mut connection = streams::connect(streams.url()).await?;
    let mut command = redis::cmd("CLIENT");
    command.arg("PAUSE").arg(PAUSE_MS).arg("WRITE").exec_async(&mut connection).await
}
