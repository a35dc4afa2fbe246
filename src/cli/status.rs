//! `outbox-relay status`: what flows, what waits and why, on one screen.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::print;
use crate::config::ServerArgs;
use crate::error::Result;
use crate::relay::operate::{GroupLine, ServerStatus, Status, StreamLine, status};
use crate::text::{age, counted, grouped, shortened, wrapped};

/// Streams with nothing to say that are shown without being asked for.
const IDLE: usize = 20;
const NAME: usize = 36;
/// Groups shown per stream, those with the most to do.
const GROUPS: usize = 3;

#[derive(Args, Debug)]
pub(super) struct StatusArgs {
    #[command(flatten)]
    pub(super) servers: ServerArgs,
    /// Show every stream, also those that are active and have nothing waiting
    #[arg(long)]
    all: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Exit 0 if both servers could be asked, whatever they said; 1 if not.
pub(super) async fn run(args: StatusArgs) -> Result<ExitCode> {
    let (database, server) = args.servers.servers()?;
    let status = status(&database, &server).await;
    match args.json {
        true => print::json(&status)?,
        false => print::text_out(&table(&status, args.all))?,
    }
    Ok(match status.postgres.problem.is_none() && status.redis.problem.is_none() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    })
}

fn table(status: &Status, all: bool) -> String {
    let mut text = String::new();
    text.push_str(&server("Postgres", &status.postgres));
    text.push_str(&server("Redis", &status.redis));
    if status.postgres.problem.is_none() {
        text.push_str(&format!("{:<10}{}\n", "Leader", leader(status)));
        text.push_str(&format!("{:<10}{}\n", "Waiting", waiting(status)));
        if status.dead_letters > 0 {
            let events = counted(status.dead_letters, "event", "events");
            let told =
                format!("{events} that workers gave up; `outbox-relay dead list` shows them");
            text.push_str(&format!("{:<10}{told}\n", "Dead"));
        }
        text.push('\n');
        text.push_str(&streams(&status.streams, all));
    }
    if !status.problems.is_empty() {
        text.push('\n');
    }
    for problem in &status.problems {
        text.push_str(&format!("! {}\n", wrapped(problem, 2).trim_start()));
    }
    text
}

fn server(name: &str, server: &ServerStatus) -> String {
    let answer = match (server.answers, &server.problem) {
        (true, None) => "answers",
        (true, Some(_)) => "CANNOT BE USED",
        (false, _) => "DOES NOT ANSWER",
    };
    format!("{name:<10}{:<50}  {answer}\n", server.address)
}

fn leader(status: &Status) -> String {
    match &status.leader {
        Some(leader) if leader.holds => format!("{}, since {}", leader.holder, leader.since),
        Some(leader) => format!("NONE; the last was {}", leader.holder),
        None => "NONE".to_owned(),
    }
}

fn waiting(status: &Status) -> String {
    let rows = counted(status.undispatched, "row", "rows");
    match status.oldest_undispatched_age_seconds {
        Some(oldest) => format!("{rows}, the oldest for {}", age(Duration::from_secs_f64(oldest))),
        None => "nothing: every committed row is in Redis".to_owned(),
    }
}

fn streams(lines: &[StreamLine], all: bool) -> String {
    if lines.is_empty() {
        return "no stream yet: no row has been written to outbox.entry\n".to_owned();
    }
    let calm = |line: &&StreamLine| line.state == "active" && line.undispatched == 0;
    let (idle, busy): (Vec<&StreamLine>, Vec<&StreamLine>) = lines.iter().partition(calm);
    let hidden = if all { 0 } else { idle.len().saturating_sub(IDLE) };
    let mut text = format!(
        "{:<NAME$} {:>13} {:>13} {:>10} {:>10}  {}\n",
        "stream", "sealed", "dispatched", "waiting", "oldest", "state"
    );
    for line in busy.iter().chain(&idle[..idle.len() - hidden]) {
        text.push_str(&stream(line));
    }
    let purged: u64 = lines.iter().map(|line| line.purged).sum();
    if purged > 0 {
        text.push_str(&format!(
            "purged: {} that every group had acknowledged, older than the retention\n",
            counted(purged, "entry", "entries")
        ));
    }
    if hidden > 0 {
        let hidden = counted(hidden as u64, "more stream is", "more streams are");
        text.push_str(&format!("{hidden} active with nothing waiting; --all shows them\n"));
    }
    text
}

fn stream(line: &StreamLine) -> String {
    let oldest = line.oldest_undispatched_age_seconds;
    let oldest = oldest.map_or("-".to_owned(), |oldest| age(Duration::from_secs_f64(oldest)));
    let mut text = format!(
        "{:<NAME$} {:>13} {:>13} {:>10} {oldest:>10}  {}\n",
        shortened(&line.stream, NAME),
        grouped(line.sealed),
        grouped(line.dispatched),
        grouped(line.undispatched),
        line.state,
    );
    if let Some(reason) = &line.reason {
        text.push_str(&format!("{}\n", wrapped(reason, 4)));
    }
    let mut lagging: Vec<&GroupLine> = line.groups.iter().filter(|group| group.lag > 0).collect();
    lagging.sort_by_key(|group| std::cmp::Reverse(group.lag));
    for group in lagging.iter().take(GROUPS) {
        text.push_str(&self::group(group));
    }
    if lagging.len() > GROUPS {
        let more = counted((lagging.len() - GROUPS) as u64, "more group", "more groups");
        text.push_str(&format!("    {more} with entries to acknowledge; --json shows them\n"));
    }
    text
}

fn group(group: &GroupLine) -> String {
    let asked = match group.idle_seconds {
        Some(idle) => format!("asked {} ago", age(Duration::from_secs_f64(idle))),
        None => "has no consumer".to_owned(),
    };
    let name = shortened(&group.group, NAME);
    let (lag, pending) = (grouped(group.lag), grouped(group.pending));
    format!("    group {name}: {lag} to acknowledge, of these {pending} given to it; {asked}\n")
}
