//! `outbox-relay drill`: Redis emptied on purpose, and the rebuild watched.

use std::cell::Cell;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::print;
use crate::config::{Problems, ServerArgs};
use crate::error::{Error, Kind, Result};
use crate::outbox::Database;
use crate::relay::operate::{ConsumerDrilled, Drill, Drilled, GroupDrilled, StreamDrilled};
use crate::setting::duration;
use crate::stream::Server;
use crate::text::{age, counted, grouped, shortened, wrapped};

/// Times that everything may take to come back.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3_600);
const NAME: usize = 32;

#[derive(Args, Debug)]
pub(super) struct DrillArgs {
    /// The same Redis again, to be sure: host:port as REDIS_URL has them, all nodes of a cluster with commas
    /// between, or NAME@host:port,… behind sentinels
    #[arg(long, value_name = "REDIS")]
    empty: Option<String>,
    /// Watch for this long at most; consumers that had asked within that time before are waited for
    /// [1s to 1h]
    #[arg(long, value_name = "TIME", default_value = "5m")]
    within: String,
    /// Also remove keys that are no stream of the outbox, which nobody puts back
    #[arg(long)]
    others_too: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    servers: ServerArgs,
}

impl DrillArgs {
    /// Where it is held, and for how long.
    ///
    /// # Errors
    /// `Usage` with every problem.
    pub(super) fn read(&self) -> Result<(Database, Server, Duration)> {
        let mut problems = Problems::default();
        let (database, server) = self.servers.read(&mut problems);
        let within = problems.keep("--within", duration(&self.within, SHORTEST, LONGEST));
        if let Some(server) = &server {
            problems.keep("--empty", named_twice(server, self.empty.as_deref()));
        }
        problems.end((|| Some((database?, server?, within?)))())
    }
}

fn named_twice(server: &Server, given: Option<&str>) -> Result<(), String> {
    let word = server.word();
    let consent = format!(
        "a drill removes everything in the Redis of REDIS_URL; to consent, give --empty {word}"
    );
    match given {
        Some(given) if given.replace(", ", ",").trim() == word => Ok(()),
        Some(_) => Err(format!("names another Redis; {consent}")),
        None => Err(format!("is not given; {consent}")),
    }
}

