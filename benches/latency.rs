//! From commit to XREAD, at 500 rows a second with nothing else to do.
//!
//! The floor is the least that any relay does that promises the same: a NOTIFY that wakes it, one commit
//! of its own, one append, in one chain with nothing between.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use tokio::sync::Mutex;

use super::Size;
use super::result::Results;
use super::stage::Stage;

const PER_SECOND: u64 = 500;
const STREAM: &str = "bench:latency";

pub(crate) async fn measure(size: Size) -> Results {
    let stage = Stage::new().await;
    let mut results = Results::new("latency", &stage);
    for run in 1..=size.runs() {
        println!("latency, run {run} of {}: {PER_SECOND} rows a second", size.runs());
        stage.clear().await;
        let floor = floor(&stage, size.seconds(20)).await;
        results.add("floor p50", "ms", floor.quantile(0.5));
        results.add("floor p99", "ms", floor.quantile(0.99));
        stage.clear().await;
        let ours = relay(&stage, size.seconds(20)).await;
        results.add("outbox-relay p50", "ms", ours.quantile(0.5));
        results.add("outbox-relay p99", "ms", ours.quantile(0.99));
    }
    results.ratio("p50 of the floor", "outbox-relay p50", "floor p50");
    results.ratio("p99 of the floor", "outbox-relay p99", "floor p99");
    results
}

/// Milliseconds, sorted.
pub(crate) struct Latencies(Vec<f64>);

impl Latencies {
    pub(crate) fn quantile(&self, share: f64) -> f64 {
        let at = (self.0.len() as f64 * share) as usize;
        self.0.get(at.min(self.0.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
    }
}

/// When each row was committed, in their order.
type Commits = Arc<Mutex<Vec<Instant>>>;

/// Of the relay as it ships.
pub(crate) async fn relay(stage: &Stage, length: Duration) -> Latencies {
    let _relay = stage.relay(&[]);
    let insert = format!(
        "insert into outbox.entry (stream, key, type, payload) \
         values ('{STREAM}', 'a key', 'order.paid', jsonb_build_object('note', repeat('x', 150)))"
    );
    stage.sql(&insert).await;
    stage.arrived(&[STREAM.to_owned()], 1).await;
    timed(stage, &insert, length).await
}

/// Writes one row after another at a steady pace, and reads them.
async fn timed(stage: &Stage, insert: &str, length: Duration) -> Latencies {
    let commits = Commits::default();
    let rows = (length.as_secs_f64() * PER_SECOND as f64) as usize;
    let reader = tokio::spawn(read(stage.streams().await, commits.clone(), rows));
    let client = stage.client().await;
    let insert = client.prepare(insert).await.unwrap();
    let mut pace = tokio::time::interval(Duration::from_micros(1_000_000 / PER_SECOND));
    for _ in 0..rows {
        pace.tick().await;
        // Held until it is known when the row was committed, for its reader may be faster.
        let mut commits = commits.lock().await;
        client.execute(&insert, &[]).await.unwrap();
        commits.push(Instant::now());
    }
    reader.await.unwrap()
}

async fn read(mut connection: MultiplexedConnection, commits: Commits, rows: usize) -> Latencies {
    type Reply = Vec<(String, Vec<(String, Vec<String>)>)>;
    let (mut latencies, mut last) = (Vec::with_capacity(rows), "$".to_owned());
    while latencies.len() < rows {
        let mut command = redis::cmd("XREAD");
        command.arg("BLOCK").arg(10_000).arg("STREAMS").arg(STREAM).arg(&last);
        let found: Option<Reply> = command.query_async(&mut connection).await.unwrap();
        let now = Instant::now();
        let commits = commits.lock().await;
        for (id, _) in found.into_iter().flatten().flat_map(|(_, entries)| entries) {
            let committed = commits[latencies.len()];
            latencies.push(now.saturating_duration_since(committed).as_secs_f64() * 1_000.0);
            last = id;
        }
    }
    latencies.sort_by(f64::total_cmp);
    Latencies(latencies)
}

/// NOTIFY, a commit and an append, with nothing between.
async fn floor(stage: &Stage, length: Duration) -> Latencies {
    stage.sql("create schema textbook; create table textbook.seal (n bigint)").await;
    super::textbook::least(stage).await;
    let url = stage.postgres.url();
    let (client, mut connection) =
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    let (rung, mut bell) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = std::pin::pin!(futures_util::stream::poll_fn(
            |context| connection.poll_message(context)
        ));
        while let Some(Ok(message)) = futures_util::StreamExt::next(&mut messages).await {
            if matches!(message, tokio_postgres::AsyncMessage::Notification(_)) {
                let _ = rung.send(());
            }
        }
    });
    client.batch_execute("listen textbook").await.unwrap();
    let mut streams = stage.streams().await;
    let seal = client.prepare("insert into textbook.seal values (1)").await.unwrap();
    let script = "return redis.call('XADD', KEYS[1], '*', 'id', '0', 'payload', ARGV[1])";
    let sha: String =
        redis::cmd("SCRIPT").arg("LOAD").arg(script).query_async(&mut streams).await.unwrap();
    let chain = tokio::spawn(async move {
        let payload = "x".repeat(200);
        while bell.recv().await.is_some() {
            client.execute(&seal, &[]).await.unwrap();
            let mut append = redis::cmd("EVALSHA");
            append.arg(&sha).arg(1).arg(STREAM).arg(&payload);
            append.query_async::<String>(&mut streams).await.unwrap();
        }
    });
    let insert = "insert into textbook.outbox (payload) \
                  values (jsonb_build_object('note', repeat('x', 150)))";
    let latencies = timed(stage, insert, length).await;
    chain.abort();
    latencies
}
