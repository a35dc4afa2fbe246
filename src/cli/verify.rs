//! `outbox-relay verify`: Redis compared with the log.

use std::process::ExitCode;

use clap::Args;

use super::print::{self, Progress};
use crate::config::ServerArgs;
use crate::error::Result;
use crate::relay::operate::{Verified, verify};
use crate::text::{counted, grouped, shortened};

const NAME: usize = 32;

#[derive(Args, Debug)]
pub(super) struct VerifyArgs {
    #[command(flatten)]
    pub(super) servers: ServerArgs,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: VerifyArgs) -> Result<ExitCode> {
    let (database, server) = args.servers.servers()?;
    let mut progress = Progress::new("comparing", "entries");
    let told = |stream: &str, done, all| progress.tell(stream, done, all);
    let verified = verify(&database, &server, told).await?;
    match args.json {
        true => print::json(&verified)?,
        false => print::text_out(&table(&verified))?,
    }
    Ok(if verified.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(verified: &Verified) -> String {
    let mut text = format!(
        "{:<NAME$} {:>11} {:>9} {:>9} {:>12} {:>9} {:>9}\n",
        "stream", "checked", "missing", "duplicate", "out of order", "altered", "foreign"
    );
    for s in &verified.streams {
        text.push_str(&format!(
            "{:<NAME$} {:>11} {:>9} {:>9} {:>12} {:>9} {:>9}\n",
            shortened(&s.stream, NAME),
            grouped(s.checked),
            grouped(s.missing),
            grouped(s.duplicate),
            grouped(s.out_of_order),
            grouped(s.altered),
            grouped(s.foreign),
        ));
    }
    if verified.backlog > 0 {
        let sealed = counted(verified.backlog, "entry was", "entries were");
        text.push_str(&format!(
            "{sealed} sealed and not yet known to be in Redis; that is no fault\n"
        ));
    }
    let trimmed: u64 = verified.streams.iter().map(|s| s.trimmed).sum();
    if trimmed > 0 {
        let entries = counted(trimmed, "entry is", "entries are");
        text.push_str(&format!(
            "{entries} no longer in Redis, for every group has acknowledged them; that is no fault\n"
        ));
    }
    let checked = counted(verified.streams.iter().map(|s| s.checked).sum(), "entry", "entries");
    let streams = counted(verified.streams.len() as u64, "stream", "streams");
    text.push_str(&match verified.ok {
        true => format!("equal: {checked} in {streams}\n"),
        false => {
            "DIFFERENT: Redis does not hold what the log says; the relay puts back what is missing \
                  at its end,\n`outbox-relay rebuild STREAM` mends the rest\n"
                .to_owned()
        }
    });
    text
}
