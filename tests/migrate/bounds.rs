//! The bounds of an entry: each value that just fits, and the same with one byte more.

use tokio_postgres::Client;
use tokio_postgres::error::{DbError, SqlState};

use crate::support::world::World;

const NAME: &str = "begin with a letter or digit";
const SMALLER: &str = "Store an id and a status";

/// A row given as texts, like a psql user would.
#[derive(Clone, Debug)]
struct Row {
    stream: Option<String>,
    key: Option<String>,
    kind: Option<String>,
    payload: Option<String>,
    headers: Option<String>,
}

fn row() -> Row {
    let (stream, payload) = (Some("orders".to_owned()), Some("{}".to_owned()));
    Row { stream, key: None, kind: None, payload, headers: None }
}

impl Row {
    async fn write(&self, client: &Client, sql: &str) -> Result<(), DbError> {
        let result = client
            .execute(sql, &[&self.stream, &self.key, &self.kind, &self.payload, &self.headers])
            .await;
        result.map(|_| ()).map_err(|error| error.as_db_error().unwrap().clone())
    }
}

const INSERT: &str = "insert into outbox.entry (stream, key, type, payload, headers) \
                      values ($1, $2, $3, $4::text::jsonb, $5::text::jsonb)";
const EMIT: &str = "select outbox.emit($1, key => $2, type => $3, payload => $4::text::jsonb, \
                    headers => $5::text::jsonb)";

async fn fits(client: &Client, row: Row) {
    for sql in [INSERT, EMIT] {
        row.write(client, sql).await.unwrap_or_else(|e| panic!("{row:.200?}: {e:?}"));
    }
}

/// Refused, by the column's name, with a message that has `says`, and a hint that has `hint`.
async fn breaks(client: &Client, row: Row, column: &str, says: &str, hint: &str) {
    for sql in [INSERT, EMIT] {
        let Err(error) = row.write(client, sql).await else { panic!("accepted: {row:.200?}") };
        assert_eq!(error.code(), &SqlState::CHECK_VIOLATION, "{row:.200?}: {error:?}");
        assert_eq!(error.column(), Some(column), "{error:?}");
        assert!(error.message().starts_with("outbox.entry: "), "{error:?}");
        assert!(error.message().contains(says), "no {says:?} in {error:?}");
        assert!(error.hint().unwrap_or_default().contains(hint), "no {hint:?} in {error:?}");
    }
}

fn named(stream: &str) -> Row {
    Row { stream: Some(stream.into()), ..row() }
}

fn paid(payload: String) -> Row {
    Row { payload: Some(payload), ..row() }
}

fn headed(headers: String) -> Row {
    Row { headers: Some(headers), ..row() }
}

