//! The demo as a newcomer runs it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt as _;

use crate::support::relay::program;

/// Starts the demo in a process group of its own, with its files in `folder`.
fn start(folder: &Path, more: &[&str]) -> Child {
    Command::new(program())
        .args(["demo", "--seconds", "6"])
        .args(more)
        .env("TMPDIR", folder)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A folder that the servers' own user may enter, too.
fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Waits until nothing of the demo is left: no file, and no process that names the folder.
#[track_caller]
fn nothing_left(folder: &Path) {
    let begun = Instant::now();
    loop {
        let files = std::fs::read_dir(folder).unwrap().count();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap().stdout;
        let processes = String::from_utf8_lossy(&processes).matches(name).count();
        if files == 0 && processes == 0 {
            return;
        }
        let bound = Duration::from_secs(30);
        assert!(begun.elapsed() < bound, "{files} files and {processes} processes are left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// Numbers of a row of the table: orders, payments, total.
#[track_caller]
fn row(text: &str, name: &str) -> [u64; 3] {
    let (_, table) = text.rsplit_once("the shop's journal against").unwrap();
    let line = table.lines().find_map(|line| line.trim_start().strip_prefix(name));
    let line = line.unwrap_or_else(|| panic!("no row {name:?} in {text}"));
    let numbers = line.split_whitespace().map(|number| number.replace(',', "").parse().unwrap());
    numbers.collect::<Vec<_>>().try_into().unwrap()
}

/// The numbers between `before` and `after`, wherever these words are told.
fn numbers(text: &str, before: &str, after: &str) -> Vec<u64> {
    let told = text.match_indices(before).filter_map(|(at, _)| {
        let (number, _) = text[at + before.len()..].split_once(after)?;
        number.replace(',', "").parse().ok()
    });
    told.collect()
}

/// What the printed table says of a run in which the relay kept its promises.
#[track_caller]
fn adds_up(text: &str) {
    let committed = row(text, "committed by the shop");
    assert!(committed[0] > 100 && committed[1] > 100, "{text}");
    assert_eq!(committed[0] + committed[1], committed[2], "{text}");
    assert_eq!(row(text, "processed exactly once"), committed, "{text}");
    assert!(row(text, "rolled back by the shop")[2] > 0, "nobody could be a ghost: {text}");
    for fault in [
        "lost: committed, never processed",
        "ghosts: given, not committed",
        "out of order within their key",
        "seen under two IDs",
        "still in Redis, not trimmed yet",
        "of these never acknowledged",
    ] {
        assert_eq!(row(text, fault), [0; 3], "{fault}: {text}");
    }
    assert!(
        text.contains("Nothing lost, nothing processed twice, nothing out of order."),
        "{text}"
    );
}

#[test]
fn the_demo_loses_redis_and_the_relay_and_nothing_else() {
    let folder = folder();
    let output = start(folder.path(), &[]).wait_with_output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for told in [
        "relay-1 leads and delivers; relay-2 stands by",
        "relay-1, the leader, is killed (SIGKILL)",
        "relay-2 has taken over",
        "relay-1 is started again and stands by",
        "Redis is back, from the older snapshot",
        "younger than the snapshot",
        "Redis holds 0 entries",
        "`outbox-relay verify` says: equal",
    ] {
        assert!(text.contains(told), "no {told:?} in {text}");
    }
    assert_eq!(text.matches("Redis is back, empty").count(), 2, "{text}");
    adds_up(&text);
    // Each loss took something with it that was needed, and the workers went on before its end.
    let back = numbers(&text, "put back: the same ", " unacknowledged entries");
    assert!(back.len() == 3 && back.iter().all(|count| *count > 0), "{back:?}: {text}");
    let first = numbers(&text, "go on with ", " of orders");
    let before = numbers(&text, "they had been given up to ", " of orders");
    assert!(first.len() == 3 && before.len() == 3, "{text}");
    for (first, before) in first.iter().zip(&before) {
        assert!(*first > 0 && *first <= before + 1, "an entry was skipped: {text}");
    }
    assert!(first[1] > 1 && first[2] > first[1], "from the beginning again: {text}");
    // What was told after each loss, and what came until all was quiet.
    let skipped: u64 = numbers(&text, " of payments; ", " came a second time").iter().sum();
    let repeats = row(&text, "given again after a loss, skipped")[2];
    assert!(repeats > 0 && repeats >= skipped, "{text}");
    assert!(repeats < row(&text, "committed by the shop")[2], "not all of it each time: {text}");
    assert!(!text.contains('\x1b'), "a pipe gets plain lines: {text}");
    let (_, last) = text.split_once("Next:").unwrap();
    assert_eq!(
        last.matches("\n  ").count() - last.matches("\n      ").count(),
        3,
        "three commands: {last}"
    );
    nothing_left(folder.path());
}

#[test]
fn the_demo_leaves_nothing_behind_after_ctrl_c() {
    use std::io::BufRead as _;
    let folder = folder();
    let mut demo = start(folder.path(), &[]);
    let mut lines = std::io::BufReader::new(demo.stdout.take().unwrap()).lines();
    let started = lines.any(|line| line.unwrap().contains("stands by"));
    assert!(started, "it ended before it began");
    kill_process_group(Pid::from_child(&demo), Signal::INT).unwrap();
    lines.for_each(drop);
    let status = demo.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    nothing_left(folder.path());
}

#[test]
fn kept_servers_can_be_reached_as_it_says_until_ctrl_c() {
    use std::io::BufRead as _;
    let folder = folder();
    let mut demo = start(folder.path(), &["--keep"]);
    let mut lines = std::io::BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut said = Vec::new();
    for line in lines.by_ref() {
        let line = line.unwrap();
        let last = line.contains("Ctrl-C stops and removes everything");
        said.push(line);
        if last {
            break;
        }
    }
    let exported = |name: &str| {
        let start = format!("export {name}=");
        let line = said.iter().find_map(|line| line.trim().strip_prefix(&start)).map(str::to_owned);
        line.unwrap_or_else(|| panic!("no {start} in {said:#?}"))
    };
    let (database, redis) = (exported("DATABASE_URL"), exported("REDIS_URL"));
    let variables = [("DATABASE_URL", database.as_str()), ("REDIS_URL", redis.as_str())];
    let next: Vec<&str> = said
        .iter()
        .skip_while(|line| *line != "Next:")
        .filter_map(|line| {
            line.strip_prefix("  ")?.split_once(" ").filter(|(p, _)| p.contains("outbox-relay"))
        })
        .map(|(_, words)| words)
        .collect();
    assert_eq!(next.len(), 3, "{said:#?}");
    for words in next {
        let words: Vec<&str> = words.split(' ').collect();
        let ended = crate::support::command::command(&words, &variables);
        assert_eq!(ended.code, Some(0), "{words:?}: {ended:#?}");
    }
    assert!(said.iter().any(|line| line.trim().starts_with("curl http://")), "{said:#?}");
    kill_process_group(Pid::from_child(&demo), Signal::INT).unwrap();
    lines.for_each(drop);
    assert_eq!(demo.wait().unwrap().code(), Some(0));
    nothing_left(folder.path());
}

#[test]
fn a_terminal_gets_a_live_view() {
    let folder = folder();
    let line = format!("{} demo --seconds 6", program().display());
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).env("TMPDIR", folder.path()).env("TERM", "xterm");
    let output = match command.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) => {
            eprintln!("SKIPPED: no pseudo terminal without the program `script`: {error}");
            return;
        }
    };
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("\x1b[") && text.contains("entries in Redis"), "no live view: {text}");
    adds_up(&text.replace('\r', ""));
    nothing_left(folder.path());
}
