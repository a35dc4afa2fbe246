//! An event as a handler is given it.

use std::time::SystemTime;

use uuid::Uuid;

use crate::outbox::Buried;
use crate::position::Position;
use crate::stream::StreamEntry;

/// An event: what a row of `outbox.entry` said when it was written. What is true by now stands in Postgres.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Its identity.
    pub id: Uuid,
    /// The stream that it came by.
    pub stream: String,
    /// Its ID there.
    pub position: Position,
    /// What it is about; events of one key are worked on in their order.
    pub key: Option<String>,
    /// Its type.
    pub kind: Option<String>,
    /// When it was written, RFC 3339, UTC.
    pub at: String,
    /// JSON.
    pub payload: String,
    /// JSON.
    pub headers: Option<String>,
    /// When this worker was given it.
    pub given_at: SystemTime,
    /// Which attempt this is, from 1.
    pub attempt: u64,
}

impl Event {
    /// Reads an entry of a stream that was given at this time.
    ///
    /// # Errors
    /// What it lacks, if the relay has not made it, or somebody has removed it.
    pub(super) fn read(
        stream: &str,
        entry: &StreamEntry,
        given_at: SystemTime,
    ) -> Result<Self, String> {
        let position = entry.position;
        if entry.fields.is_empty() {
            return Err(format!(
                "somebody has removed the entry {position} of {stream} before it was acknowledged; \
                 `outbox-relay rebuild {stream}` puts it back"
            ));
        }
        let text =
            |name: &str| entry.field(name).map(|value| String::from_utf8_lossy(value).into_owned());
        let foreign = |what: &str| {
            format!(
                "the entry {position} of {stream} has {what}: the relay has not written it; \
                 `outbox-relay rebuild {stream}` is the way out"
            )
        };
        let needed = |name: &str| text(name).ok_or_else(|| foreign(&format!("no field {name}")));
        let id = needed("id")?.parse().map_err(|_| foreign("an id that is no UUID"))?;
        Ok(Self {
            id,
            stream: stream.to_owned(),
            position,
            key: text("key"),
            kind: text("type"),
            at: needed("at")?,
            payload: needed("payload")?,
            headers: text("headers"),
            given_at,
            attempt: 1,
        })
    }

    /// An event that was given up, to be tried once more.
    pub(super) fn raised(buried: Buried, given_at: SystemTime) -> Self {
        Self {
            id: buried.event,
            position: buried.entry_id.parse().unwrap_or_default(),
            stream: buried.stream,
            key: buried.key,
            kind: buried.kind,
            at: buried.created_at,
            payload: buried.payload,
            headers: buried.headers,
            given_at,
            attempt: buried.deliveries,
        }
    }

    /// As it is given up.
    pub(super) fn buried(&self) -> Buried {
        Buried {
            event: self.id,
            stream: self.stream.clone(),
            entry_id: self.position.to_string(),
            key: self.key.clone(),
            kind: self.kind.clone(),
            payload: self.payload.clone(),
            headers: self.headers.clone(),
            created_at: self.at.clone(),
            deliveries: self.attempt,
        }
    }

    /// Bytes that it takes up, about.
    pub(super) fn bytes(&self) -> usize {
        let optional = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.payload.len()
            + optional(&self.headers)
            + optional(&self.key)
            + optional(&self.kind)
            + 256
    }

    /// The payload, read.
    ///
    /// # Errors
    /// If it is not of this form.
    pub fn payload<T: serde::de::DeserializeOwned>(&self) -> serde_json::Result<T> {
        serde_json::from_str(&self.payload)
    }
}
