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
const STATES: [&str; 5] =
    ["plain table", "relay stopped", "relay running", KILLED, "NOTIFY always"];

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
    let stage = Stage::new().await;
    let mut results = Results::new("burden", &stage);
    let length = size.seconds(5);
    for run in 1..=size.runs() {
        println!("burden, run {run} of {}", size.runs());
        for writers in WRITERS {
            stage.clear().await;
            textbook::schema(&stage).await;
            stage.sql(PLAIN).await;
            // By turns, for tables grow and disks tire.
            for turn in 0..STATES.len() {
                let state = STATES[(run + turn) % STATES.len()];
                stage.settle().await;
                let figure = in_state(&stage, state, writers, length).await;
                results.add(&named(writers, state), "inserts/s", figure);
            }
        }
    }
    for writers in WRITERS {
        for state in &STATES[1..] {
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

async fn in_state(stage: &Stage, state: &str, writers: usize, length: Duration) -> f64 {
    let mut relay = None;
    let table = match state {
        "plain table" => "textbook.plain",
        "NOTIFY always" => "textbook.outbox",
        "relay running" | KILLED => {
            relay = Some(stage.relay(&[]));
            asks(stage).await;
            "outbox.entry"
        }
        _ => "outbox.entry",
    };
    if let Some(relay) = relay.as_mut().filter(|_| state == KILLED) {
        relay.kill();
        // Writers notify for as long as its question holds, which is three seconds.
        tokio::time::sleep(QUESTION).await;
    }
    inserts(stage, &insert(table), writers, length).await
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
