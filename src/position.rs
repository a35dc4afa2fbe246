//! Where an entry stands in its stream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An entry's ID in Redis, `<ms>-<n>`: `n` is its number in the stream (1, 2, 3 …, dense, never
/// reset), `ms` the clock of Postgres when it was sealed, never decreasing. So positions of one
/// stream grow with `n`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Milliseconds since 1970 by the clock of Postgres.
    pub ms: u64,
    /// Number in the stream; 0 only before the first entry.
    pub n: u64,
}

impl Position {
    /// Before the first entry; what Redis reports for an empty stream that never had an entry.
    pub const START: Self = Self { ms: 0, n: 0 };
    /// Behind the last entry there can be.
    pub const END: Self = Self { ms: u64::MAX, n: u64::MAX };
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.n)
    }
}

impl FromStr for Position {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split_once('-')
            .and_then(|(ms, n)| Some(Self { ms: ms.parse().ok()?, n: n.parse().ok()? }))
            .ok_or_else(|| format!("{text:?} is not a stream entry ID like 1763838000000-42"))
    }
}

/// As Redis writes it.
impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() {
        let position = Position { ms: u64::MAX, n: 7 };
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "-", "1", "1-", "-1", "1-2-3", "1-x", "18446744073709551616-1"] {
            assert!(bad.parse::<Position>().is_err(), "{bad}");
        }
    }

    #[test]
    fn compares_as_redis_does() {
        assert!(Position { ms: 1, n: 9 } < Position { ms: 2, n: 1 });
        assert!(Position { ms: 2, n: 1 } < Position { ms: 2, n: 2 });
    }
}
