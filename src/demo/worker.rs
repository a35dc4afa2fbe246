//! The workers: read entries as a consumer group, look up the order, act once, acknowledge.
//!
//! They are the library's, as an application would use it. They do nothing about a loss of Redis: it is the
//! relay that puts their group back where it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::DemoError;
use super::journal::STREAMS;
use super::shop;
use super::streams::WORKERS;
use crate::worker::{
    Database, Event, Failure, Handler, Outcome, Server, Settings, Transaction, Worker,
};

/// The consumers of the group.
pub(super) const NAMES: [&str; 2] = ["worker-1", "worker-2"];
/// Where they log.
pub(super) const LOG: &str = "workers";
/// What an event takes, as if the goods were packed. So the workers are always a little behind, and Redis
/// holds something that can be lost.
const PACKING: Duration = Duration::from_millis(50);
/// Deliveries written down at once, at most.
const NOTED: usize = 1_000;

/// Workers at work. They are aborted when this is dropped.
pub(super) struct Workers {
    _tasks: JoinSet<()>,
    tally: Arc<Tally>,
}

/// What the workers have done so far.
#[derive(Default)]
pub(super) struct Tally {
    processed: AtomicU64,
}

/// Packs what was ordered.
struct Packer {
    name: &'static str,
    tally: Arc<Tally>,
    deliveries: mpsc::UnboundedSender<Delivery>,
}

/// An event that a worker was given, and whether it had been done before.
struct Delivery {
    worker: &'static str,
    event: Event,
    again: bool,
}

impl Handler for Packer {
    /// The status of the order; None when there is no such order.
    type Record = Option<String>;

    async fn read(
        &self,
        event: &Event,
        transaction: &mut Transaction<'_>,
    ) -> Result<Option<Self::Record>, Failure> {
        // The event only says that something happened; the facts are in the tables of the shop.
        let order: i64 = event.key.as_deref().unwrap_or_default().parse()?;
        let query = "select status from shop.orders where id = $1";
        Ok(Some(transaction.query_opt(query, &[&order]).await?.map(|row| row.get(0))))
    }

    async fn act(
        &self,
        event: &Event,
        status: Self::Record,
        transaction: &mut Transaction<'_>,
    ) -> Result<(), Failure> {
        sleep(PACKING).await;
        let query = "insert into shop.processed (event_id, stream, entry_id, worker, order_status) \
                     values ($1, $2, $3, $4, $5)";
        let entry = event.position.to_string();
        let values: [&(dyn ToSql + Sync); 5] =
            [&event.id, &event.stream, &entry, &self.name, &status];
        transaction.execute(query, &values).await?;
        Ok(())
    }

    fn ended(&self, event: &Event, outcome: &Outcome) {
        let again = match outcome {
            Outcome::Done => false,
            Outcome::DoneBefore => true,
            Outcome::Failed { .. } | Outcome::Dead { .. } | Outcome::Interrupted { .. } => return,
        };
        self.tally.processed.fetch_add(u64::from(!again), Ordering::Relaxed);
        let delivery = Delivery { worker: self.name, event: event.clone(), again };
        // At the end of the demo nobody writes it down any more.
        let _ = self.deliveries.send(delivery);
    }
}

impl Workers {
    /// Lets each worker read each stream.
    pub(super) fn start(redis_url: &str, database_url: &str) -> Result<Self, DemoError> {
        let unusable = |error| DemoError::failed("the workers cannot use a URL", &error);
        let database = Database::from_url(database_url).map_err(unusable)?;
        let server = Server::from_url(redis_url, "").map_err(unusable)?;
        let (tally, mut tasks) = (Arc::new(Tally::default()), JoinSet::new());
        let (deliveries, given) = mpsc::unbounded_channel();
        tasks.spawn(write_down(given, database_url.to_owned()));
        for name in NAMES {
            for stream in STREAMS {
                let settings = Settings::new(stream, WORKERS, name);
                let worker = Worker::new(database.clone(), server.clone(), settings);
                let tally = Arc::clone(&tally);
                let packer = Packer { name, tally, deliveries: deliveries.clone() };
                tasks.spawn(async move {
                    if let Err(error) = worker.run(packer, std::future::pending()).await {
                        tracing::error!("{name} cannot work: {error}");
                    }
                });
            }
        }
        Ok(Self { _tasks: tasks, tally })
    }

    pub(super) fn tally(&self) -> Arc<Tally> {
        Arc::clone(&self.tally)
    }
}

impl Tally {
    /// Events processed, each counted once; for the eye, the truth is in the shop's database.
    pub(super) fn processed(&self) -> u64 {
        self.processed.load(Ordering::Relaxed)
    }
}

/// Writes down what workers were given: not needed to be right, only to tell afterwards what came again.
async fn write_down(mut given: mpsc::UnboundedReceiver<Delivery>, database_url: String) {
    let written = async {
        let database = shop::connect(&database_url).await?;
        let query = "insert into shop.delivery (stream, entry_id, event_id, worker, given_at, again) \
                     select * from unnest($1::text[], $2::text[], $3::uuid[], $4::text[], \
                                          $5::timestamptz[], $6::boolean[])";
        let mut some = Vec::new();
        while given.recv_many(&mut some, NOTED).await > 0 {
            let all = some.iter();
            let streams: Vec<&str> = all.clone().map(|one: &Delivery| &*one.event.stream).collect();
            let entries: Vec<String> =
                all.clone().map(|one| one.event.position.to_string()).collect();
            let events: Vec<Uuid> = all.clone().map(|one| one.event.id).collect();
            let workers: Vec<&str> = all.clone().map(|one| one.worker).collect();
            let times: Vec<SystemTime> = all.clone().map(|one| one.event.given_at).collect();
            let again: Vec<bool> = all.map(|one| one.again).collect();
            let values: [&(dyn ToSql + Sync); 6] =
                [&streams, &entries, &events, &workers, &times, &again];
            database
                .execute(query, &values)
                .await
                .map_err(DemoError::postgres("cannot write down what the workers were given"))?;
            some.clear();
        }
        Ok::<(), DemoError>(())
    };
    if let Err(error) = written.await {
        tracing::error!("{error}");
    }
}
