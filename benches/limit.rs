//! The limit: the relay's own statements and scripts, issued back to back with nothing between.
//!
//! No recovery, no audits, no metrics, no lease to keep: four loops that hand batches on, as fast as the
//! servers take them. And each stage alone, with everything it needs in memory.

use std::sync::Arc;
use std::time::{Duration, Instant};

use outbox_relay::batch::{Batch, Mark};
use outbox_relay::outbox::{Finder, Found, Lease, Log, LogReader, Seal};
use outbox_relay::position::Position;
use outbox_relay::relay::plan::Heads;
use outbox_relay::stream::{Append, Limits, Redis, Server};

use super::stage::Stage;

/// As the relay has them by itself.
const ROWS: usize = 5_000;
const BYTES: usize = 1 << 20;
const IN_FLIGHT: usize = 4;

/// Rows a second of each stage alone.
pub(crate) struct Alone {
    pub(crate) read: f64,
    pub(crate) seal: f64,
    pub(crate) append: f64,
    pub(crate) mark: f64,
}

struct Means {
    finder: Finder,
    log: Log,
    redis: Redis,
    cursor: outbox_relay::outbox::Cursor,
}

impl Means {
    async fn new(stage: &Stage) -> Self {
        let database = stage.database();
        let lease = Lease::new(
            database.connect("lease").await.unwrap(),
            "bench".to_owned(),
            Duration::from_secs(3_600),
        );
        let term = lease.await.unwrap().take().await.unwrap().unwrap();
        let reader = LogReader::new(database.pool(1).unwrap());
        Self {
            finder: Finder::new(database.connect("find").await.unwrap()).await.unwrap(),
            log: Log::new(database.connect("seal").await.unwrap(), term).await.unwrap(),
            redis: Server::from_url(&stage.redis.url(), "").unwrap().connect().await.unwrap(),
            cursor: reader.cursor().await.unwrap().0,
        }
    }
}

struct Sealed {
    found: Found,
    seal: i64,
    batches: Vec<Batch>,
    new_streams: Vec<Arc<str>>,
}

/// Gives positions, as sealing does.
#[derive(Default)]
struct Planner {
    heads: Heads,
    seal: i64,
}

impl Planner {
    fn plan(&mut self, mut found: Found) -> Sealed {
        self.seal += 1;
        let entries = std::mem::take(&mut found.entries);
        let plan = self.heads.plan(self.seal, entries, found.clock.us / 1_000);
        Sealed { found, seal: self.seal, batches: plan.batches, new_streams: plan.new_streams }
    }
}

async fn seal(log: &Log, sealed: &Sealed, marks: &[Mark]) {
    let (batches, new_streams) = (&sealed.batches[..], &sealed.new_streams[..]);
    let seal =
        Seal { seal: sealed.seal, cursor: &sealed.found.cursor, batches, new_streams, marks };
    log.seal(seal).await.unwrap();
}

/// Where each stream is, as whoever appends knows it.
#[derive(Default)]
struct Ends(std::collections::HashMap<Arc<str>, Position>);

impl Ends {
    fn appends(&mut self, batches: Vec<Batch>) -> (Vec<Append>, Vec<Mark>) {
        let marks = batches.iter().map(Batch::mark).collect();
        let append = |batch: Batch| {
            let last = batch.last();
            let expected = self.0.insert(batch.stream.clone(), last).unwrap_or(Position::START);
            Append {
                expected,
                first_n: batch.first_n,
                ms: vec![batch.ms; batch.entries.len()],
                stream: batch.stream,
                entries: batch.entries,
            }
        };
        (batches.into_iter().map(append).collect(), marks)
    }
}

