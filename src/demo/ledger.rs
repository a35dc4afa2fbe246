//! What the shop's database says that the workers have done, and what Redis held when it was killed.

use std::collections::HashMap;
use std::time::SystemTime;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Row};
use uuid::Uuid;

use super::error::DemoError;
use super::held::Held;
use super::journal::STREAMS;
use super::shop;
use crate::position::Position;

/// A row of `shop.processed`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Processed {
    pub(super) event_id: Uuid,
    pub(super) stream: String,
    /// The ID of the entry that made a worker do it.
    pub(super) position: Position,
}

/// An entry as a worker was given it, or as an onlooker saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sighting {
    pub(super) stream: String,
    pub(super) entry_id: String,
    /// None when it is no event of the shop's.
    pub(super) event_id: Option<Uuid>,
    /// A worker was given it, knew its event, and skipped it.
    pub(super) again: bool,
}

/// Everything at the end.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) processed: Vec<Processed>,
    pub(super) sightings: Vec<Sighting>,
}

/// When Redis was away.
#[derive(Clone, Copy, Debug)]
pub(super) struct Away {
    /// What was committed before was acknowledged, if Redis could be told.
    pub(super) begun: SystemTime,
    /// It is back.
    pub(super) over: SystemTime,
}

/// Where the workers went on in a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Resumed {
    /// Number of the first entry that they were given.
    pub(super) first: Option<u64>,
    /// Entries that they were given although they had done them.
    pub(super) again: u64,
}

/// The shop's database, as an onlooker reads it.
pub(super) struct Ledger {
    client: Client,
}

impl Ledger {
    pub(super) async fn open(database_url: &str) -> Result<Self, DemoError> {
        Ok(Self { client: shop::connect(database_url).await? })
    }

    /// Writes down what Redis held.
    pub(super) async fn note(&self, held: &Held) -> Result<(), DemoError> {
        let (mut streams, mut entries, mut events) = (Vec::new(), Vec::new(), Vec::new());
        for (stream, held) in STREAMS.into_iter().zip(&held.streams) {
            for entry in &held.entries {
                let Ok(event) = entry.event_id.parse::<Uuid>() else { continue };
                streams.push(stream);
                entries.push(entry.position.to_string());
                events.push(event);
            }
        }
        let query = "insert into shop.held (stream, entry_id, event_id) \
                     select * from unnest($1::text[], $2::text[], $3::uuid[])";
        let noted = self.client.execute(query, &[&streams, &entries, &events]).await;
        noted.map(drop).map_err(DemoError::postgres("cannot write down what Redis held"))
    }

    /// Those of `events` that a worker was given, and whether that was since Redis was `away`: a worker that
    /// had begun one before ends it, and needs not be given it again.
    pub(super) async fn given(
        &self,
        events: &[Uuid],
        away: Away,
    ) -> Result<Vec<(Uuid, bool)>, DemoError> {
        let query = "select event_id, bool_or(given_at >= $2 or processed_at >= $3) \
                     from shop.delivery full join shop.processed using (event_id) \
                     where event_id = any($1) group by event_id";
        let values: [&(dyn ToSql + Sync); 3] = [&events, &away.over, &away.begun];
        let rows = self.client.query(query, &values).await.map_err(unreadable())?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// Where the workers went on in each stream after `since`.
    pub(super) async fn resumed(
        &self,
        since: SystemTime,
    ) -> Result<[Resumed; STREAMS.len()], DemoError> {
        let query = "select stream, min(split_part(entry_id, '-', 2)::bigint), \
                            count(*) filter (where again) \
                     from shop.delivery where given_at >= $1 group by stream";
        let rows = self.client.query(query, &[&since]).await.map_err(unreadable())?;
        let resumed = |row: &Row| {
            let (first, again): (i64, i64) = (row.get(1), row.get(2));
            let resumed =
                Resumed { first: Some(first.cast_unsigned()), again: again.cast_unsigned() };
            (row.get(0), resumed)
        };
        let found: HashMap<String, Resumed> = rows.iter().map(resumed).collect();
        Ok(STREAMS.map(|stream| found.get(stream).copied().unwrap_or_default()))
    }

    /// How many events have been processed.
    pub(super) async fn processed(&self) -> Result<u64, DemoError> {
        let row = self.client.query_one("select count(*) from shop.processed", &[]).await;
        row.map(|row| row.get::<_, i64>(0).cast_unsigned()).map_err(unreadable())
    }

    /// Everything, each table in the order of its entries.
    pub(super) async fn book(&self) -> Result<Book, DemoError> {
        let query = "select event_id, stream, entry_id from shop.processed";
        let rows = self.client.query(query, &[]).await.map_err(unreadable())?;
        let processed = |row: &Row| {
            let (event_id, stream) = (row.get(0), row.get(1));
            let position = row.get::<_, &str>(2).parse().unwrap_or_default();
            Processed { event_id, stream, position }
        };
        let processed = rows.iter().map(processed).collect();
        let query = "select stream, entry_id, event_id, again from shop.delivery \
                     union all select stream, entry_id, event_id, false from shop.held";
        let rows = self.client.query(query, &[]).await.map_err(unreadable())?;
        let sighting = |row: &Row| Sighting {
            stream: row.get(0),
            entry_id: row.get(1),
            event_id: row.get(2),
            again: row.get(3),
        };
        Ok(Book { processed, sightings: rows.iter().map(sighting).collect() })
    }
}

fn unreadable() -> impl FnOnce(tokio_postgres::Error) -> DemoError {
    DemoError::postgres("cannot read what the workers have done")
}
