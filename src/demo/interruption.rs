//! Ctrl-C and its like.

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::error::DemoError;

/// Signals that ask us to end.
pub(super) struct Interruption([Signal; 3]);

impl Interruption {
    /// From now on these signals no longer end the process.
    pub(super) fn listen() -> Result<Self, DemoError> {
        let listen = |kind| signal(kind).map_err(DemoError::io("cannot listen for signals"));
        let kinds = (SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup());
        Ok(Self([listen(kinds.0)?, listen(kinds.1)?, listen(kinds.2)?]))
    }

    /// Returns after the first of them.
    pub(super) async fn wait(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}
