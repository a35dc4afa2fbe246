//! Times that can be compared with those of the relay's log.

use std::time::SystemTime;

/// Microseconds since 1970.
pub(crate) type Micros = i64;

pub(crate) const SECOND: Micros = 1_000_000;

pub(crate) fn now() -> Micros {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as Micros
}

/// The time at the beginning of a line of a log.
pub(crate) fn of_line(line: &str) -> Option<Micros> {
    let time: jiff::Timestamp = line.split_whitespace().next()?.parse().ok()?;
    Some(time.as_microsecond())
}
