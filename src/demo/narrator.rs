//! Tells the story: plain lines with the seconds since it began.

use std::env;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressDrawTarget};

/// The clock of the story, and its voice.
#[derive(Clone)]
pub(super) struct Narrator {
    begun: Instant,
    live: MultiProgress,
    last_kill: Arc<Mutex<Option<Kill>>>,
}

/// What was killed, and when in the story.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kill {
    pub(super) what: &'static str,
    pub(super) at: Duration,
}

impl Narrator {
    pub(super) fn start() -> Self {
        let target = match stdout_can_be_redrawn() {
            true => ProgressDrawTarget::stdout(),
            false => ProgressDrawTarget::hidden(),
        };
        Self {
            begun: Instant::now(),
            live: MultiProgress::with_draw_target(target),
            last_kill: Arc::default(),
        }
    }

    /// One line, with the time before it.
    pub(super) fn say(&self, line: impl Display) {
        let seconds = self.now().as_secs_f64();
        self.show(format_args!("{seconds:>6.1}s  {line}"));
    }

    /// One line about a kill, which is remembered.
    pub(super) fn say_killed(&self, what: &'static str, line: impl Display) {
        let kill = Kill { what, at: self.now() };
        *self.last_kill.lock().unwrap_or_else(PoisonError::into_inner) = Some(kill);
        self.say(line);
    }

    /// Text without the time: a table, the end of a log.
    pub(super) fn show(&self, text: impl Display) {
        self.live.suspend(|| print(text));
    }

    /// The time since the story began.
    pub(super) fn now(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn last_kill(&self) -> Option<Kill> {
        *self.last_kill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a view can be drawn below the story, unless [`MultiProgress::is_hidden`].
    pub(super) fn live(&self) -> &MultiProgress {
        &self.live
    }
}

/// Whether lines on standard output can be drawn again, and the user does not mind.
fn stdout_can_be_redrawn() -> bool {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty());
    let is_dumb = set("TERM").is_none_or(|term| term == "dumb");
    std::io::stdout().is_terminal() && set("NO_COLOR").is_none() && !is_dumb
}

fn print(text: impl Display) {
    let mut out = std::io::stdout().lock();
    // A reader that went away (`demo | head`) is no reason to stop before everything is clean.
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// A duration as `1.4 s`.
pub(super) fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
