//! Logs, to standard error.

use std::fs::File;
use std::sync::Mutex;

use clap::Args;
use tracing_subscriber::EnvFilter;

use crate::text::{line, shortened};

/// How to log.
#[derive(Args, Clone, Debug)]
pub struct LogArgs {
    /// What is logged: error, warn, info, debug, or a filter like outbox_relay=debug
    #[arg(
        long = "log",
        env = "OUTBOX_LOG",
        value_name = "FILTER",
        default_value = "info",
        global = true
    )]
    pub filter: String,
    /// How it is logged: text or json
    ///
    /// Text is for people; json has one object per line, for machines.
    #[arg(
        long = "log-format",
        env = "OUTBOX_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    pub format: String,
}

/// Begins to log, on standard error. Only the first call has an effect.
///
/// # Errors
/// Each setting that cannot be read.
pub fn begin(args: &LogArgs) -> Result<(), Vec<String>> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(args.read()?)
        .with_writer(std::io::stderr)
        // It would complain on the same standard error, and panic where that has no room either.
        .log_internal_errors(false);
    let begun = match args.format.as_str() {
        "text" => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(ansi).with_target(false).try_init()
        }
        _ => builder.json().flatten_event(true).with_target(false).try_init(),
    };
    // A second begin in one process, as in tests, keeps the first.
    drop(begun);
    Ok(())
}

/// Begins to log into a file, as text. Only the first call of this or of [`begin`] has an effect.
pub fn begin_in(file: File) {
    let builder = tracing_subscriber::fmt().with_writer(Mutex::new(file)).with_ansi(false);
    drop(builder.log_internal_errors(false).with_target(false).try_init());
}

impl LogArgs {
    /// Only reads the settings.
    ///
    /// # Errors
    /// As [`begin`].
    pub fn check(&self) -> Result<(), Vec<String>> {
        self.read().map(drop)
    }

    fn read(&self) -> Result<EnvFilter, Vec<String>> {
        let filter = EnvFilter::builder().parse(&self.filter);
        let mut problems = Vec::new();
        if let Err(error) = &filter {
            let (given, why) = (shortened(&self.filter, 60), line(&error.to_string(), 200));
            problems.push(format!("OUTBOX_LOG: {given:?} is not a filter: {why}"));
        }
        if !matches!(self.format.as_str(), "text" | "json") {
            let given = shortened(&self.format, 60);
            problems.push(format!("OUTBOX_LOG_FORMAT: {given:?} is neither text nor json"));
        }
        match filter {
            Ok(filter) if problems.is_empty() => Ok(filter),
            _ => Err(problems),
        }
    }
}
