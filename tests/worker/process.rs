//! A worker that can be killed.

use std::time::Duration;

use outbox_relay::worker::{Database, Server, Settings, Worker};
use tokio::signal::unix::{SignalKind, signal};

use super::shop::{GROUP, Receipts};

/// Not a test: other tests start this program again with only this in it.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "other tests start it, in a process that they kill"]
async fn works_until_it_is_told_to_stop() {
    let Ok(name) = std::env::var("OUTBOX_TEST_WORKER") else { return };
    let database = Database::from_url(&std::env::var("OUTBOX_TEST_POSTGRES").unwrap()).unwrap();
    let server = Server::from_url(&std::env::var("OUTBOX_TEST_REDIS").unwrap(), "").unwrap();
    let settings = Settings {
        wait: Duration::from_millis(50),
        longest_wait: Duration::from_millis(500),
        claim_after: Duration::from_secs(1),
        attempts: 4,
        ..Settings::new("orders", GROUP, &name)
    };
    let mut end = signal(SignalKind::terminate()).unwrap();
    let stop = async { _ = end.recv().await };
    Worker::new(database, server, settings).run(Receipts::default(), stop).await.unwrap();
}
