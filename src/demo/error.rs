//! What ends the demo early.

use std::error::Error;
use std::fmt;
use std::io;

/// Why the demo could not be played to its end.
#[derive(Debug)]
pub enum DemoError {
    /// Ctrl-C, SIGTERM or SIGHUP. Everything has been stopped and removed.
    Interrupted,
    /// A server, file or child process of the demo could not be started, used or stopped.
    Failed {
        /// What was being done, as in "cannot …".
        step: String,
        /// The cause, and what to do where that is known.
        cause: String,
    },
    /// The relay failed, or did not do something in time.
    Relay {
        /// What it did, or did not do.
        what: String,
        /// The end of its log.
        log: String,
    },
}

impl DemoError {
    /// The exit code for this error: 130 after an interruption, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Interrupted => 130,
            Self::Failed { .. } | Self::Relay { .. } => 1,
        }
    }

    /// The demo could not do `step`, because of `cause`.
    pub(super) fn failed(step: impl Into<String>, cause: &(dyn Error + 'static)) -> Self {
        Self::Failed { step: step.into(), cause: chain(cause) }
    }

    /// For `map_err`: an I/O error while doing `step`.
    pub(super) fn io(step: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |cause| Self::failed(step, &cause)
    }

    /// For `map_err`: a Postgres error while doing `step`.
    pub(super) fn postgres(step: impl Into<String>) -> impl FnOnce(tokio_postgres::Error) -> Self {
        move |cause| Self::failed(step, &cause)
    }

    /// For `map_err`: a Redis error while doing `step`.
    pub(super) fn redis(step: impl Into<String>) -> impl FnOnce(redis::RedisError) -> Self {
        move |cause| Self::failed(step, &cause)
    }
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Interrupted => f.write_str("interrupted; everything is stopped and removed"),
            Self::Failed { step, cause } => write!(f, "{step}: {cause}"),
            Self::Relay { what, log } if log.is_empty() => write!(f, "{what}; its log is empty"),
            Self::Relay { what, log } => write!(f, "{what}; its log ends with\n{log}"),
        }
    }
}

impl Error for DemoError {}

/// The error and all its causes in one line; tokio-postgres says only "db error" by itself.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
