//! How long to wait before trying again. The only file that names the `backoff` crate.

use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::ExponentialBackoffBuilder;
use backoff::backoff::Backoff as _;

/// Shortest wait: a server that restarts is often back within it.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait: a server that comes back is noticed within it.
const LONGEST: Duration = Duration::from_secs(5);

/// How far a wait may be from its length, so that relays do not come back in step. Not in the library's own
/// tests: a simulated run must be the same again.
const JITTER: f64 = if cfg!(test) { 0.0 } else { 0.3 };

/// Growing, jittered waits between attempts: 100 ms at first, 5 s at most, without end.
#[derive(Debug)]
pub struct Waits(ExponentialBackoff);

impl Waits {
    /// Begins with the shortest wait.
    pub fn new() -> Self {
        Self(
            ExponentialBackoffBuilder::new()
                .with_initial_interval(FIRST)
                .with_multiplier(2.0)
                .with_randomization_factor(JITTER)
                .with_max_interval(LONGEST)
                .with_max_elapsed_time(None)
                .build(),
        )
    }

    /// The wait before the next attempt.
    pub fn next_wait(&mut self) -> Duration {
        self.0.next_backoff().unwrap_or(LONGEST)
    }

    /// Begins with the shortest wait again, after a success.
    pub fn reset(&mut self) {
        self.0.reset();
    }
}

impl Default for Waits {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_to_its_bound_and_never_ends() {
        let mut waits = Waits::new();
        assert!(waits.next_wait() < Duration::from_millis(200));
        for _ in 0..100 {
            assert!(waits.next_wait() <= LONGEST.mul_f64(1.3));
        }
        waits.reset();
        assert!(waits.next_wait() < Duration::from_millis(200));
    }
}
