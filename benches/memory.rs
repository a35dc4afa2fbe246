//! Memory that the relay holds: idle, with a backlog, with payloads at their limit, and before a Redis
//! that takes nothing.

use super::Size;
use super::load::{STREAMS, backlog, names};
use super::result::Results;
use super::stage::Stage;

const ROWS: u64 = 1_000_000;
const LARGE: u64 = 20_000;

pub(crate) async fn measure(size: Size) -> Results {
    let stage = Stage::new().await;
    let mut results = Results::new("memory", &stage);
    for run in 1..=size.runs() {
        println!("memory, run {run} of {}", size.runs());
        stage.clear().await;
        let relay = stage.relay(&[]);
        tokio::time::sleep(size.seconds(10)).await;
        results.add("idle", "MiB", relay.resident().0);
        drop(relay);

        let rows = size.of(ROWS);
        backlog(&stage, rows, STREAMS).await;
        let relay = stage.relay(&[]);
        stage.arrived(&names(STREAMS), rows).await;
        results.add("at most, with a backlog", "MiB", relay.resident().1);
        drop(relay);

        stage.clear().await;
        let rows = size.of(LARGE);
        large(&stage, rows).await;
        let relay = stage.relay(&[("OUTBOX_STREAM_BYTES", "8GiB")]);
        stage.arrived(&names(STREAMS), rows).await;
        results.add("at most, with payloads of 60 KiB", "MiB", relay.resident().1);
        drop(relay);

        stage.clear().await;
        backlog(&stage, size.of(ROWS), STREAMS).await;
        let relay = stage.relay(&[]);
        stage.arrived(&names(STREAMS), 1).await;
        stage.redis.freeze().unwrap();
        tokio::time::sleep(size.seconds(10)).await;
        results.add("at most, before a Redis that hangs", "MiB", relay.resident().1);
        stage.redis.thaw().unwrap();
        drop(relay);
    }
    results
}

/// Rows whose payloads are near their limit.
async fn large(stage: &Stage, rows: u64) {
    let sql = format!(
        "insert into outbox.entry (stream, payload) \
         select 'bench:' || i % {STREAMS}, jsonb_build_object('note', repeat('x', 61000)) \
         from generate_series(1, {rows}) as i"
    );
    stage.sql(&sql).await;
}
