//! The relay that an engineer writes in an afternoon, as well as an engineer would: `for update skip
//! locked` by a thousand, pipelined XADD, one `update`; a NOTIFY in every transaction wakes it.

use std::time::Instant;

use tokio_postgres::Client;

use super::stage::Stage;

const ROWS: i64 = 1_000;

/// A NOTIFY in every transaction that inserts.
const WAKE: &str = "
    create function textbook.wake() returns trigger language plpgsql as $$
    begin
        notify textbook;
        return null;
    end $$;
    create trigger wake after insert on textbook.outbox for each statement execute function textbook.wake();
";

/// Its table, in place of `outbox.entry`.
const TABLE: &str = "
    create schema textbook;
    create table textbook.outbox (
        id            bigint generated always as identity primary key,
        event_id      uuid        not null default gen_random_uuid(),
        stream        text        not null,
        key           text,
        type          text,
        payload       jsonb       not null,
        created_at    timestamptz not null default clock_timestamp(),
        dispatched_at timestamptz
    );
    create index on textbook.outbox (id) where dispatched_at is null;
";

/// The least of it.
const LEAST: &str = "
    create table textbook.outbox (id bigint generated always as identity primary key, payload jsonb);
";

/// Makes its table, whose inserts notify.
pub(crate) async fn schema(stage: &Stage) {
    stage.sql(TABLE).await;
    stage.sql(WAKE).await;
}

/// Makes the least that can be inserted into and notifies.
pub(crate) async fn least(stage: &Stage) {
    stage.sql(LEAST).await;
    stage.sql(WAKE).await;
}

/// The rows of `outbox.entry`, in its table.
pub(crate) async fn copy(stage: &Stage) {
    schema(stage).await;
    let copy = "insert into textbook.outbox (stream, key, type, payload) \
                select stream, key, type, payload from outbox.entry order by id; \
                analyze textbook.outbox";
    stage.sql(copy).await;
}

/// Rows a second until all are in Redis and marked.
pub(crate) async fn drain(stage: &Stage, rows: u64) -> f64 {
    let mut client = stage.client().await;
    let mut connection = stage.streams().await;
    let begun = Instant::now();
    let mut left = rows;
    while left > 0 {
        left -= batch(&mut client, &mut connection).await;
    }
    rows as f64 / begun.elapsed().as_secs_f64()
}

async fn batch(client: &mut Client, connection: &mut redis::aio::MultiplexedConnection) -> u64 {
    let transaction = client.transaction().await.unwrap();
    let sql = "select id, event_id::text, stream, key, type, payload::text, created_at::text \
               from textbook.outbox where dispatched_at is null order by id limit $1 \
               for update skip locked";
    let select = transaction.prepare(sql).await.unwrap();
    let rows = transaction.query(&select, &[&ROWS]).await.unwrap();
    let mut pipeline = redis::pipe();
    for row in &rows {
        let text = |column: usize| row.get::<_, &str>(column);
        let add = pipeline.cmd("XADD").arg(text(2)).arg("*").arg("id").arg(text(1));
        add.arg("type").arg(text(4)).arg("key").arg(text(3));
        add.arg("at").arg(text(6)).arg("payload").arg(text(5)).ignore();
    }
    pipeline.query_async::<()>(connection).await.unwrap();
    let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
    let sql = "update textbook.outbox set dispatched_at = clock_timestamp() where id = any ($1)";
    let update = transaction.prepare(sql).await.unwrap();
    transaction.execute(&update, &[&ids]).await.unwrap();
    transaction.commit().await.unwrap();
    rows.len() as u64
}
