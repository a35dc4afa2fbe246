//! `outbox-relay verify`: Redis compared with the log.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;

use crate::config::{DatabaseArgs, RedisArgs, servers};
use crate::error::{Error, Kind, Result};
use crate::relay::operate::{Verified, verify};

#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    #[command(flatten)]
    redis: RedisArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl VerifyArgs {
    pub(super) fn check(&self) -> Result<()> {
        servers(&self.database, &self.redis).map(drop)
    }
}

pub(super) async fn run(args: VerifyArgs) -> Result<ExitCode> {
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
