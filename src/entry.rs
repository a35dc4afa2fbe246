//! A row of `outbox.entry` as a value, and what it looks like in a stream.

use std::borrow::Cow;
use std::sync::Arc;

use jiff::Timestamp;
use uuid::Uuid;

/// A committed row of `outbox.entry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Order of rows within what becomes visible at once; not an identity.
    pub id: i64,
    /// Identity of the event. Applications may repeat it; it is carried as it is.
    pub event_id: Uuid,
    /// Name of the stream, without the prefix.
    pub stream: Arc<str>,
    /// What the event is about.
    pub key: Option<Box<str>>,
    /// Kind of event.
    pub kind: Option<Box<str>>,
    /// JSON text as Postgres prints it, at most 65,536 bytes.
    pub payload: Box<str>,
    /// JSON text as Postgres prints it, at most 8,192 bytes.
    pub headers: Option<Box<str>>,
    /// When the row was inserted, by the clock of the database, to the microsecond.
    pub created_at: Timestamp,
}

impl Entry {
    /// Names of the fields that an entry may have in a stream, in their order.
    pub const FIELDS: [&'static str; 6] = ["id", "type", "key", "at", "payload", "headers"];

    /// Their values; none where the row has null, and then the field is absent. They are a pure
    /// function of the row: sent again, an entry is the same to the byte.
    pub fn values(&self) -> [Option<Cow<'_, str>>; Self::FIELDS.len()] {
        [
            Some(self.event_id.to_string().into()),
            self.kind.as_deref().map(Cow::Borrowed),
            self.key.as_deref().map(Cow::Borrowed),
            Some(format!("{:.6}", self.created_at).into()),
            Some(Cow::Borrowed(&self.payload)),
            self.headers.as_deref().map(Cow::Borrowed),
        ]
    }

    /// Names and values of the fields that it has in a stream.
    pub fn fields(&self) -> Vec<(&'static str, String)> {
        let present = |(name, value): (_, Option<Cow<'_, str>>)| Some((name, value?.into_owned()));
        Self::FIELDS.into_iter().zip(self.values()).filter_map(present).collect()
    }

    /// About how many bytes it holds in memory, to bound batches.
    pub fn size(&self) -> usize {
        let optional = |text: &Option<Box<str>>| text.as_ref().map_or(0, |text| text.len());
        200 + self.payload.len()
            + optional(&self.key)
            + optional(&self.kind)
            + optional(&self.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> Entry {
        Entry {
            id: 1,
            event_id: Uuid::nil(),
            stream: "orders".into(),
            key: None,
            kind: None,
            payload: "{}".into(),
            headers: None,
            created_at: "2026-11-22T19:00:00.000001Z".parse().expect("a time"),
        }
    }

    #[test]
    fn leaves_out_what_is_null_and_keeps_what_is_empty() {
        let names = |entry: &Entry| entry.fields().iter().map(|f| f.0).collect::<Vec<_>>();
        assert_eq!(names(&entry()), ["id", "at", "payload"]);
        let full = Entry {
            key: Some("".into()),
            kind: Some("".into()),
            headers: Some("null".into()),
            ..entry()
        };
        assert_eq!(names(&full), ["id", "type", "key", "at", "payload", "headers"]);
    }

    #[test]
    fn prints_the_time_with_six_digits() {
        assert_eq!(entry().fields()[1], ("at", "2026-11-22T19:00:00.000001Z".to_string()));
        let whole =
            Entry { created_at: "2026-11-22T19:00:00Z".parse().expect("a time"), ..entry() };
        assert_eq!(whole.fields()[1].1, "2026-11-22T19:00:00.000000Z");
    }
}
