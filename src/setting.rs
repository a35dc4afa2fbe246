//! One value of a setting or of a rule, read from text: times, sizes, counts, switches. Pure.

use std::time::Duration;

use crate::text::shortened;

/// A value that is wrong, as people are shown it.
pub(crate) fn shown(value: &str) -> String {
    format!("{:?}", shortened(value, 60))
}

/// A time like `250ms`, `5s`, `10m`, `2h`, `7d`.
pub(crate) fn duration(text: &str, least: Duration, most: Duration) -> Result<Duration, String> {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    let found = units.iter().find_map(|(unit, factor)| {
        let number: u64 = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(*factor).map(Duration::from_millis)
    });
    match found {
        Some(time) if time >= least && time <= most => Ok(time),
        Some(_) => Err(format!("{} is not between {least:?} and {most:?}", shown(text))),
        None => Err(format!("{} is not a time like 250ms, 5s, 10m, 2h or 7d", shown(text))),
    }
}

/// A size like `64KiB` or `4MiB`.
pub(crate) fn size(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let units = [("KiB", 10), ("MiB", 20), ("GiB", 30)];
    let found = units.iter().find_map(|(unit, shift)| {
        let number: usize = text.strip_suffix(unit)?.trim().parse().ok()?;
        number.checked_mul(1 << shift)
    });
    match found {
        Some(size) if size >= least && size <= most => Ok(size),
        Some(_) => {
            let (least, most) = (least >> 10, most >> 20);
            Err(format!("{} is not between {least} KiB and {most} MiB", shown(text)))
        }
        None => Err(format!("{} is not a size like 64KiB or 4MiB", shown(text))),
    }
}

/// A whole number.
pub(crate) fn count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if count >= least && count <= most => Ok(count),
        _ => Err(format!("{} is not a number from {least} to {most}", shown(text))),
    }
}

/// A switch: `on` or `off`.
pub(crate) fn switch(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("{} is neither on nor off", shown(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times_with_units() {
        let read = |text| duration(text, Duration::ZERO, Duration::MAX);
        assert_eq!(read("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(read("7d"), Ok(Duration::from_secs(7 * 86_400)));
        for bad in ["", "5", "s", "-5s", "5 weeks", "1.5s", "99999999999999999999d"] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(duration("5s", Duration::ZERO, Duration::from_secs(1)).is_err());
    }

    #[test]
    fn reads_sizes_with_units() {
        assert_eq!(size("64KiB", 0, usize::MAX), Ok(65_536));
        for bad in ["", "64", "64kb", "MiB"] {
            assert!(size(bad, 0, usize::MAX).is_err(), "{bad}");
        }
    }
}
