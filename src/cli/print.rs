//! What commands print: JSON for machines, progress for people who wait.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
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

/// Asks a question that is answered with yes or no; nobody at a terminal is a no.
pub(super) fn consents(question: &str) -> Result<bool> {
    if !std::io::stdin().is_terminal() {
        return Ok(false);
    }
    text_out(&format!("{question} [y/N] "))?;
    let mut answer = String::new();
    let read = std::io::stdin().lock().read_line(&mut answer);
    Ok(read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Tells on standard error how far long work is, every two seconds.
pub(super) struct Progress {
    doing: &'static str,
    of: &'static str,
    told: Instant,
}

impl Progress {
    /// Of work called `doing`, counted in `of`.
    pub(super) fn new(doing: &'static str, of: &'static str) -> Self {
        Self { doing, of, told: Instant::now() }
    }

    /// So much of `what` is done.
    pub(super) fn tell(&mut self, what: &str, done: u64, all: u64) {
        if self.told.elapsed() >= Duration::from_secs(2) {
            self.told = Instant::now();
            let (done, all) = (grouped(done), grouped(all));
            eprintln!("{} {what}: {done} of {all} {}", self.doing, self.of);
        }
    }
}
