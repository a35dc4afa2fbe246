//! Tells the story: plain lines with the seconds since it began.

use std::fmt::Display;
use std::io::Write;
use std::time::{Duration, Instant};

/// The clock of the story, and its voice.
#[derive(Clone, Copy)]
pub(super) struct Narrator {
    begun: Instant,
}

impl Narrator {
    pub(super) fn start() -> Self {
        Self { begun: Instant::now() }
    }

    /// One line, with the time before it.
    pub(super) fn say(&self, line: impl Display) {
        let seconds = self.begun.elapsed().as_secs_f64();
        print(format_args!("{seconds:>6.1}s  {line}"));
    }

    /// Text without the time: a table, the end of a log.
    pub(super) fn show(&self, text: impl Display) {
        print(text);
    }
}

fn print(text: impl Display) {
    let mut out = std::io::stdout().lock();
    // A reader that went away (`demo | head`) is no reason to stop before everything is clean.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// `1234567` as `1,234,567`.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A duration as `1.4 s`.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_three() {
        let shown: Vec<String> =
            [0, 999, 1000, 65_536, 1_234_567].map(grouped).into_iter().collect();
        assert_eq!(shown, ["0", "999", "1,000", "65,536", "1,234,567"]);
    }
}
