//! `outbox-relay pause` and `outbox-relay resume`: one stream held, and let go.

use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::config::DatabaseArgs;
use crate::error::Result;
use crate::relay::operate::{pause, resume};

#[derive(Args, Debug)]
pub(super) struct HoldArgs {
    /// The stream, as rows of outbox.entry name it
    #[arg(value_name = "STREAM")]
    stream: String,
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
}

pub(super) async fn run_pause(args: HoldArgs) -> Result<ExitCode> {
    let (database, stream) = (args.database.database()?, args.stream);
    let text = match pause(&database, &stream, &somebody()).await? {
        true => format!(
            "stream {stream} is paused: the relay holds it within a second, its rows are sealed and wait \
             in\nPostgres; `outbox-relay resume {stream}` lets it flow again\n"
        ),
        false => format!(
            "stream {stream} was paused already; `outbox-relay resume {stream}` lets it flow again\n"
        ),
    };
    print::text_out(&text).map(|()| ExitCode::SUCCESS)
}

pub(super) async fn run_resume(args: HoldArgs) -> Result<ExitCode> {
    let (database, stream) = (args.database.database()?, args.stream);
    let text = match resume(&database, &stream).await? {
        true => format!("stream {stream} flows again: the relay goes on within a second\n"),
        false => format!("stream {stream} was not paused\n"),
    };
    print::text_out(&text).map(|()| ExitCode::SUCCESS)
}

/// User and host, for whoever finds the stream paused.
fn somebody() -> String {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok());
    let user = user.filter(|user| !user.is_empty());
    let user = user.unwrap_or_else(|| format!("user {}", rustix::process::getuid().as_raw()));
    format!("{user} on {}", rustix::system::uname().nodename().to_string_lossy())
}
