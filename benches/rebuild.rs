//! FLUSHALL with a million entries that nobody has acknowledged, until `verify` finds nothing missing.

use std::time::Instant;

use super::Size;
use super::drain::{self, Drain};
use super::load::{STREAMS, backlog, names};
use super::result::Results;
use super::stage::Stage;

const ROWS: u64 = 1_000_000;

pub(crate) async fn measure(size: Size) -> Results {
    let stage = Stage::new().await;
    let mut results = Results::new("rebuild", &stage);
    let rows = size.of(ROWS);
    for run in 1..=size.runs() {
        println!("rebuild, run {run} of {}: {rows} entries", size.runs());
        stage.clear().await;
        backlog(&stage, rows, STREAMS).await;
        stage.settle().await;
        results.add("drain before it", "rows/s", drain::relay(&stage, Drain::of(rows), &[]).await);
        let _relay = stage.relay(&[]);
        let mut connection = stage.streams().await;
        let names = names(STREAMS);
        stage.redis::<()>(&["FLUSHALL"]).await;
        let begun = Instant::now();
        while stage.entries(&mut connection, &names).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        results.add("noticed after", "s", begun.elapsed().as_secs_f64());
        let noticed = Instant::now();
        stage.arrived(&names, rows).await;
        stage.marked().await;
        let per_second = rows as f64 / noticed.elapsed().as_secs_f64();
        results.add("put back", "rows/s", per_second);
        let verify = stage.command(&["verify"]).status().unwrap();
        assert!(verify.success(), "verify finds something missing");
        results.add("until verify is clean", "s", begun.elapsed().as_secs_f64());
    }
    results.ratio("put back, of drain", "put back", "drain before it");
    results
}
