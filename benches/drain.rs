//! A backlog of rows of about 200 bytes, until all are in Redis and marked.

use std::time::Instant;

use super::load::{STREAMS, backlog, names};
use super::result::Results;
use super::stage::Stage;
use super::{Size, limit, textbook};

const ROWS: u64 = 1_000_000;

pub(crate) async fn measure(size: Size) -> Results {
    let stage = Stage::new().await;
    let mut results = Results::new("drain", &stage);
    let rows = size.of(ROWS);
    for run in 1..=size.runs() {
        println!("drain, run {run} of {}: {rows} rows in {STREAMS} streams", size.runs());
        // By turns, for what comes first may be faster.
        for turn in 0..2 {
            fresh(&stage, rows).await;
            if (run + turn) % 2 == 0 {
                results.add(
                    "limit: all stages at once",
                    "rows/s",
                    limit::drain(&stage, rows).await,
                );
            } else {
                let relay = relay(&stage, Drain::of(rows), &[]).await;
                results.add("outbox-relay", "rows/s", relay);
            }
        }
        fresh(&stage, rows).await;
        let alone = limit::alone(&stage, rows).await;
        results.add("limit: read alone", "rows/s", alone.read);
        results.add("limit: seal alone", "rows/s", alone.seal);
        results.add("limit: append alone", "rows/s", alone.append);
        results.add("limit: mark alone", "rows/s", alone.mark);
        fresh(&stage, rows).await;
        textbook::copy(&stage).await;
        stage.settle().await;
        results.add("textbook relay", "rows/s", textbook::drain(&stage, rows).await);
    }
    results.ratio("of the limit", "outbox-relay", "limit: all stages at once");
    results.ratio("of the textbook relay", "outbox-relay", "textbook relay");
    results
}

async fn fresh(stage: &Stage, rows: u64) {
    stage.clear().await;
    backlog(stage, rows, STREAMS).await;
    stage.settle().await;
}

/// A backlog.
#[derive(Clone, Copy)]
pub(crate) struct Drain {
    pub(crate) rows: u64,
    pub(crate) streams: usize,
    /// Entries that are in Redis before.
    pub(crate) before: u64,
}

impl Drain {
    pub(crate) fn of(rows: u64) -> Self {
        Self { rows, streams: STREAMS, before: 0 }
    }
}

/// Rows a second of the relay, from its start on.
pub(crate) async fn relay(stage: &Stage, drain: Drain, more: &[(&str, &str)]) -> f64 {
    let begun = Instant::now();
    let _relay = stage.relay(more);
    stage.arrived(&names(drain.streams), drain.before + drain.rows).await;
    stage.marked().await;
    drain.rows as f64 / begun.elapsed().as_secs_f64()
}
