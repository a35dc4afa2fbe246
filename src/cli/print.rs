//! What commands print: JSON for machines, progress for people who wait.

use std::io::Write as _;
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Error, Kind, Result};
use crate::text::grouped;

/// Prints a value as one line of JSON.
pub(super) fn json(value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value)
        .map_err(|error| Error::caused_by(Kind::Internal, "cannot print JSON", error))?;
    text_out(&format!("{text}\n"))
}

/// Prints text to standard output.
pub(super) fn text_out(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|error| Error::caused_by(Kind::Internal, "cannot print", error))
}

/// Tells on standard error how far long work is, every two seconds.
pub(super) fn progress(what: String, of: &'static str) -> impl FnMut(u64, u64) {
    let mut told = Instant::now();
    move |done, all| {
        if told.elapsed() >= Duration::from_secs(2) {
            told = Instant::now();
            eprintln!("{what}: {} of {} {of}", grouped(done), grouped(all));
        }
    }
}
