//! The commands: what each takes, and its exit code.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::adopt::AdoptArgs;
use self::dead::DeadArgs;
use self::demo::DemoArgs;
use self::doctor::DoctorArgs;
use self::drill::DrillArgs;
use self::hold::HoldArgs;
use self::migrate::MigrateArgs;
use self::rebuild::RebuildArgs;
use self::replay::ReplayArgs;
use self::review::ReviewArgs;
use self::status::StatusArgs;
use self::trace::TraceArgs;
use self::verify::VerifyArgs;
use crate::config::RunArgs;
use crate::error::{Error, Kind, Result};
use crate::telemetry::{self, LogArgs};

mod adopt;
mod dead;
mod demo;
mod doctor;
mod drill;
mod hold;
mod migrate;
mod print;
mod rebuild;
mod replay;
mod review;
mod run;
mod status;
mod trace;
mod verify;

/// Carries committed rows of a PostgreSQL outbox into Redis streams, and puts back what Redis loses.
///
/// Every flag of a command can be set by the environment variable named beside it.
#[derive(Parser, Debug)]
#[command(name = "outbox-relay", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    log: LogArgs,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the relay. SIGTERM drains and exits 0
    Run(Box<RunArgs>),
    /// Create or upgrade the schema, and grant rights. Safe twice and at the same time
    Migrate(MigrateArgs),
    /// Compare Redis with the log. Exit 0 equal, 1 differences, 2 could not compare
    Verify(VerifyArgs),
    /// Show what flows, what waits, who leads, and what is halted and why
    Status(StatusArgs),
    /// Find what is wrong with Postgres, Redis and the configuration. Exit 0 nothing, 1 something, 2 could
    /// not check
    Doctor(Box<DoctorArgs>),
    /// Compare all that Redis holds with a file of rules. Exit 0 nothing, 1 something, 2 could not check
    Review(Box<ReviewArgs>),
    /// Follow one event: its row, its position, its stream entry, which groups have acknowledged it
    Trace(TraceArgs),
    /// Hold one stream: its rows are sealed and wait in Postgres
    Pause(HoldArgs),
    /// Let a held stream flow again
    Resume(HoldArgs),
    /// List entries that the log does not know, then fill the stream again from the log
    Rebuild(RebuildArgs),
    /// Copy a part of the log into a stream of its own, which expires
    Replay(Box<ReplayArgs>),
    /// List events that workers have given up, ask for one more attempt, or discard them
    Dead(DeadArgs),
    /// Empty a staging Redis under the running relay, and watch it being rebuilt. Exit 0 nothing lost and
    /// every consumer back, 1 not so, 2 could not be held or watched to its end
    Drill(Box<DrillArgs>),
    /// Consent to another Postgres cluster, after a restore, a copy or an upgrade in place
    Adopt(AdoptArgs),
    /// Watch it work: private Postgres and Redis, a small shop, and Redis killed in the middle
    Demo(DemoArgs),
}

/// Exit code for a wrong command line or environment, as in sysexits.h.
const USAGE: u8 = 64;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    let logs = match cli.command {
        // What it tells is on standard output; its workers log into a file, as its relays do.
        Command::Demo(_) => cli.log.check(),
        _ => telemetry::begin(&cli.log),
    };
    if let Err(problems) = logs {
        let rest = cli.command.check().err().map(|error| error.to_string());
        let rest = rest.unwrap_or_else(|| "the configuration is wrong:".to_owned());
        let problems: String = problems.iter().map(|line| format!("\n  {line}")).collect();
        eprintln!("error: {rest}{problems}");
        return ExitCode::from(USAGE);
    }
    let cannot_check = matches!(
        cli.command,
        Command::Verify(_) | Command::Doctor(_) | Command::Drill(_) | Command::Review(_)
    );
    match dispatch(cli.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            match error.kind() {
                Kind::Usage => ExitCode::from(USAGE),
                _ if cannot_check => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

/// Prints what is wrong with the command line, or the help that was asked for.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.render().to_string();
    // A URL in a wrong place is repeated by the parser, and may hold a password.
    if text.contains("://") {
        eprint!("{}", without_passwords(&text));
    } else {
        let _ = error.print();
    }
    ExitCode::from(USAGE)
}

/// Hides what stands between `://` and an `@` after it.
fn without_passwords(text: &str) -> String {
    let mut pieces = text.split("://");
    let mut shown = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let host = piece.rfind('@').unwrap_or(0);
        shown.push_str(if host > 0 { "://***" } else { "://" });
        shown.push_str(&piece[host..]);
    }
    shown
}

impl Command {
    /// Only reads the configuration.
    fn check(&self) -> Result<()> {
        match self {
            Self::Run(args) => args.settings().map(drop),
            Self::Migrate(args) => args.database.database().map(drop),
            Self::Pause(args) | Self::Resume(args) => args.database.database().map(drop),
            Self::Dead(args) => args.check(),
            Self::Verify(VerifyArgs { servers, .. })
            | Self::Status(StatusArgs { servers, .. })
            | Self::Trace(TraceArgs { servers, .. })
            | Self::Rebuild(RebuildArgs { servers, .. })
            | Self::Adopt(AdoptArgs { servers, .. }) => servers.servers().map(drop),
            Self::Replay(args) => args.read().map(drop),
            Self::Drill(args) => args.read().map(drop),
            Self::Doctor(args) => args.read().map(drop),
            Self::Review(args) => args.read().map(drop),
            Self::Demo(_) => Ok(()),
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    // One thread: what a stage hands on needs no other thread to wake up. With two more of them a
    // backlog on 2 cores was drained at 80,000 rows a second, with this one alone at 95,000.
    let mut runtime = match command {
        // It waits for servers that it stops and starts, while its shop goes on.
        Command::Demo(_) => tokio::runtime::Builder::new_multi_thread(),
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let runtime = runtime
        .enable_all()
        .build()
        .map_err(|error| Error::caused_by(Kind::Internal, "cannot start the runtime", error))?;
    let code = match command {
        Command::Run(args) => runtime.block_on(run::run(&args)),
        Command::Migrate(args) => runtime.block_on(migrate::run(args)),
        Command::Verify(args) => runtime.block_on(verify::run(args)),
        Command::Status(args) => runtime.block_on(status::run(args)),
        Command::Doctor(args) => runtime.block_on(doctor::run(*args)),
        Command::Review(args) => runtime.block_on(review::run(*args)),
        Command::Trace(args) => runtime.block_on(trace::run(args)),
        Command::Pause(args) => runtime.block_on(hold::run_pause(args)),
        Command::Resume(args) => runtime.block_on(hold::run_resume(args)),
        Command::Rebuild(args) => runtime.block_on(rebuild::run(args)),
        Command::Replay(args) => runtime.block_on(replay::run(*args)),
        Command::Dead(args) => runtime.block_on(dead::run(args)),
        Command::Drill(args) => runtime.block_on(drill::run(*args)),
        Command::Adopt(args) => runtime.block_on(adopt::run(args)),
        Command::Demo(args) => Ok(runtime.block_on(demo::run(args))),
    };
    // Nothing is left to do that is worth waiting for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}
