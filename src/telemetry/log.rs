//! Logs, to standard error.

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

/// Begins to log. Only the first call has an effect.
///
/// # Errors
/// Each setting that cannot be read.
pub fn begin(args: &LogArgs) -> Result<(), Vec<String>> {
    let filter = EnvFilter::builder().parse(&args.filter);
    let mut problems = Vec::new();
    if let Err(error) = &filter {
        let (given, why) = (shortened(&args.filter, 60), line(&error.to_string(), 200));
        problems.push(format!("OUTBOX_LOG: {given:?} is not a filter: {why}"));
    }
    if !matches!(args.format.as_str(), "text" | "json") {
        let given = shortened(&args.format, 60);
        problems.push(format!("OUTBOX_LOG_FORMAT: {given:?} is neither text nor json"));
    }
    let filter = match filter {
        Ok(filter) if problems.is_empty() => filter,
        _ => return Err(problems),
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
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
