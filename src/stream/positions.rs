//! Where streams are.

use std::sync::Arc;

use redis::Value;

use super::append::{SAID, odd_position};
use super::connect::in_words;
use super::shard::Redis;
use crate::error::{Kind, Result, Target};
use crate::position::Position;
use crate::text::line;

/// Streams asked in one pipeline: keeps both ends from buffering much.
const CHUNK: usize = 500;

/// What a stream's key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// No key.
    Missing,
    /// A stream whose last generated ID is this; [`Position::START`] if it never had an entry.
    At(Position),
    /// Something else, named as TYPE names it.
    WrongType(String),
}

impl Redis {
    /// Where each of these streams is, in their order. Also loads the scripts if they are missing.
    ///
    /// # Errors
    /// Any error of the connection or of a command.
    pub async fn positions(&self, streams: &[Arc<str>]) -> Result<Vec<Place>> {
        let mut places = Vec::with_capacity(streams.len());
        for chunk in streams.chunks(CHUNK) {
            let replies = self
                .run(&self.scripts.position, chunk.len(), |command, index| {
                    command.arg(1).arg(self.key(&chunk[index]));
                })
                .await?;
            for reply in replies {
                places.push(read(reply.map_err(in_words)?)?);
            }
        }
        // What is there counts, so it must be there to stay.
        self.make_all_durable().await?;
        Ok(places)
    }
}

fn read(reply: Value) -> Result<Place> {
    let (kind, last): (String, String) = redis::from_redis_value(reply).map_err(|error| {
        Target::Redis.error_by(Kind::Internal, "Redis answers the position script oddly", error)
    })?;
    match kind.as_str() {
        "none" => Ok(Place::Missing),
        "stream" => {
            last.parse().map(Place::At).map_err(|e: String| odd_position("the position script", &e))
        }
        _ => Ok(Place::WrongType(line(&kind, SAID))),
    }
}
