//! `outbox-relay trace`: one event, from its row to its groups.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use uuid::Uuid;

use super::print::{self, Progress};
use crate::config::ServerArgs;
use crate::error::Result;
use crate::relay::operate::{GroupTrace, Trace, TracedEntry, trace};
use crate::text::{age, counted};

#[derive(Args, Debug)]
pub(super) struct TraceArgs {
    /// The event: column event_id of outbox.entry, field id in Redis
    #[arg(value_name = "EVENT_ID")]
    event_id: Uuid,
    #[command(flatten)]
    pub(super) servers: ServerArgs,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Exit 0 if there is such an event, 1 if not.
pub(super) async fn run(args: TraceArgs) -> Result<ExitCode> {
    let (database, server) = args.servers.servers()?;
    let mut progress = Progress::new("looking for", "rows");
    let so_far = |done: i64, all: i64| {
        progress.tell("the event", done.unsigned_abs(), all.unsigned_abs());
    };
    let traced = trace(&database, &server, args.event_id, so_far).await?;
    match args.json {
        true => print::json(&traced)?,
        false => print::text_out(&told(&traced))?,
    }
    Ok(if traced.entries.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn told(traced: &Trace) -> String {
    if traced.entries.is_empty() {
        return format!(
            "no committed row has event_id {}: it was never written, was rolled back, or has been removed\n",
            traced.event_id
        );
    }
    let mut text = String::new();
    if traced.entries.len() > 1 {
        let rows = traced.entries.len();
        text.push_str(&format!(
            "{rows} rows have this event_id; each is one entry of its stream\n\n"
        ));
    }
    for entry in &traced.entries {
        text.push_str(&entry_told(entry, traced.redis_answers));
    }
    text
}

fn entry_told(entry: &TracedEntry, redis_answers: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: String| text.push_str(&format!("{name:<10}{value}\n"));
    line("row", format!("id {} of outbox.entry, inserted {}", entry.id, entry.created_at));
    let optional = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let (key, kind) = (optional(&entry.key), optional(&entry.kind));
    line("stream", format!("{}, key {key}, type {kind}", entry.stream));
    let state = match (&entry.entry_id, &entry.dispatched_at) {
        (Some(id), Some(at)) => format!("dispatched as {id}, known to be in Redis since {at}"),
        (Some(id), None) => format!("sealed as {id}, not known to be in Redis yet"),
        _ => "pending: committed, and not sealed yet".to_owned(),
    };
    line("state", state);
    let in_redis = match (entry.in_redis, redis_answers) {
        (Some(true), _) => "the entry is there",
        (Some(false), _) if entry.trimmed => {
            "the entry was trimmed: every group had acknowledged it"
        }
        (Some(false), _) => "the entry is not there",
        (None, true) => "the entry cannot be there yet",
        (None, false) => "does not answer",
    };
    line("Redis", in_redis.to_owned());
    match entry.groups.is_empty() {
        true if entry.in_redis == Some(true) => line("groups", "none reads this stream".to_owned()),
        _ => entry.groups.iter().for_each(|group| line("group", group_told(group))),
    }
    text.push('\n');
    text
}

fn group_told(group: &GroupTrace) -> String {
    let name = &group.group;
    match (group.state, &group.consumer) {
        ("pending", Some(consumer)) => {
            let times = counted(group.deliveries.unwrap_or_default(), "time", "times");
            let idle = age(Duration::from_secs_f64(group.idle_seconds.unwrap_or_default()));
            format!("{name}: given to {consumer} {times}, last {idle} ago, not acknowledged")
        }
        ("acknowledged", _) => format!("{name}: acknowledged"),
        ("unknown", _) => format!("{name}: has more pending entries than can be listed"),
        _ => format!("{name}: not given to it yet"),
    }
}
