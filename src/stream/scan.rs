//! Entries of a stream, read back.

use redis::{Value, cmd};

use super::append::{SAID, odd_position};
use super::shard::Redis;
use crate::error::{Kind, Result, Target};
use crate::position::Position;
use crate::text::line;

/// An entry as Redis has it: whoever made it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamEntry {
    /// Its ID.
    pub position: Position,
    /// Fields and values, in order.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
}

impl StreamEntry {
    /// The value of the first field of this name.
    pub fn field(&self, name: &str) -> Option<&[u8]> {
        let found = self.fields.iter().find(|(field, _)| field == name.as_bytes());
        found.map(|(_, value)| value.as_slice())
    }
}

impl Redis {
    /// Entries of `stream` after `after` up to `through`, at most `count`.
    ///
    /// # Errors
    /// Any error of the connection or of the command.
    pub async fn range(
        &self,
        stream: &str,
        after: Position,
        through: Position,
        count: usize,
    ) -> Result<Vec<StreamEntry>> {
        let from = format!("({after}");
        let mut command = cmd("XRANGE");
        command.arg(self.key(stream)).arg(from).arg(through.to_string()).arg("COUNT").arg(count);
        let entries: Vec<(String, Vec<Value>)> = self.command(&command).await?;
        entries.into_iter().map(|(id, fields)| read(&id, fields)).collect()
    }

    /// The last entry of `stream` before `before`.
    ///
    /// # Errors
    /// Any error of the connection or of the command.
    pub async fn last_before(&self, stream: &str, before: Position) -> Result<Option<Position>> {
        let mut command = cmd("XREVRANGE");
        command.arg(self.key(stream)).arg(format!("({before}")).arg("-").arg("COUNT").arg(1);
        let entries: Vec<(String, Vec<Value>)> = self.command(&command).await?;
        let odd = |error: String| odd_position("XREVRANGE", &error);
        entries.first().map(|(id, _)| id.parse().map_err(odd)).transpose()
    }
}

pub(super) fn read(id: &str, fields: Vec<Value>) -> Result<StreamEntry> {
    let odd = |other: &Value| {
        let other = line(&format!("{other:?}"), SAID);
        let context = format!("an entry in Redis has a field that is no text: {other}");
        Target::Redis.error(Kind::Internal, context)
    };
    let mut texts = fields.into_iter().map(|value| match value {
        Value::BulkString(bytes) => Ok(bytes),
        other => Err(odd(&other)),
    });
    let mut pairs = Vec::new();
    while let Some(name) = texts.next() {
        pairs.push((name?, texts.next().unwrap_or_else(|| Ok(Vec::new()))?));
    }
    let position = id.parse().map_err(|error: String| odd_position("XRANGE", &error))?;
    Ok(StreamEntry { position, fields: pairs })
}
