//! `outbox-relay rebuild`: a stream filled anew from the log, after asking.

use std::process::ExitCode;

use clap::Args;

use super::print::{self, Progress};
use crate::config::ServerArgs;
use crate::error::Result;
use crate::relay::operate::{Rebuild, Rebuilt};
use crate::text::{COLUMNS, counted, shortened};

#[derive(Args, Debug)]
pub(super) struct RebuildArgs {
    /// The stream, as rows of outbox.entry name it
    #[arg(value_name = "STREAM")]
    stream: String,
    #[command(flatten)]
    pub(super) servers: ServerArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Exit 0 if it was rebuilt, 1 if nobody consented.
pub(super) async fn run(args: RebuildArgs) -> Result<ExitCode> {
    let (database, server) = args.servers.servers()?;
    let stream = args.stream;
    let mut progress = Progress::new("looking through", "entries");
    let told = |done, all| progress.tell(&stream, done, all);
    let rebuild = Rebuild::look(&database, &server, &stream, told).await?;
    print::text_out(&found(&stream, &rebuild))?;
    let question = format!("Rebuild stream {stream} from the log?");
    if !args.yes && !print::consents(&question)? {
        print::text_out("nothing was changed; --yes consents without being asked\n")?;
        return Ok(ExitCode::FAILURE);
    }
    let mut progress = Progress::new("rebuilding", "entries");
    let rebuilt = rebuild.perform(|done, all| progress.tell(&stream, done, all)).await?;
    print::text_out(&done(&stream, rebuilt)).map(|()| ExitCode::SUCCESS)
}

fn found(stream: &str, rebuild: &Rebuild) -> String {
    if let Some(kind) = rebuild.wrong_type() {
        return format!(
            "key of stream {stream} holds a {kind}, not a stream; it will be removed\n"
        );
    }
    let count = rebuild.count();
    if count == 0 {
        return format!("the log knows every entry of stream {stream}\n");
    }
    let entries = counted(count, "entry", "entries");
    let mut text =
        format!("stream {stream} has {entries} that the log does not know, to be removed:\n");
    for stranger in rebuild.strangers() {
        let line = format!("  {:<24} {}", stranger.id, stranger.fields);
        text.push_str(&shortened(&line, COLUMNS));
        text.push('\n');
    }
    let more = count - rebuild.strangers().len() as u64;
    if more > 0 {
        text.push_str(&format!("  … and {}\n", counted(more, "more", "more")));
    }
    text
}

fn done(stream: &str, rebuilt: Rebuilt) -> String {
    let Rebuilt { entries, gone, groups, pending } = rebuilt;
    let mut text =
        format!("rebuilt stream {stream}: {} from the log", counted(entries, "entry", "entries"));
    if groups > 0 {
        let pending = counted(pending, "entry", "entries");
        let groups = counted(groups, "group", "groups");
        text.push_str(&format!("; kept {groups} with {pending} not acknowledged"));
    }
    text.push('\n');
    if gone > 0 {
        let gone = counted(gone, "sealed entry has", "sealed entries have");
        text.push_str(&format!("{gone} no row any more and could not be put back\n"));
    }
    text
}
