//! How long something holds that nobody takes back.

use std::time::Duration;

use crate::error::{Error, Kind, Result};

/// A time after which a lock, a mark or a count is gone by itself: 100 ms to 7 days, to the millisecond.
///
/// A lock is renewed every third of it, and a renewal has to reach Redis and come back in time: what is
/// shorter than the least would be lost by every hiccup, and far from Redis it takes ten times the round trip
/// and more to keep a lock when a connection breaks. What is longer than the most belongs into Postgres.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Expiry(Duration);

impl Expiry {
    /// The shortest there is.
    pub const LEAST: Self = Self(Duration::from_millis(100));
    /// The longest there is.
    pub const MOST: Self = Self(Duration::from_secs(7 * 24 * 60 * 60));

    /// So long. What is shorter than a millisecond is cut off.
    ///
    /// # Errors
    /// `Usage` if it is shorter than 100 ms or longer than 7 days.
    pub fn of(time: Duration) -> Result<Self> {
        if time < Self::LEAST.0 || time > Self::MOST.0 {
            let context = format!("an expiry of {time:?}; it must be from 100 ms to 7 days");
            return Err(Error::new(Kind::Usage, context));
        }
        Ok(Self(Duration::new(time.as_secs(), time.subsec_millis() * 1_000_000)))
    }

    /// So many seconds, 1 to 604,800.
    ///
    /// # Errors
    /// As [`Expiry::of`].
    pub fn seconds(seconds: u64) -> Result<Self> {
        Self::of(Duration::from_secs(seconds))
    }

    /// The time.
    pub fn time(self) -> Duration {
        self.0
    }

    /// As a script takes it.
    pub(super) fn millis(self) -> String {
        self.0.as_millis().to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_neither_zero_nor_without_end() {
        for bad in [Duration::ZERO, Duration::from_micros(99_999), Duration::MAX] {
            let told = Expiry::of(bad).expect_err("it is out of bounds");
            assert_eq!(told.kind(), Kind::Usage);
            assert!(told.to_string().contains("from 100 ms to 7 days"), "{told}");
        }
        assert!(Expiry::seconds(0).is_err() && Expiry::seconds(604_801).is_err());
        assert_eq!(Expiry::seconds(604_800).ok(), Some(Expiry::MOST));
        assert_eq!(Expiry::of(Duration::from_millis(100)).ok(), Some(Expiry::LEAST));
    }

    #[test]
    fn is_a_whole_number_of_milliseconds() {
        let cut = Expiry::of(Duration::from_nanos(1_234_999_999)).expect("in bounds");
        assert_eq!((cut.time(), cut.millis()), (Duration::from_millis(1_234), "1234".to_owned()));
    }
}