/// A JSON text of exactly this many bytes.
fn json(bytes: usize) -> String {
    format!("\"{}\"", "a".repeat(bytes - 2))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_name_has_at_most_128_bytes() {
    let world = World::new().await;
    let client = world.application().await;
    fits(&client, named("a")).await;
    fits(&client, named(&"a".repeat(128))).await;
    breaks(&client, named(&"a".repeat(129)), "stream", "is not allowed", "1 to 128").await;
    breaks(&client, named(&"a".repeat(100_000)), "stream", "is not allowed", "1 to 128").await;
    breaks(&client, named(""), "stream", "'' is not allowed", NAME).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_name_has_only_the_characters_of_the_contract() {
    let world = World::new().await;
    let client = world.application().await;
    let others = ['é', 'K', 'ſ', 'İ', '٣', '漢', '🦀', '\u{a0}', '\u{7f}', '\u{feff}'];
    for c in (1..0x7f_u8).map(char::from).chain(others) {
        let (first, later, last) =
            (named(&format!("{c}a")), named(&format!("a{c}a")), named(&format!("a{c}")));
        match c.is_ascii_alphanumeric() {
            true => fits(&client, first).await,
            false => breaks(&client, first, "stream", "is not allowed", NAME).await,
        }
        for row in [later, last] {
            match c.is_ascii_alphanumeric() || "._:{}-".contains(c) {
                true => fits(&client, row).await,
                false => breaks(&client, row, "stream", "is not allowed", NAME).await,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_begin_with_outbox_colon_are_the_relays_own() {
    let world = World::new().await;
    let client = world.application().await;
    for name in ["outbox:", "outbox:identity", "outbox:a:b"] {
        breaks(&client, named(name), "stream", "is reserved", "choose another").await;
    }
    for name in ["outbox", "outbox.a", "outboxes:a", "Outbox:a", "my:outbox:a"] {
        fits(&client, named(name)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_has_at_most_65536_bytes_as_text() {
    let world = World::new().await;
    let client = world.application().await;
    let ones = |count: usize| format!("[{}1]", "1,".repeat(count - 1));
    let number = |zeros: usize| format!("{{\"a\": 1e{zeros}}}");
    // Each text of Postgres has 65,536 bytes, or one element fewer than would be too many.
    for payload in [
        json(65_536),
        format!("\"{}\"", "é".repeat(32_767)),
        number(65_528),
        ones(21_845),
        format!("\"{}\"", "\\u0001".repeat(10_922)),
        format!("{}[]", " ".repeat(100_000)),
    ] {
        fits(&client, paid(payload)).await;
    }
    for (payload, bytes) in [
        (json(65_537), "65537"),
        (format!("\"a{}\"", "é".repeat(32_767)), "65537"),
        (number(65_529), "65537"),
        (number(100_000), "100008"),
        (ones(21_846), "65538"),
        (format!("\"{}\"", "\\u0001".repeat(10_923)), "65540"),
    ] {
        breaks(&client, paid(payload), "payload", &format!("payload has {bytes} bytes"), SMALLER)
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_have_at_most_8192_bytes_as_text() {
    let world = World::new().await;
    let client = world.application().await;
    fits(&client, headed(json(8_192))).await;
    fits(&client, headed("{\"a\": 1e8184}".into())).await;
    breaks(&client, headed(json(8_193)), "headers", "headers have 8193 bytes", SMALLER).await;
    breaks(&client, headed("{\"a\": 1e8185}".into()), "headers", "8193 bytes", SMALLER).await;
    breaks(&client, headed("{\"a\": 1e100000}".into()), "headers", "100008 bytes", SMALLER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn key_and_type_have_at_most_1024_bytes() {
    let world = World::new().await;
    let client = world.application().await;
    for text in ["a".repeat(1_024), "é".repeat(512), "🦀".repeat(256), String::new()] {
        fits(&client, Row { key: Some(text.clone()), ..row() }).await;
        fits(&client, Row { kind: Some(text), ..row() }).await;
    }
    for text in ["a".repeat(1_025), "é".repeat(512) + "a", "🦀".repeat(256) + "a"] {
        let (key, kind) =
            (Row { key: Some(text.clone()), ..row() }, Row { kind: Some(text), ..row() });
        breaks(&client, key, "key", "key has 1025 bytes", "a hash of it").await;
        breaks(&client, kind, "type", "type has 1025 bytes", "a short name").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_payload_and_event_id_are_never_null() {
    let world = World::new().await;
    let client = world.application().await;
    for (row, column) in
        [(Row { stream: None, ..row() }, "stream"), (Row { payload: None, ..row() }, "payload")]
    {
        for sql in [INSERT, EMIT] {
            let error = row.write(&client, sql).await.expect_err(column);
            assert_eq!(
                (error.code(), error.column()),
                (&SqlState::NOT_NULL_VIOLATION, Some(column))
            );
        }
    }
    let sql = "insert into outbox.entry (event_id, stream, payload) values (null, 's', '1')";
    let error = client.execute(sql, &[]).await.expect_err("event_id");
    assert_eq!(error.code(), Some(&SqlState::NOT_NULL_VIOLATION));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_just_fits_is_delivered_to_the_byte() {
    let world = World::new().await;
    let client = world.application().await;
    let empty = || Some(String::new());
    let rows = [
        named(&"{".repeat(128).replacen('{', "z", 1)),
        paid(json(65_536)),
        paid("null".into()),
        paid("\"\"".into()),
        paid(format!("{{\"a\": 1e{}}}", 65_528)),
        headed(json(8_192)),
        headed("null".into()),
        Row {
            key: empty(),
            kind: empty(),
            payload: Some(r#""\u0001\r\n\" é漢🦀""#.into()),
            ..row()
        },
        Row { key: Some("é".repeat(512)), kind: Some("a\0".replace('\0', "\n")), ..row() },
    ];
    for row in rows {
        fits(&client, row).await;
    }
    let mut relay = world.relay("relay", &[]);
    world.reconcile().await;
    let sql = "select count(*) from outbox.entry_status where state = 'dispatched'";
    assert_eq!(world.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 18);
    assert!(relay.stop().success());
}
