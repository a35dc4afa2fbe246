//! The clock of Postgres, between two readings.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use tokio::time::Instant;

use crate::outbox::Clock;

/// Tells the time of Postgres without asking it, so that the age of a row does not depend on the
/// clock of this host. Cloning is cheap; all clones are the same.
#[derive(Clone, Debug)]
pub(super) struct DatabaseClock {
    begun: Instant,
    /// Microseconds from our count since `begun` to the time of Postgres.
    offset_us: Arc<AtomicI64>,
}

impl DatabaseClock {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), offset_us: Arc::default() }
    }

    /// Sets it by a reading.
    pub(super) fn set(&self, clock: Clock) {
        let since = clock.read_at.saturating_duration_since(self.begun).as_micros();
        let offset =
            clock.us.cast_signed().saturating_sub(i64::try_from(since).unwrap_or_default());
        self.offset_us.store(offset, Ordering::Relaxed);
    }

    /// Microseconds since 1970.
    pub(super) fn now_us(&self) -> i64 {
        let since = i64::try_from(self.begun.elapsed().as_micros()).unwrap_or_default();
        self.offset_us.load(Ordering::Relaxed).saturating_add(since)
    }
}
