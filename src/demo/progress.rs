//! How the demo goes: a block at the foot of a terminal, elsewhere a line every two seconds.

use std::sync::Arc;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::moment::Moment;
use super::narrator::Narrator;
use super::relays::Logs;
use super::shop::Till;
use super::streams::Streams;
use super::worker::Tally;

const LINE_EVERY: Duration = Duration::from_secs(2);
const DRAW_EVERY: Duration = Duration::from_millis(250);

/// Shows the progress until it is dropped, and then takes the block away.
pub(super) struct Progress {
    task: JoinHandle<()>,
    block: ProgressBar,
}

/// Where the progress can be seen.
pub(super) struct Sources {
    pub(super) till: Arc<Till>,
    pub(super) tally: Arc<Tally>,
    pub(super) streams: Streams,
    pub(super) relays: Logs,
}

impl Progress {
    pub(super) fn start(narrator: Narrator, mut sources: Sources) -> Self {
        let block = narrator.live().add(ProgressBar::no_length());
        let style = ProgressStyle::with_template("{msg}");
        block.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let drawn = block.clone();
        let task = tokio::spawn(async move {
            let is_live = !narrator.live().is_hidden();
            loop {
                if is_live {
                    drawn.set_message(sources.look(&narrator).await.block());
                    sleep(DRAW_EVERY).await;
                } else {
                    sleep(LINE_EVERY).await;
                    narrator.say(sources.look(&narrator).await.line());
                }
            }
        });
        Self { task, block }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.task.abort();
        self.block.finish_and_clear();
    }
}

impl Sources {
    async fn look(&mut self, narrator: &Narrator) -> Moment {
        Moment {
            committed: self.till.committed(),
            entries: self.streams.total().await.ok(),
            processed: self.tally.processed(),
            roles: self.relays.each_ref().map(|log| log.role()),
            last_kill: narrator.last_kill(),
            now: narrator.now(),
        }
    }
}
