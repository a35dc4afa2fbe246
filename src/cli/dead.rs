//! `outbox-relay dead`: events that workers have given up.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use uuid::Uuid;

use super::print;
use crate::config::DatabaseArgs;
use crate::error::{Error, Kind, Result};
use crate::outbox::Dead;
use crate::relay::operate::{DeadLetters, Letter, dead_letters};
use crate::text::{COLUMNS, counted, line, shortened, wrapped};

/// Those that are asked to be tried again or discarded at once.
const ALL: usize = 10_000;
/// Characters of an error in the table.
const ERROR: usize = 500;
/// Columns of a name.
const NAME: usize = 24;

#[derive(Args, Debug)]
pub(super) struct DeadArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Subcommand, Debug)]
enum Action {
    /// List them, the last given up first. Exit 0 also if there are none
    List(ListArgs),
    /// Ask workers for one more attempt. Exit 1 if there is nothing to try
    Retry(SomeArgs),
    /// Forget them for good: the work is not done. Exit 1 if nothing was forgotten
    Discard(DiscardArgs),
}

#[derive(Args, Debug)]
struct ListArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Args, Debug)]
struct WhichArgs {
    /// Of this consumer group alone
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// Of this stream alone
    #[arg(long, value_name = "STREAM")]
    stream: Option<String>,
}

#[derive(Args, Debug)]
struct SomeArgs {
    /// The event, as the list shows it
    #[arg(value_name = "EVENT_ID")]
    event: Option<Uuid>,
    /// All events, or all of a group or a stream; 10,000 at a time
    #[arg(long, conflicts_with = "event")]
    all: bool,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    database: DatabaseArgs,
}

#[derive(Args, Debug)]
struct DiscardArgs {
    #[command(flatten)]
    some: SomeArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl DeadArgs {
    /// Only reads the configuration.
    pub(super) fn check(&self) -> Result<()> {
        match &self.action {
            Action::List(args) => args.database.database().map(drop),
            Action::Retry(args) => args.check(),
            Action::Discard(args) => args.some.check(),
        }
    }
}

impl SomeArgs {
    fn check(&self) -> Result<()> {
        if self.event.is_none() && !self.all {
            let context = "name an event, or --all, with --group or --stream for a part of them";
            return Err(Error::new(Kind::Usage, context));
        }
        self.database.database().map(drop)
    }

    async fn letters(&self) -> Result<DeadLetters> {
        self.check()?;
        let wanted = Dead { event: self.event, ..self.which.read() };
        dead_letters(&self.database.database()?, &wanted, ALL).await
    }
}

impl WhichArgs {
    fn read(&self) -> Dead {
        Dead { group: self.group.clone(), stream: self.stream.clone(), event: None }
    }
}

pub(super) async fn run(args: DeadArgs) -> Result<ExitCode> {
    match args.action {
        Action::List(args) => list(&args).await,
        Action::Retry(args) => {
            let asked = args.letters().await?.retry().await?;
            let what = counted(asked, "event", "events");
            let text = match asked {
                0 => "there is nothing to try again\n".to_owned(),
                _ => format!(
                    "asked for one more attempt with {what}; a worker of the group makes it within a second \
                     or two,\nif one runs, and `outbox-relay dead list` shows those that fail again\n"
                ),
            };
            end(asked, &text)
        }
        Action::Discard(args) => discard(&args).await,
    }
}

async fn list(args: &ListArgs) -> Result<ExitCode> {
    let found = dead_letters(&args.database.database()?, &args.which.read(), args.limit).await?;
    let letters = found.letters();
    match args.json {
        true => print::json(&letters)?,
        false => print::text_out(&table(&letters, args.limit))?,
    }
    Ok(ExitCode::SUCCESS)
}

async fn discard(args: &DiscardArgs) -> Result<ExitCode> {
    let found = args.some.letters().await?;
    let count = found.letters().len() as u64;
    let what = counted(count, "event", "events");
    if count == 0 {
        return end(0, "there is nothing to discard\n");
    }
    if !args.yes && !print::consents(&format!("Forget {what} for good, with the work not done?"))? {
        return end(0, "nothing was changed; --yes consents without being asked\n");
    }
    let discarded = found.discard().await?;
    end(discarded, &format!("forgot {}\n", counted(discarded, "event", "events")))
}

fn end(done: u64, text: &str) -> Result<ExitCode> {
    print::text_out(text)?;
    Ok(if done > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn table(letters: &[Letter], limit: usize) -> String {
    if letters.is_empty() {
        return "no event was given up\n".to_owned();
    }
    let head = ("event", "group", "stream");
    let mut text = format!("{:<36}  {:<NAME$}  {:<NAME$}  attempts\n", head.0, head.1, head.2);
    for letter in letters {
        let (group, stream) = (shortened(&letter.group, NAME), shortened(&letter.stream, NAME));
        let (event, deliveries) = (&letter.event_id, letter.deliveries);
        text.push_str(&format!("{event}  {group:<NAME$}  {stream:<NAME$}  {deliveries}\n"));
        let optional = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        let (key, kind) = (optional(&letter.key), optional(&letter.kind));
        let what = format!("key {key}, type {kind}, written {}", letter.created_at);
        text.push_str(&format!("    {}\n", shortened(&line(&what, ERROR), COLUMNS - 4)));
        let why = format!("given up {}: {}", letter.died_at, line(&letter.error, ERROR));
        text.push_str(&format!("{}\n", wrapped(&why, 4)));
        if let Some(asked) = &letter.retry_at {
            text.push_str(&format!("    one more attempt was asked for {asked}\n"));
        }
    }
    if letters.len() == limit {
        text.push_str(&format!("there may be more; --limit shows more than {limit}\n"));
    }
    text
}
