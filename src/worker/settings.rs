//! How a worker works.

use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// How a worker works. Made by [`Settings::new`], then changed where the defaults do not fit.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The stream, as rows name it, or one partition of it, like `orders:{3}`.
    pub stream: String,
    /// The consumer group; it is made from the first entry on if it is not there when the worker begins.
    pub group: String,
    /// The name of this worker within its group: no two at a time, and the same after a restart, for a worker
    /// goes on with what its name was given, in order, where another one has to wait `claim_after`.
    pub consumer: String,
    /// Events worked on at the same time, each on a connection to Postgres of its own, with one more for
    /// dead letters: 8 (1 to 1,000).
    pub handlers: usize,
    /// Attempts with an event before it is given up: 8 (1 to 1,000).
    pub attempts: u64,
    /// Wait after the first attempt; each one after it is twice as long: 1 s (1 ms to 1 h).
    pub wait: Duration,
    /// The longest wait between two attempts: 5 min (as long as `wait` to 24 h).
    pub longest_wait: Duration,
    /// An attempt may take this long: 1 min (1 ms to 24 h).
    pub limit: Duration,
    /// What another worker of the group was given and has let lie for this long is taken over: 1 min (1 s to
    /// 24 h). A worker that lives says three times within it that it works.
    pub claim_after: Duration,
    /// Attempts that run when it is asked to stop may take this long to end: 20 s (0 to 1 h).
    pub drain: Duration,
}

impl Settings {
    /// Of the worker `consumer` of `group`, for `stream`, with the defaults.
    pub fn new(stream: &str, group: &str, consumer: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            group: group.to_owned(),
            consumer: consumer.to_owned(),
            handlers: 8,
            attempts: 8,
            wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(300),
            limit: Duration::from_secs(60),
            claim_after: Duration::from_secs(60),
            drain: Duration::from_secs(20),
        }
    }

    /// Refuses what is out of bounds, all of it at once.
    pub(super) fn check(&self) -> Result<()> {
        let mut wrong = Vec::new();
        for (name, text) in
            [("stream", &self.stream), ("group", &self.group), ("consumer", &self.consumer)]
        {
            // Names that are no plain text are another one's in the relay's checkpoints.
            if text.is_empty()
                || text.len() > 1_000
                || text.contains('\0')
                || text.starts_with("\\x")
            {
                wrong.push(format!(
                    "{name} is {text:?}: it must be a text of 1 to 1,000 bytes, without NUL, not \
                     beginning with \\x"
                ));
            }
        }
        let mut within = |name: &str, value: Duration, least: Duration, most: Duration| {
            if value < least || value > most {
                wrong.push(format!("{name} is {value:?}: it must be {least:?} to {most:?}"));
            }
        };
        let (ms, second, hour) =
            (Duration::from_millis(1), Duration::from_secs(1), Duration::from_secs(3_600));
        within("wait", self.wait, ms, hour);
        within("longest_wait", self.longest_wait, self.wait, 24 * hour);
        within("limit", self.limit, ms, 24 * hour);
        within("claim_after", self.claim_after, second, 24 * hour);
        within("drain", self.drain, Duration::ZERO, hour);
        for (name, value) in [("handlers", self.handlers as u64), ("attempts", self.attempts)] {
            if !(1..=1_000).contains(&value) {
                wrong.push(format!("{name} is {value}: it must be 1 to 1000"));
            }
        }
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::new(
                Kind::Usage,
                format!("a worker cannot work so: {}", wrong.join("; ")),
            )),
        }
    }

    /// How long to wait after so many attempts.
    pub(super) fn wait_after(&self, attempts: u64) -> Duration {
        let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(u32::MAX).min(31);
        self.wait.saturating_mul(1 << doublings).min(self.longest_wait)
    }

    /// Events that are read ahead of those that are worked on.
    pub(super) fn ahead(&self) -> usize {
        self.handlers * 4
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let settings = Settings::new("orders", "mail", "worker-1");
        let seconds = |attempts| settings.wait_after(attempts).as_secs();
        assert_eq!([0, 1, 2, 3, 9, 10, 1_000_000].map(seconds), [1, 1, 2, 4, 256, 300, 300]);
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let settings = Settings::new("orders", "mail", "worker-1");
        settings.check().expect("the defaults are within their bounds");
        let wrong = Settings { group: String::new(), handlers: 0, attempts: 0, ..settings.clone() };
        let told = wrong.check().expect_err("they are wrong").to_string();
        assert!(["group", "handlers", "attempts"].iter().all(|name| told.contains(name)), "{told}");
        let wrong = Settings { longest_wait: Duration::ZERO, ..settings };
        assert!(wrong.check().is_err_and(|error| error.to_string().contains("longest_wait")));
    }
}
