//! `outbox-relay replay`: a part of the log copied into a stream of its own, which expires.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::print::{self, Progress};
use crate::config::{Problems, ServerArgs};
use crate::error::Result;
use crate::outbox::Database;
use crate::relay::operate::{Edge, Replay, Wish, check_name};
use crate::setting::duration;
use crate::stream::Server;
use crate::text::{age, counted, wrapped};

/// Times after which the copy may expire.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

#[derive(Args, Debug)]
pub(super) struct ReplayArgs {
    /// The stream, as rows of outbox.entry name it
    #[arg(long, value_name = "STREAM")]
    stream: String,
    /// From this entry: its number, or a time like 2026-11-22T19:00:00Z for the first at or after it
    #[arg(long, value_name = "N")]
    from: String,
    /// Up to this entry, or the last at or before this time; all that is sealed if not given
    #[arg(long, value_name = "N")]
    to: Option<String>,
    /// The stream to copy into: one that does not exist, and that no row names
    #[arg(long, value_name = "STREAM")]
    into: String,
    /// It expires this long after it was filled [1m to 365d]
    #[arg(long, value_name = "TIME", default_value = "7d")]
    expire: String,
    /// Say what would be copied and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Print JSON instead of a sentence
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    servers: ServerArgs,
}

/// What was copied, or would be.
#[derive(Debug, Serialize)]
struct Copied {
    stream: String,
    into: String,
    entries: u64,
    first_id: String,
    last_id: String,
    expires_in_seconds: u64,
    done: bool,
}

impl ReplayArgs {
    /// What is to be done, and where.
    ///
    /// # Errors
    /// `Usage` with every problem.
    pub(super) fn read(&self) -> Result<(Database, Server, Wish, Duration)> {
        let mut problems = Problems::default();
        let (database, server) = self.servers.read(&mut problems);
        let from = problems.keep("--from", self.from.parse::<Edge>());
        let to = self.to.as_ref().map(|to| problems.keep("--to", to.parse::<Edge>()));
        let order = match (from, to.flatten()) {
            (Some(Edge::Number(from)), Some(Edge::Number(to))) if from > to => {
                Err(format!("{to} is before --from {from}"))
            }
            (Some(Edge::Time(from)), Some(Edge::Time(to))) if from > to => {
                Err(format!("{to} is before --from {from}"))
            }
            _ => Ok(()),
        };
        problems.keep("--to", order);
        problems.keep("--into", check_name(&self.into));
        let expire = problems.keep("--expire", duration(&self.expire, SHORTEST, LONGEST));
        let wish = from.map(|from| {
            let (stream, into) = (self.stream.clone(), self.into.clone());
            Wish { stream, from, to: to.flatten(), into }
        });
        let all = (|| Some((database?, server?, wish?, expire?)))();
        problems.end(all)
    }
}

/// Exit 0 if it was copied, or could be.
pub(super) async fn run(args: ReplayArgs) -> Result<ExitCode> {
    let (database, server, wish, expire) = args.read()?;
    let mut progress = Progress::new("looking through", "entries");
    let told = |done, all| progress.tell(&wish.stream, done, all);
    let replay = Replay::look(&database, &server, &wish, told).await?;
    if !args.dry_run {
        let mut progress = Progress::new("copying into", "entries");
        replay.perform(expire, |done, all| progress.tell(&wish.into, done, all)).await?;
    }
    let copied = Copied {
        entries: replay.entries(),
        first_id: replay.first().to_string(),
        last_id: replay.last().to_string(),
        expires_in_seconds: expire.as_secs(),
        done: !args.dry_run,
        stream: wish.stream,
        into: wish.into,
    };
    match args.json {
        true => print::json(&copied)?,
        false => print::text_out(&told_of(&copied))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn told_of(copied: &Copied) -> String {
    let Copied { stream, into, first_id, last_id, .. } = copied;
    let entries = counted(copied.entries, "entry", "entries");
    let time = age(Duration::from_secs(copied.expires_in_seconds));
    let sentence = match copied.done {
        true => format!(
            "copied {entries} of stream {stream} into stream {into}, {first_id} to {last_id}; it expires in \
             {time}"
        ),
        false => format!(
            "{entries} of stream {stream} would be copied into stream {into}, {first_id} to {last_id}, to \
             expire in {time}; nothing was done"
        ),
    };
    format!("{}\n", wrapped(&sentence, 0))
}
