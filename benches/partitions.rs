//! A backlog of one stream: as it is, in partitions, and in partitions on a cluster of three primaries.

use std::time::{Duration, Instant};

use outbox_relay::sandbox::{Redis, RedisOptions};

use super::load::backlog;
use super::result::Results;
use super::stage::Stage;
use super::{Size, nodes};

const ROWS: u64 = 1_000_000;
/// The stream, as `backlog` names its first one.
const STREAM: &str = "bench:0";
const PARTITIONS: i32 = 16;
const PRIMARIES: usize = 3;

pub(crate) async fn measure(size: Size) -> Results {
    let stage = Stage::new().await;
    let mut results = Results::new("partitions", &stage);
    let cluster = nodes::form(RedisOptions::default(), PRIMARIES, 0).await;
    let url = cluster[0].url();
    let rows = size.of(ROWS);
    let cases = [
        ("one stream", 1, None),
        ("16 partitions", PARTITIONS, None),
        ("16 partitions, cluster of 3", PARTITIONS, Some(url.as_str())),
    ];
    for run in 1..=size.runs() {
        println!("partitions, run {run} of {}: {rows} rows in one stream", size.runs());
        // By turns, for what comes first may be faster.
        for turn in 0..cases.len() {
            let (name, partitions, url) = cases[(run + turn) % cases.len()];
            fresh(&stage, &cluster, rows, partitions, url).await;
            results.add(name, "rows/s", drain(&stage, rows, url).await);
        }
    }
    results.ratio("of one stream", "16 partitions", "one stream");
    results.ratio("of one Redis", "16 partitions, cluster of 3", "16 partitions");
    results
}

/// A backlog in a stream with so many partitions.
async fn fresh(stage: &Stage, cluster: &[Redis], rows: u64, partitions: i32, url: Option<&str>) {
    stage.clear().await;
    for node in cluster {
        nodes::ask::<()>(node, &["FLUSHALL"]).await;
    }
    if partitions > 1 {
        stage.sql(&format!("select outbox.set_partitions('{STREAM}', {partitions})")).await;
        let _relay = stage.relay(&settings(url));
        let asked = "select not exists (select from outbox.partitioning \
                     where wanted is not null or before is not null)";
        until(stage, asked).await;
    }
    backlog(stage, rows, 1).await;
    stage.settle().await;
}

/// Rows a second of the relay, from its start on until all are marked.
async fn drain(stage: &Stage, rows: u64, url: Option<&str>) -> f64 {
    let begun = Instant::now();
    let _relay = stage.relay(&settings(url));
    let all = format!(
        "select coalesce(sum(last_n - first_n + 1), 0) = {rows} from outbox.batch where dispatched_at is not null"
    );
    until(stage, &all).await;
    rows as f64 / begun.elapsed().as_secs_f64()
}

/// For a stream without a group stops at a million entries, and this is one to have it all.
fn settings(url: Option<&str>) -> Vec<(&str, &str)> {
    let mut settings = vec![("OUTBOX_STREAM_LIMIT", "10000000"), ("OUTBOX_STREAM_BYTES", "16GiB")];
    settings.extend(url.map(|url| ("REDIS_URL", url)));
    settings
}

async fn until(stage: &Stage, condition: &str) {
    let (client, begun) = (stage.client().await, Instant::now());
    while !client.query_one(condition, &[]).await.unwrap().get::<_, bool>(0) {
        assert!(begun.elapsed() < Duration::from_secs(1_200), "never: {condition}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
