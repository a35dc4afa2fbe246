//! What tests stand on: private servers, the program as a child, writers with a journal.

pub(crate) mod certificates;
pub(crate) mod cluster;
pub(crate) mod command;
pub(crate) mod contents;
pub(crate) mod dice;
pub(crate) mod journal;
pub(crate) mod leaves;
pub(crate) mod nodes;
pub(crate) mod pgbouncer;
pub(crate) mod pooler;
pub(crate) mod proxy;
pub(crate) mod relay;
pub(crate) mod sentinels;
pub(crate) mod standby;
pub(crate) mod status;
pub(crate) mod transcript;
pub(crate) mod workers;
pub(crate) mod world;
pub(crate) mod writers;

use std::time::{Duration, Instant};

/// Waits until `condition` holds, looking every few milliseconds; panics with `what` after `bound`.
#[track_caller]
pub(crate) fn eventually<'a, F>(
    what: &'a str,
    bound: Duration,
    mut condition: impl FnMut() -> F + 'a,
) -> impl Future<Output = ()> + 'a
where
    F: Future<Output = bool> + 'a,
{
    let caller = std::panic::Location::caller();
    async move {
        let begun = Instant::now();
        while !condition().await {
            assert!(begun.elapsed() < bound, "{caller}: not within {bound:?}: {what}");
            pause().await;
        }
    }
}

/// Between two looks at a condition; never a wait for something to have happened.
pub(crate) async fn pause() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}
