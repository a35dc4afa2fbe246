//! Logs, to standard error.

use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

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
    /// How it is logged
    #[arg(
        long = "log-format",
        env = "OUTBOX_LOG_FORMAT",
        value_name = "FORMAT",
        default_value = "text",
        global = true
    )]
    pub format: LogFormat,
}

/// Form of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines, one object per line.
    Json,
}

/// Begins to log. Only the first call has an effect.
///
/// # Errors
/// If the filter cannot be read.
pub fn begin(args: &LogArgs) -> Result<(), String> {
    let filter = EnvFilter::builder()
        .parse(&args.filter)
        .map_err(|error| format!("OUTBOX_LOG: {:?} is not a filter: {error}", args.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let begun = match args.format {
        LogFormat::Text => {
            let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
            builder.with_ansi(ansi).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).with_target(false).try_init(),
    };
    // A second begin in one process, as in tests, keeps the first.
    drop(begun);
    Ok(())
}
