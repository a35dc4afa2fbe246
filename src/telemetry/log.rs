//! Logs, to standard error.

use clap::Args;
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
        problems.push(format!("OUTBOX_LOG: {:?} is not a filter: {error}", args.filter));
    }
    if !matches!(args.format.as_str(), "text" | "json") {
        problems.push(format!("OUTBOX_LOG_FORMAT: {:?} is neither text nor json", args.format));
    }
    let filter = match filter {
        Ok(filter) if problems.is_empty() => filter,
        _ => return Err(problems),
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
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
