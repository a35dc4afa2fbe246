//! What writers feel: their inserts a second beside those into a plain table of the same form.

use std::time::Duration;

use super::Size;
use super::load::inserts;
use super::result::Results;
use super::stage::Stage;
use super::textbook;

const WRITERS: [usize; 4] = [1, 4, 16, 64];
/// After that nobody is asked for wake-ups by a relay that is dead.
const QUESTION: Duration = Duration::from_secs(4);
const KILLED: &str = "relay killed in its sleep, 4 s later";

/// The columns and the key of `outbox.entry`, without its trigger, its checks and its second index.
const PLAIN: &str = "
    create schema if not exists textbook;
    create table textbook.plain (
        id         bigint generated always as identity primary key,
        event_id   uuid        not null default gen_random_uuid(),
        stream     text        not null,
        key        text,
        type       text,
        payload    jsonb       not null,
        headers    jsonb,
        created_at timestamptz not null default clock_timestamp()
    );
";

fn insert(table: &str) -> String {
    format!(
        "insert into {table} (stream, key, type, payload) values \
         ('bench:1', 'a key', 'order.paid', jsonb_build_object('note', repeat('x', 150)))"
    )
}

pub(crate) async fn measure(size: Size) -> Results {
    let mut results = Results::new("burden");
    let stage = Stage::new().await;
    let length = size.seconds(5);
    for run in 1..=size.runs() {
        println!("burden, run {run} of {}", size.runs());
        for writers in WRITERS {
            one(&stage, &mut results, writers, length).await;
        }
    }
    for writers in WRITERS {
        for state in ["relay stopped", "relay running", KILLED, "NOTIFY always"] {
            let (of, to) = (named(writers, state), named(writers, "plain table"));
            results.ratio(&format!("{of}, of plain"), &of, &to);
        }
    }
    results
}

fn named(writers: usize, state: &str) -> String {
    let plural = if writers == 1 { "" } else { "s" };
    format!("{writers} writer{plural}, {state}")
}

async fn one(stage: &Stage, results: &mut Results, writers: usize, length: Duration) {
    stage.clear().await;
    textbook::schema(stage).await;
    stage.sql(PLAIN).await;
    stage.settle().await;
    let (outbox, plain) = (insert("outbox.entry"), insert("textbook.plain"));
    let mut add =
        |state: &str, figure: f64| results.add(&named(writers, state), "inserts/s", figure);
    add("plain table", inserts(stage, &plain, writers, length).await);
    add("relay stopped", inserts(stage, &outbox, writers, length).await);
    let mut relay = stage.relay(&[]);
    asks(stage).await;
    add("relay running", inserts(stage, &outbox, writers, length).await);
    asks(stage).await;
    relay.kill();
    // Writers notify for as long as its question holds, which is three seconds.
    tokio::time::sleep(QUESTION).await;
    add(KILLED, inserts(stage, &outbox, writers, length).await);
    let notify = insert("textbook.outbox");
    add("NOTIFY always", inserts(stage, &notify, writers, length).await);
}

/// Waits until the relay sleeps, and writers are to wake it.
async fn asks(stage: &Stage) {
    let client = stage.client().await;
    let sql = "select coalesce(pg_sequence_last_value('outbox.wake_until'), 0) \
               > extract(epoch from clock_timestamp())";
    while !client.query_one(sql, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
