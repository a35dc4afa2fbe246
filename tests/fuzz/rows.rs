//! The door of rows: all six columns that an application may write, as any bytes. An input has a line for
//! each column that is not null; the payload is the rest, from `payload=` on.

use std::collections::HashSet;
use std::error::Error;

use bytes::{BufMut as _, BytesMut};
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Statement};

use super::door::Door;
use crate::support::world::World;

/// More streams would take longer to compare than to write.
const STREAMS: usize = 60;

/// Bytes sent as they are, as text or JSON.
#[derive(Debug)]
struct Raw<'a>(&'a [u8]);

impl ToSql for Raw<'_> {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        if *kind == Type::JSONB {
            out.put_u8(1);
        }
        out.extend_from_slice(self.0);
        Ok(IsNull::No)
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

/// One row.
#[derive(Debug, Default)]
struct Row<'a> {
    event_id: Option<Raw<'a>>,
    stream: Option<Raw<'a>>,
    key: Option<Raw<'a>>,
    kind: Option<Raw<'a>>,
    headers: Option<Raw<'a>>,
    payload: Option<Raw<'a>>,
}

impl<'a> Row<'a> {
    fn read(bytes: &'a [u8]) -> Self {
        let (mut row, mut rest) = (Self::default(), bytes);
        while !rest.is_empty() {
            if let Some(payload) = rest.strip_prefix(b"payload=") {
                row.payload = Some(Raw(payload.strip_suffix(b"\n").unwrap_or(payload)));
                return row;
            }
            let end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
            let (line, after) = rest.split_at(end);
            rest = after.get(1..).unwrap_or_default();
            let at = line.iter().position(|byte| *byte == b'=').unwrap_or(line.len());
            let (name, value) = (&line[..at], Raw(line.get(at + 1..).unwrap_or_default()));
            match name {
                b"event_id" => row.event_id = Some(value),
                b"stream" => row.stream = Some(value),
                b"key" => row.key = Some(value),
                b"type" => row.kind = Some(value),
                b"headers" => row.headers = Some(value),
                _ => {}
            }
        }
        row
    }

    /// Whether the contract allows it, as far as it can be told without a server.
    fn is_allowed(&self) -> bool {
        let text = |raw: &Option<Raw<'_>>, most: usize| {
            raw.as_ref().is_none_or(|raw| {
                raw.0.len() <= most && std::str::from_utf8(raw.0).is_ok_and(|t| !t.contains('\0'))
            })
        };
        self.stream.as_ref().is_some_and(|raw| is_name(raw.0))
            && self.payload.is_some()
            && text(&self.key, 1_024)
            && text(&self.kind, 1_024)
            && text(&self.event_id, 100)
    }
}

fn is_name(name: &[u8]) -> bool {
    let is_first = |byte: &u8| byte.is_ascii_alphanumeric();
    let is_rest = |byte: &u8| byte.is_ascii_alphanumeric() || b"._:{}-".contains(byte);
    name.first().is_some_and(is_first)
        && name.iter().all(is_rest)
        && name.len() <= 128
        && !name.starts_with(b"outbox:")
}

/// Whether the server can read it, and prints it within the bound.
async fn fits(client: &Client, sql: &Statement, json: Option<&Raw<'_>>, most: i32) -> bool {
    let Some(json) = json else { return true };
    client.query_one(sql, &[json]).await.is_ok_and(|row| row.get::<_, i32>(0) <= most)
}

async fn is_uuid(client: &Client, text: Option<&Raw<'_>>) -> bool {
    let Some(text) = text else { return true };
    client.query_one("select $1::text::uuid", &[text]).await.is_ok()
}

/// The error of a row that is refused says what is wrong, by a code that stands for bad data.
fn is_clear(error: &tokio_postgres::Error) -> bool {
    let Some(error) = error.as_db_error() else { return false };
    let code = error.code().code();
    let is_data = code.starts_with("22") || code.starts_with("23") || code == "54001";
    is_data && !error.message().is_empty()
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_arrive_to_the_byte_or_are_refused() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    let (shop, judge) = (world.application().await, world.owner().await);
    let size = judge.prepare("select octet_length($1::jsonb::text)").await.unwrap();
    let insert = "insert into outbox.entry (event_id, stream, key, type, payload, headers) \
                  values (coalesce($1::text::uuid, gen_random_uuid()), $2, $3, $4, $5, $6)";
    let insert = shop.prepare(insert).await.unwrap();
    let (mut door, mut streams, mut taken) = (Door::open("rows"), HashSet::new(), 0);
    while let Some(input) = door.next() {
        let row = Row::read(&input.bytes);
        let stream = row.stream.as_ref().map(|raw| raw.0.to_vec()).unwrap_or_default();
        if streams.len() >= STREAMS && row.is_allowed() && !streams.contains(&stream) {
            continue;
        }
        let is_good = row.is_allowed()
            && is_uuid(&judge, row.event_id.as_ref()).await
            && fits(&judge, &size, row.payload.as_ref(), 65_536).await
            && fits(&judge, &size, row.headers.as_ref(), 8_192).await;
        let values: [&(dyn ToSql + Sync); 6] =
            [&row.event_id, &row.stream, &row.key, &row.kind, &row.payload, &row.headers];
        match shop.execute(&insert, &values).await {
            Ok(_) => {
                assert!(is_good, "taken, and it should not be");
                streams.insert(stream);
                taken += 1;
            }
            Err(error) => {
                assert!(!is_good, "refused, and it should not be: {error:?}");
                assert!(is_clear(&error), "{error:?}");
            }
        }
    }
    world.reconcile().await;
    let mut held = 0;
    for stream in &streams {
        let length = redis::cmd("XLEN").arg(stream).query_async(&mut world.streams().await).await;
        held += length.unwrap_or(0);
    }
    assert_eq!(held, taken, "each row that was taken is in Redis");
    assert!(taken > 20, "too few were taken for this to show anything: {taken}");
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
    assert!(relay.stop().success());
}
