//! Events that workers have given up.

use serde::Serialize;

use super::status::time;
use crate::error::Result;
use crate::outbox::{Connection, Database, Dead, DeadLetter};

/// Events that workers have given up, and a connection on which something can be done about them.
#[derive(Debug)]
pub struct DeadLetters {
    connection: Connection,
    letters: Vec<DeadLetter>,
}

/// One of them.
#[derive(Debug, Serialize)]
pub struct Letter {
    /// The event.
    pub event_id: String,
    /// The consumer group that gave it up.
    pub group: String,
    /// Its stream.
    pub stream: String,
    /// Its ID in the stream.
    pub entry_id: String,
    /// Its key.
    pub key: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: Option<String>,
    /// Its payload.
    pub payload: serde_json::Value,
    /// Its headers.
    pub headers: Option<serde_json::Value>,
    /// When it was written.
    pub created_at: String,
    /// How often it was given to a worker.
    pub deliveries: u64,
    /// Why the last attempt failed.
    pub error: String,
    /// When it was given up, the last time.
    pub died_at: String,
    /// When somebody asked for one more attempt that no worker has begun yet.
    pub retry_at: Option<String>,
}

/// Looks for those that `wanted` wants, at most `most`, the last given up first.
///
/// # Errors
/// If Postgres cannot be asked, or refuses.
pub async fn dead_letters(database: &Database, wanted: &Dead, most: usize) -> Result<DeadLetters> {
    let connection = database.connect("dead").await?;
    let letters = wanted.list(&connection, most).await?;
    Ok(DeadLetters { connection, letters })
}

impl DeadLetters {
    /// They, for people and machines.
    pub fn letters(&self) -> Vec<Letter> {
        self.letters.iter().map(Letter::from).collect()
    }

    /// Asks workers of their groups for one more attempt each. Returns of how many.
    ///
    /// # Errors
    /// As any statement.
    pub async fn retry(&self) -> Result<u64> {
        let mut asked = 0;
        for letter in &self.letters {
            asked += u64::from(letter.retry(&self.connection).await?);
        }
        Ok(asked)
    }

    /// Forgets them for good. Returns how many.
    ///
    /// # Errors
    /// As any statement.
    pub async fn discard(&self) -> Result<u64> {
        let mut discarded = 0;
        for letter in &self.letters {
            discarded += u64::from(letter.discard(&self.connection).await?);
        }
        Ok(discarded)
    }
}

impl From<&DeadLetter> for Letter {
    fn from(letter: &DeadLetter) -> Self {
        // Postgres has stored it as JSON.
        let json = |text: &String| serde_json::from_str(text).unwrap_or_default();
        let event = &letter.buried;
        Self {
            event_id: event.event.to_string(),
            group: letter.group.clone(),
            stream: event.stream.clone(),
            entry_id: event.entry_id.clone(),
            key: event.key.clone(),
            kind: event.kind.clone(),
            payload: json(&event.payload),
            headers: event.headers.as_ref().map(json),
            created_at: event.created_at.clone(),
            deliveries: event.deliveries,
            error: letter.error.clone(),
            died_at: time(letter.died_at),
            retry_at: letter.retry_at.map(time),
        }
    }
}
