//! The commands: what each takes, and its exit code.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};

use crate::config::{DatabaseArgs, RedisArgs, RunArgs, servers};
use crate::demo;
use crate::error::{Error, Kind, Result};
use crate::outbox::{Grants, migrate};
use crate::relay::verify::{Verified, verify};
use crate::relay::{self, Stopper};
use crate::telemetry::{self, LogArgs};

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
    /// Watch it work: private Postgres and Redis, a small shop, and Redis killed in the middle
    Demo(DemoArgs),
}

#[derive(Args, Debug)]
struct MigrateArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Let this role insert entries; may be repeated
    #[arg(long, value_name = "ROLE")]
    app_role: Vec<String>,
    /// Let this role run the relay; may be repeated
    #[arg(long, value_name = "ROLE")]
    relay_role: Vec<String>,
}

#[derive(Args, Debug)]
struct VerifyArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Args, Debug)]
struct DemoArgs {
    /// How long the shop is open [5 to 3600]
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// Transactions per second [1 to 2000]
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
}

/// Exit code for a wrong command line or environment, as in sysexits.h.
const USAGE: u8 = 64;

/// Runs the program.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    if let Err(problem) = telemetry::begin(&cli.log) {
        let rest = cli.command.check().err().map(|error| error.to_string());
        let rest = rest.unwrap_or_else(|| "the configuration is wrong:".to_owned());
        eprintln!("error: {rest}\n  {problem}");
        return ExitCode::from(USAGE);
    }
    let cannot_check = matches!(cli.command, Command::Verify(_));
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
            Self::Verify(args) => servers(&args.database, &args.redis).map(drop),
            Self::Demo(_) => Ok(()),
        }
    }
}

fn dispatch(command: Command) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Error::caused_by(Kind::Internal, "cannot start the runtime", error))?;
    let code = match command {
        Command::Run(args) => runtime.block_on(run(&args)),
        Command::Migrate(args) => runtime.block_on(run_migrate(args)),
        Command::Verify(args) => runtime.block_on(run_verify(args)),
        Command::Demo(args) => Ok(runtime.block_on(run_demo(args))),
    };
    // Nothing is left to do that is worth waiting for.
    runtime.shutdown_timeout(Duration::from_millis(100));
    code
}

async fn run(args: &RunArgs) -> Result<ExitCode> {
    let settings = args.settings()?;
    let (stopper, stop) = Stopper::new();
    let signals = stop_on_signals(stopper)?;
    let ran = relay::run(settings, stop).await;
    signals.abort();
    ran.map(|()| ExitCode::SUCCESS)
}

fn stop_on_signals(stopper: Stopper) -> Result<tokio::task::JoinHandle<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| {
        signal(kind).map_err(|e| Error::caused_by(Kind::Internal, "cannot listen for signals", e))
    };
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: entries in flight arrive first; a second signal stops at once");
        stopper.stop();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    }))
}

async fn run_migrate(args: MigrateArgs) -> Result<ExitCode> {
    let database = args.database.database()?;
    let grants = Grants { applications: args.app_role, relays: args.relay_role };
    let migrated = migrate(&database, &grants).await?;
    let mut out = std::io::stdout().lock();
    let name = database.name();
    let _ = match (migrated.from, migrated.to) {
        (0, to) => writeln!(out, "{name}: created the schema outbox, version {to}"),
        (from, to) if from == to => {
            writeln!(out, "{name}: the schema outbox is at version {to}, as it should be")
        }
        (from, to) => {
            writeln!(out, "{name}: upgraded the schema outbox from version {from} to {to}")
        }
    };
    for (what, roles) in
        [("insert entries", &grants.applications), ("run the relay", &grants.relays)]
    {
        for role in roles {
            let _ = writeln!(out, "{name}: role {role} may {what}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run_verify(args: VerifyArgs) -> Result<ExitCode> {
    let (database, server) = servers(&args.database, &args.redis)?;
    let mut told = Instant::now();
    let verified = verify(&database, &server, |stream, done, all| {
        if told.elapsed() >= Duration::from_secs(2) {
            told = Instant::now();
            eprintln!("comparing {stream}: {done} of {all} entries");
        }
    })
    .await?;
    let mut out = std::io::stdout().lock();
    let printed = if args.json {
        serde_json::to_writer(&mut out, &verified)
            .map_err(std::io::Error::from)
            .and_then(|()| writeln!(out))
    } else {
        print_verified(&mut out, &verified)
    };
    printed.map_err(|error| Error::caused_by(Kind::Internal, "cannot print", error))?;
    Ok(if verified.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn print_verified(out: &mut impl std::io::Write, verified: &Verified) -> std::io::Result<()> {
    writeln!(
        out,
        "{:<32} {:>11} {:>9} {:>9} {:>12} {:>9} {:>9}",
        "stream", "checked", "missing", "duplicate", "out of order", "altered", "foreign"
    )?;
    for s in &verified.streams {
        writeln!(
            out,
            "{:<32} {:>11} {:>9} {:>9} {:>12} {:>9} {:>9}",
            s.stream, s.checked, s.missing, s.duplicate, s.out_of_order, s.altered, s.foreign
        )?;
    }
    if verified.backlog > 0 {
        writeln!(
            out,
            "{} entries were sealed and not yet known to be in Redis; that is no fault",
            verified.backlog
        )?;
    }
    let checked: u64 = verified.streams.iter().map(|s| s.checked).sum();
    let streams = verified.streams.len();
    match verified.ok {
        true => writeln!(out, "equal: {checked} entries in {streams} streams"),
        false => writeln!(out, "DIFFERENT: Redis does not hold what the log says"),
    }
}

async fn run_demo(args: DemoArgs) -> ExitCode {
    match demo::run(demo::DemoOptions { seconds: args.seconds, rate: args.rate }).await {
        Ok(outcome) if outcome.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
