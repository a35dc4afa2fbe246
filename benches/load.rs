//! Rows: how they look, and who writes them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::stage::Stage;

/// A payload of about 200 bytes.
const PAYLOAD: &str =
    "jsonb_build_object('order', i, 'customer', i % 1000, 'note', repeat('x', 150))";
/// Streams of a backlog.
pub(crate) const STREAMS: usize = 16;

/// The names of so many streams.
pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("bench:{number}")).collect()
}

/// Commits so many rows in so many streams, a hundred thousand a transaction.
pub(crate) async fn backlog(stage: &Stage, rows: u64, streams: usize) {
    let client = stage.client().await;
    let sql = format!(
        "insert into outbox.entry (stream, key, type, payload) \
         select 'bench:' || i % {streams}, 'key ' || i % 1000, 'order.paid', {PAYLOAD} \
         from generate_series($1::bigint, $2::bigint) as i"
    );
    let mut from = 0;
    while from < rows {
        let through = (from + 100_000).min(rows) - 1;
        client.execute(&sql, &[&(from as i64), &(through as i64)]).await.unwrap();
        from = through + 1;
    }
    client.batch_execute("analyze outbox.entry").await.unwrap();
}

/// Inserts a second that so many writers reach, each on a connection of its own, a row a transaction.
pub(crate) async fn inserts(stage: &Stage, sql: &str, writers: usize, length: Duration) -> f64 {
    let (over, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..writers {
        let client = stage.client().await;
        let insert = client.prepare(sql).await.unwrap();
        let (over, count) = (over.clone(), count.clone());
        tasks.spawn(async move {
            while !over.load(Ordering::Relaxed) {
                client.execute(&insert, &[]).await.unwrap();
                count.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    // The first ones find nothing in any cache.
    tokio::time::sleep(length / 10).await;
    let (before, begun) = (count.load(Ordering::Relaxed), Instant::now());
    tokio::time::sleep(length).await;
    let per_second =
        (count.load(Ordering::Relaxed) - before) as f64 / begun.elapsed().as_secs_f64();
    over.store(true, Ordering::Relaxed);
    tasks.join_all().await;
    per_second
}
