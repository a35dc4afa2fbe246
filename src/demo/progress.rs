//! A status line every two seconds.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::narrator::{Narrator, grouped};
use super::shop::Till;
use super::streams::Streams;
use super::worker::Tally;

const EVERY: Duration = Duration::from_secs(2);

/// Shows the progress until it is dropped.
pub(super) struct Progress(JoinHandle<()>);

impl Progress {
    pub(super) fn start(
        narrator: Narrator,
        till: Arc<Till>,
        tally: Arc<Tally>,
        redis_url: String,
    ) -> Self {
        Self(tokio::spawn(async move {
            let mut streams = Streams::new(redis_url);
            loop {
                sleep(EVERY).await;
                let entries = streams.total().await;
                let entries = entries.map_or_else(|_| "away".to_owned(), grouped);
                narrator.say(format_args!(
                    "  committed {:>7}    in Redis {entries:>7}    processed {:>7}",
                    grouped(till.committed()),
                    grouped(tally.processed()),
                ));
            }
        }))
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.abort();
    }
}
