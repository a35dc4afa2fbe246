//! Troubles that last: told without filling the log.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{debug, warn};

use crate::error::{Error, Target};

/// Tells of a trouble when it begins or changes, and once a minute while it lasts.
#[derive(Debug, Default)]
pub struct Troubles(Option<(String, Instant)>);

impl Troubles {
    const REMIND: Duration = Duration::from_secs(60);

    /// Tells of `error`, before `wait` is waited.
    pub fn tell(&mut self, error: &Error, wait: Duration) {
        let text = error.to_string();
        let (target, kind) = (error.target().map(Target::as_str), error.kind().as_str());
        match &self.0 {
            Some((last, told)) if *last == text && told.elapsed() < Self::REMIND => {
                debug!(target, kind, "{text}; trying again in {} ms", wait.as_millis());
            }
            _ => {
                warn!(target, kind, "{text}; trying again in {} ms", wait.as_millis());
                self.0 = Some((text, Instant::now()));
            }
        }
    }
}
