//! The door of flags and variables: each line of an input is a setting, `OUTBOX_LEASE=10s`.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Command;
use std::time::Duration;

use clap::Parser;
use outbox_relay::config::RunArgs;
use outbox_relay::error::Kind;
use outbox_relay::relay::Settings;

use super::door::Door;
use crate::support::command::to_the_end;
use crate::support::relay::program;

const URLS: [(&str, &str); 2] =
    [("DATABASE_URL", "postgres://u@127.0.0.1:1/d"), ("REDIS_URL", "redis://127.0.0.1:1/0")];
/// A line of what is wrong: the setting, its value cut to what a person reads, the bound.
const LONGEST_LINE: usize = 500;
const MS: Duration = Duration::from_millis(1);

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    run: RunArgs,
}

/// Names and values of an input.
fn settings(bytes: &[u8]) -> Vec<(String, Vec<u8>)> {
    let lines = bytes.split(|byte| *byte == b'\n');
    let pairs = lines.filter_map(|line| {
        let at = line.iter().position(|byte| *byte == b'=')?;
        let name = std::str::from_utf8(&line[..at]).ok()?;
        let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_uppercase() || b == b'_');
        is_name.then(|| (name.to_owned(), line[at + 1..].to_vec()))
    });
    pairs.collect()
}

/// As the library reads them, from flags.
fn read(settings: &[(String, Vec<u8>)]) -> Option<outbox_relay::error::Result<Settings>> {
    let given = settings.iter().filter(|(name, _)| name.starts_with("OUTBOX_"));
    let mut words = vec![OsString::from("outbox-relay")];
    for (name, value) in URLS {
        words.push(format!("--{}={value}", name.to_lowercase().replace('_', "-")).into());
    }
    for (name, value) in given {
        let mut word = format!("--{}=", name[7..].to_lowercase().replace('_', "-")).into_bytes();
        word.extend(value);
        words.push(OsString::from_vec(word));
    }
    // What the parser itself refuses, it does not hand on.
    Line::try_parse_from(words).ok().map(|line| line.run.settings())
}

fn within(settings: &Settings) -> bool {
    let times = [
        (settings.lease, 1_000 * MS, 600_000 * MS),
        (settings.audit, 100 * MS, 600_000 * MS),
        (settings.checkpoint, 100 * MS, 60_000 * MS),
        (settings.retention, 1_000 * MS, Duration::from_secs(3_650 * 86_400)),
        (settings.poll, 10 * MS, 1_000 * MS),
        (settings.drain, Duration::ZERO, 600_000 * MS),
        (settings.start, Duration::ZERO, 3_600_000 * MS),
    ];
    times.iter().all(|(time, least, most)| time >= least && time <= most)
        && (1..=1_000_000_000).contains(&settings.limits.entries)
        && (64 << 10..=1 << 40).contains(&settings.limits.bytes)
        && (1..=20_000).contains(&settings.bounds.rows)
        && (64 << 10..=4 << 20).contains(&settings.bounds.bytes)
        && settings.metric_streams <= 10_000
        && settings.server.prefix().len() <= 128
        && settings.server.prefix().chars().all(|c| c.is_ascii_graphic())
}

/// What people are told is one line per setting, short, and no control of their terminal.
#[track_caller]
fn tells_plainly(text: &str) {
    for line in text.lines() {
        assert!(line.len() <= LONGEST_LINE, "a line of {} bytes: {line}", line.len());
        assert!(!line.chars().any(char::is_control), "a control character: {line:?}");
    }
}

#[test]
fn settings_are_within_their_bounds_or_refused_by_name() {
    let mut door = Door::open("settings");
    while let Some(input) = door.next() {
        let given = settings(&input.bytes);
        match read(&given) {
            None => {}
            Some(Ok(settings)) => assert!(within(&settings), "{settings:?}"),
            Some(Err(error)) => {
                assert_eq!(error.kind(), Kind::Usage);
                let text = error.to_string();
                tells_plainly(&text);
                let lines = text.lines().skip(1);
                lines.for_each(|line| assert!(line.starts_with("  OUTBOX_"), "{line}"));
            }
        }
        if !input.is_mutated || door.dice().one_in(100) {
            runs(&given);
        }
    }
}

/// As the program reads them, from variables: nobody listens on the ports of the URLs.
fn runs(settings: &[(String, Vec<u8>)]) {
    let mut command = Command::new(program());
    command.arg("run").env("OUTBOX_START", "0s");
    for (name, value) in settings.iter().filter(|(_, value)| !value.contains(&0)) {
        command.env(name, OsString::from_vec(value.clone()));
    }
    command.env("OUTBOX_START", "0s").envs(URLS).env("OUTBOX_HTTP", "127.0.0.1:0");
    let ended = to_the_end(command, Duration::from_secs(20));
    assert!(matches!(ended.code, Some(1 | 64)), "{ended:#?}");
    assert_eq!(ended.out, "");
    if ended.code == Some(64) {
        tells_plainly(&ended.err);
    }
}
