//! Drain and latency with much kept, many streams, and a transaction that is open all the time.

use super::load::{STREAMS, backlog, names};
use super::result::Results;
use super::stage::Stage;
use super::{Size, drain, latency};

const BACKLOG: u64 = 1_000_000;
const KEPT: u64 = 10_000_000;
const MANY: usize = 10_000;

pub(crate) async fn measure(size: Size) -> Results {
    let mut results = Results::new("growth");
    let stage = Stage::new().await;
    let (rows, kept, many) = (size.of(BACKLOG), size.of(KEPT), size.of(MANY as u64) as usize);
    for run in 1..=size.runs() {
        println!("growth, run {run} of {}", size.runs());
        stage.clear().await;
        let quiet = latency::relay(&stage, size.seconds(10)).await;
        results.add("empty: latency p50", "ms", quiet.quantile(0.5));
        stage.clear().await;
        backlog(&stage, rows, STREAMS).await;
        stage.settle().await;
        results.add("empty: drain", "rows/s", drain::relay(&stage, rows, &[]).await);

        stage.clear().await;
        backlog(&stage, rows, many).await;
        stage.settle().await;
        results.add("many streams: drain", "rows/s", many_streams(&stage, rows, many).await);
    }
    // Filled once, for it takes long; the backlogs of the runs come on top.
    stage.clear().await;
    println!("growth: keeping {kept} rows");
    backlog(&stage, kept, STREAMS).await;
    drain::relay(
        &stage,
        kept,
        &[("OUTBOX_STREAM_LIMIT", "100000000"), ("OUTBOX_STREAM_BYTES", "16GiB")],
    )
    .await;
    let held = stage.client().await;
    held.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    let mut there = kept;
    for _ in 0..size.runs() {
        let kept = latency::relay(&stage, size.seconds(10)).await;
        results.add("kept and held: latency p50", "ms", kept.quantile(0.5));
        backlog(&stage, rows, STREAMS).await;
        stage.settle().await;
        there += rows;
        let begun = std::time::Instant::now();
        let _relay =
            stage.relay(&[("OUTBOX_STREAM_LIMIT", "100000000"), ("OUTBOX_STREAM_BYTES", "16GiB")]);
        stage.arrived(&names(STREAMS), there).await;
        stage.marked().await;
        let per_second = rows as f64 / begun.elapsed().as_secs_f64();
        results.add("kept and held: drain", "rows/s", per_second);
    }
    let sql = "select coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables \
               where schemaname = 'outbox'";
    let dead: i64 = stage.client().await.query_one(sql, &[]).await.unwrap().get(0);
    results.add("kept and held: dead tuples", "tuples", dead as f64);
    results.ratio("many streams, of empty", "many streams: drain", "empty: drain");
    results.ratio("kept and held, of empty", "kept and held: drain", "empty: drain");
    results.ratio(
        "empty latency, of kept and held",
        "empty: latency p50",
        "kept and held: latency p50",
    );
    results
}

async fn many_streams(stage: &Stage, rows: u64, many: usize) -> f64 {
    let begun = std::time::Instant::now();
    let _relay = stage.relay(&[]);
    stage.arrived(&names(many), rows).await;
    stage.marked().await;
    rows as f64 / begun.elapsed().as_secs_f64()
}
