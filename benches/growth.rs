//! Drain and latency with much kept, many streams, and a transaction that is open all the time.

use super::drain::{self, Drain};
use super::load::{STREAMS, backlog, names};
use super::result::Results;
use super::stage::Stage;
use super::{Size, latency};

const BACKLOG: u64 = 1_000_000;
const KEPT: u64 = 10_000_000;
const MANY: usize = 10_000;
/// What is kept is more than a stream may hold by itself.
const NO_LIMIT: [(&str, &str); 2] =
    [("OUTBOX_STREAM_LIMIT", "100000000"), ("OUTBOX_STREAM_BYTES", "16GiB")];

pub(crate) async fn measure(size: Size) -> Results {
    let stage = Stage::new().await;
    let mut results = Results::new("growth", &stage);
    let (rows, kept, many) = (size.of(BACKLOG), size.of(KEPT), size.of(MANY as u64) as usize);
    for run in 1..=size.runs() {
        println!("growth, run {run} of {}", size.runs());
        stage.clear().await;
        let quiet = latency::relay(&stage, size.seconds(10)).await;
        results.add("empty: latency p50", "ms", quiet.quantile(0.5));
        stage.clear().await;
        backlog(&stage, rows, STREAMS).await;
        stage.settle().await;
        results.add("empty: drain", "rows/s", drain::relay(&stage, Drain::of(rows), &[]).await);

        stage.clear().await;
        backlog(&stage, rows, many).await;
        stage.settle().await;
        let drain = Drain { streams: many, ..Drain::of(rows) };
        results.add("many streams: drain", "rows/s", drain::relay(&stage, drain, &[]).await);
    }
    // Filled once, for it takes long; the backlogs of the runs come on top.
    stage.clear().await;
    println!("growth: keeping {kept} rows");
    backlog(&stage, kept, STREAMS).await;
    drain::relay(&stage, Drain::of(kept), &NO_LIMIT).await;
    let held = stage.client().await;
    held.batch_execute("begin; select pg_current_xact_id()").await.unwrap();
    for _ in 0..size.runs() {
        let kept = latency::relay(&stage, size.seconds(10)).await;
        results.add("kept and held: latency p50", "ms", kept.quantile(0.5));
        backlog(&stage, rows, STREAMS).await;
        stage.settle().await;
        let before = stage.entries(&mut stage.streams().await, &names(STREAMS)).await;
        let drain = Drain { before, ..Drain::of(rows) };
        let per_second = drain::relay(&stage, drain, &NO_LIMIT).await;
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