/// Rows a second of all stages at once.
pub(crate) async fn drain(stage: &Stage, rows: u64) -> f64 {
    let Means { mut finder, log, redis, mut cursor } = Means::new(stage).await;
    let (found_in, mut found_out) = tokio::sync::mpsc::channel::<Found>(2);
    let (sealed_in, mut sealed_out) = tokio::sync::mpsc::channel::<Vec<Batch>>(2);
    let (marks_in, mut marks_out) = tokio::sync::mpsc::unbounded_channel::<Vec<Mark>>();
    let begun = Instant::now();
    let read = tokio::spawn(async move {
        let mut left = rows;
        while left > 0 {
            let found = finder.find(&cursor, ROWS, BYTES).await.unwrap();
            cursor = found.cursor.clone();
            left -= found.entries.len() as u64;
            if !found.entries.is_empty() {
                found_in.send(found).await.unwrap();
            }
        }
    });
    let sealing = tokio::spawn(async move {
        let (mut planner, mut marks) = (Planner::default(), Vec::new());
        while let Some(found) = found_out.recv().await {
            let sealed = planner.plan(found);
            while let Ok(more) = marks_out.try_recv() {
                marks.extend(more);
            }
            seal(&log, &sealed, &std::mem::take(&mut marks)).await;
            sealed_in.send(sealed.batches).await.unwrap();
        }
        drop(sealed_in);
        while let Some(more) = marks_out.recv().await {
            marks.extend(more);
        }
        log.mark(&marks).await.unwrap();
    });
    let appending = tokio::spawn(async move {
        use futures_util::StreamExt as _;
        let (mut ends, mut in_flight) =
            (Ends::default(), futures_util::stream::FuturesOrdered::new());
        loop {
            tokio::select! {
                batches = sealed_out.recv(), if in_flight.len() < IN_FLIGHT => {
                    let Some(batches) = batches else { break };
                    let (appends, marks) = ends.appends(batches);
                    let redis = redis.clone();
                    in_flight.push_back(async move {
                        redis.append(&appends, Limits::NONE).await.unwrap();
                        marks
                    });
                }
                Some(marks) = in_flight.next() => marks_in.send(marks).unwrap(),
            }
        }
        while let Some(marks) = in_flight.next().await {
            marks_in.send(marks).unwrap();
        }
    });
    read.await.unwrap();
    appending.await.unwrap();
    sealing.await.unwrap();
    rows as f64 / begun.elapsed().as_secs_f64()
}

/// Each stage alone, over the same rows, one after another.
pub(crate) async fn alone(stage: &Stage, rows: u64) -> Alone {
    let Means { mut finder, log, redis, mut cursor } = Means::new(stage).await;
    let rate = |begun: Instant| rows as f64 / begun.elapsed().as_secs_f64();
    let (mut pages, mut left, begun) = (Vec::new(), rows, Instant::now());
    while left > 0 {
        let found = finder.find(&cursor, ROWS, BYTES).await.unwrap();
        cursor = found.cursor.clone();
        left -= found.entries.len() as u64;
        pages.push(found);
    }
    let read = rate(begun);
    let mut planner = Planner::default();
    let planned: Vec<Sealed> = pages.into_iter().map(|page| planner.plan(page)).collect();
    let begun = Instant::now();
    for sealed in &planned {
        seal(&log, sealed, &[]).await;
    }
    let seal = rate(begun);
    let mut ends = Ends::default();
    let appends: Vec<_> = planned.into_iter().map(|sealed| ends.appends(sealed.batches)).collect();
    let begun = Instant::now();
    let flights = appends.iter().map(|(appends, _)| redis.append(appends, Limits::NONE));
    let mut flights =
        futures_util::StreamExt::buffered(futures_util::stream::iter(flights), IN_FLIGHT);
    while let Some(answer) = futures_util::StreamExt::next(&mut flights).await {
        answer.unwrap();
    }
    let append = rate(begun);
    let begun = Instant::now();
    for (_, marks) in &appends {
        log.mark(marks).await.unwrap();
    }
    Alone { read, seal, append, mark: rate(begun) }
}