/// Exit 0 if nothing was lost and every consumer that was at work is back, 1 if not; 2 for what cannot be
/// said.
pub(super) async fn run(args: DrillArgs) -> Result<ExitCode> {
    use tokio::signal::unix::{SignalKind, signal};
    let (database, server, within) = args.read()?;
    let tell = |told: &str| eprintln!("{told}");
    let drill = Drill::look(&database, &server, args.others_too, tell).await?;
    let listen = |kind| {
        signal(kind).map_err(|e| Error::caused_by(Kind::Internal, "cannot listen for signals", e))
    };
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    eprintln!("emptying Redis at {}", server.name());
    let emptied = Cell::new(false);
    let held = async {
        let watch = drill.empty(within).await?;
        emptied.set(true);
        watch.run(tell).await
    };
    let drilled = tokio::select! {
        drilled = held => drilled?,
        _ = terminate.recv() => return Err(left(&server, emptied.get())),
        _ = interrupt.recv() => return Err(left(&server, emptied.get())),
    };
    match args.json {
        true => print::json(&drilled)?,
        false => print::text_out(&table(&drilled))?,
    }
    Ok(if drilled.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn left(server: &Server, emptied: bool) -> Error {
    let when = match emptied {
        true => "after Redis was emptied",
        false => "when Redis may have been emptied, all of it or a part, or nothing",
    };
    let context = format!(
        "stopped by a signal {when}, at {}; the relay puts everything back by itself, and \
         `outbox-relay status` says how far it is",
        server.name()
    );
    Error::new(Kind::Unavailable, context)
}

fn table(drilled: &Drilled) -> String {
    let mut text = String::new();
    let mut line = |what: &str, seconds: Option<f64>| {
        let time = seconds.map_or("-".to_owned(), |seconds| format!("after {}", shown(seconds)));
        text.push_str(&format!("{what:<17}{time}\n"));
    };
    line("Noticed", drilled.seconds_to_notice);
    line("Rebuilt", drilled.seconds_to_rebuild);
    line("Acknowledging", drilled.seconds_to_first_acknowledgement);
    text.push_str(&format!(
        "\n{:<NAME$} {:>11} {:>11} {:>9} {:>9} {:>11} {:>9}\n",
        "stream", "before", "after", "missing", "different", "given again", "rebuilt"
    ));
    drilled.streams.iter().for_each(|stream| text.push_str(&self::stream(stream)));
    if drilled.other_keys_removed > 0 {
        let keys = counted(drilled.other_keys_removed, "other key", "other keys");
        text.push_str(&format!("{keys} removed as well; nobody puts them back\n"));
    }
    text.push_str(&wrapped(&verdict(drilled), 0));
    text.push('\n');
    text
}

fn stream(stream: &StreamDrilled) -> String {
    let again: u64 = stream.groups.iter().filter_map(|group| group.delivered_again).sum();
    let mut text = format!(
        "{:<NAME$} {:>11} {:>11} {:>9} {:>9} {:>11} {:>9}\n",
        shortened(&stream.stream, NAME),
        grouped(stream.entries_before),
        grouped(stream.entries_after),
        grouped(stream.missing),
        grouped(stream.different),
        grouped(again),
        stream.seconds_to_rebuild.map_or("-".to_owned(), shown),
    );
    stream.groups.iter().for_each(|group| text.push_str(&self::group(group)));
    text
}

fn group(group: &GroupDrilled) -> String {
    let name = shortened(&group.group, NAME);
    let back = group.consumers.iter().filter_map(|one| one.back_after_seconds);
    let (count, last) = (back.clone().count() as u64, back.max_by(f64::total_cmp));
    let consumers = match last {
        Some(last) => {
            let consumers = counted(count, "consumer", "consumers");
            format!("{consumers} back, the last after {}", shown(last))
        }
        None => "no consumer came back".to_owned(),
    };
    let mut text = format!("    group {name}: {consumers}\n");
    if !group.back {
        let gone = match group.stored {
            true => format!(
                "! group {name} is not there, or before where the relay had put it: somebody has removed \
                 or moved it"
            ),
            false => format!(
                "! group {name} was never stored, for it was made after the last checkpoint: it is not \
                 there, or begins where somebody has made it anew"
            ),
        };
        text.push_str(&format!("{}\n", wrapped(&gone, 4)));
    }
    for one in group.consumers.iter().filter(|one| one.back_after_seconds.is_none()) {
        text.push_str(&consumer(one));
    }
    text
}

fn consumer(consumer: &ConsumerDrilled) -> String {
    let (name, idle) = (shortened(&consumer.consumer, NAME), shown(consumer.idle_seconds_before));
    match consumer.stumbled {
        true => format!(
            "    ! consumer {name} has stumbled: it had asked {idle} before, and did not ask again\n"
        ),
        false => format!("    consumer {name} was asleep: it had asked {idle} before\n"),
    }
}

fn verdict(drilled: &Drilled) -> String {
    let streams = drilled.streams.iter();
    let (lost, different) = streams
        .clone()
        .fold((0, 0), |(lost, other), stream| (lost + stream.missing, other + stream.different));
    let groups = || streams.clone().flat_map(|stream| &stream.groups);
    let gone = groups().filter(|group| !group.back).count() as u64;
    let consumers = groups().flat_map(|group| &group.consumers);
    let stumbled = consumers.filter(|consumer| consumer.stumbled).count() as u64;
    let mut wrong = Vec::new();
    if lost + different > 0 {
        wrong.push(format!(
            "LOST: {} missing and {} different; `outbox-relay verify` shows them",
            counted(lost, "entry is", "entries are"),
            grouped(different)
        ));
    }
    if gone > 0 {
        wrong.push(format!("GONE: {}", counted(gone, "consumer group", "consumer groups")));
    }
    if stumbled > 0 {
        wrong.push(format!(
            "STUMBLED: {}; look at what they do after an error of XREADGROUP",
            counted(stumbled, "consumer", "consumers")
        ));
    }
    let Drilled { redis, .. } = drilled;
    let before: u64 = streams.map(|stream| stream.entries_before).sum();
    match wrong.is_empty() && drilled.ok {
        true if before == 0 => format!(
            "nothing could be lost, for no entry was in Redis at {redis}; hold a drill while writers write"
        ),
        true => format!(
            "nothing was lost in Redis at {redis}, and every consumer that was at work is \
                         back"
        ),
        false if wrong.is_empty() => "LOST: `outbox-relay verify` says what".to_owned(),
        false => wrong.join("; "),
    }
}

fn shown(seconds: f64) -> String {
    age(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redis_is_named_twice_or_not_at_all() {
        let server = Server::from_url("redis://u:secret@cache-1:6379/0", "").expect("a URL");
        assert_eq!(named_twice(&server, Some("cache-1:6379")), Ok(()));
        for given in [None, Some("cache-1"), Some("cache-2:6379"), Some("")] {
            let told = named_twice(&server, given).expect_err("it is another one");
            assert!(told.contains("give --empty cache-1:6379"), "{told}");
            assert!(!told.contains("secret"), "{told}");
        }
        let url = "redis+cluster://u:secret@a:1,b:2";
        let cluster = Server::from_url(url, "").expect("a URL");
        assert_eq!(named_twice(&cluster, Some("a:1, b:2")), Ok(()));
        assert_eq!(named_twice(&cluster, Some("a:1,b:2")), Ok(()));
        assert!(named_twice(&cluster, Some("a:1")).is_err());
        let url = "redis+sentinel://u:secret@a,b:1/mymaster/0";
        let sentinels = Server::from_url(url, "").expect("a URL");
        assert_eq!(named_twice(&sentinels, Some("mymaster@a:26379,b:1")), Ok(()));
        let told = named_twice(&sentinels, Some("mymaster")).expect_err("it is so everywhere");
        assert!(told.contains("give --empty mymaster@a:26379,b:1"), "{told}");
    }
}
