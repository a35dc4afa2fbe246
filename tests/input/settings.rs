//! The command line and the environment, before any server is asked.

use std::process::Command;
use std::time::Duration;

use crate::support::command::{SECRET, command, fails, to_the_end};
use crate::support::relay::program;

const COMMANDS: [&str; 8] =
    ["run", "migrate", "verify", "status", "doctor", "review", "adopt", "demo"];
/// Commands with a word after their name.
const WITH_A_WORD: [&str; 5] = ["trace", "pause", "resume", "rebuild", "replay"];
/// Nobody listens on the ports of these; the settings are wrong before that matters.
const POSTGRES: &str = "postgres://u:hunter2-very-secret@127.0.0.1:1/d";
const REDIS: &str = "redis://u:hunter2-very-secret@127.0.0.1:1/0";

#[test]
fn an_unknown_command_or_option_exits_64_and_is_named() {
    fails(&["explode"], &[], 64, &["explode"]);
    fails(&["run", "--explode"], &[("DATABASE_URL", POSTGRES)], 64, &["--explode"]);
    fails(&["--explode"], &[], 64, &["--explode"]);
    for word in COMMANDS {
        fails(&[word, "surplus"], &[("DATABASE_URL", POSTGRES)], 64, &["surplus"]);
    }
    for word in WITH_A_WORD {
        fails(&[word], &[("DATABASE_URL", POSTGRES)], 64, &["required"]);
    }
    let none = command(&[], &[]);
    assert_eq!(none.code, Some(64), "{none:#?}");
    assert!(none.err.contains("Usage: outbox-relay"), "{none:#?}");
}

#[test]
fn a_url_with_a_password_in_the_wrong_place_is_not_repeated() {
    fails(&["run", POSTGRES], &[], 64, &["unexpected argument"]);
    fails(&[REDIS], &[], 64, &[]);
    fails(&["run", &format!("--database-ur={POSTGRES}")], &[], 64, &["--database-ur"]);
}

#[test]
fn help_and_version_exit_0() {
    let all = command(&["--help"], &[("DATABASE_URL", POSTGRES), ("REDIS_URL", REDIS)]);
    assert_eq!(all.code, Some(0), "{all:#?}");
    for word in COMMANDS.into_iter().chain(WITH_A_WORD) {
        assert!(all.out.contains(&format!("\n  {word} ")), "no {word} in {}", all.out);
        let help = command(&[word, "--help"], &[("DATABASE_URL", POSTGRES), ("REDIS_URL", REDIS)]);
        assert_eq!((help.code, help.err.as_str()), (Some(0), ""), "{help:#?}");
        assert!(help.out.contains(&format!("Usage: outbox-relay {word}")), "{}", help.out);
        help.hides(SECRET);
    }
    let version = command(&["--version"], &[]);
    assert_eq!(version.code, Some(0), "{version:#?}");
    assert_eq!(version.out, format!("outbox-relay {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn a_malformed_postgres_url_exits_64_and_says_how_one_looks() {
    let urls = [
        format!("mysql://u:{SECRET}@h/d"),
        format!("u:{SECRET}@h/d"),
        format!("postgres//u:{SECRET}=x@h/d"),
        format!("postgres:/u:{SECRET}@h/d?sslmode=prefer"),
        format!("postgres://u:{SECRET}@h:port/d"),
        format!("postgres://u:{SECRET}@h:99999/d"),
        format!("postgres://u:{SECRET}/d"),
        format!("postgres://u:{SECRET}@h/d?sslmode={SECRET}"),
        format!("postgres://u:{SECRET}@h/d?explode=yes"),
        format!("postgres://u:x@{SECRET}@h/d"),
        format!("host=h user=u password={SECRET} port=x"),
        format!("host=h user=u password='{SECRET}"),
        format!("user=u password={SECRET}"),
        "postgres://h/d".into(),
        "postgres://".into(),
    ];
    for url in &urls {
        let variables = [("DATABASE_URL", url.as_str()), ("REDIS_URL", REDIS)];
        for word in ["run", "verify", "migrate", "status", "adopt"] {
            fails(
                &[word],
                &variables,
                64,
                &["DATABASE_URL: ", "postgres://user:password@host:5432/database"],
            );
        }
    }
}

#[test]
fn a_malformed_redis_url_exits_64_and_says_how_one_looks() {
    let urls = [
        format!("http://:{SECRET}@h"),
        format!(":{SECRET}@h:6379"),
        SECRET.into(),
        format!("redis://:{SECRET}@h:port"),
        format!("redis://:{SECRET}@h:99999"),
        format!("redis://:{SECRET}@h/zero"),
        format!("redis://:{SECRET}/x@h:6379"),
        format!("redis://:{SECRET}@"),
        "redis://".into(),
    ];
    for url in &urls {
        let variables = [("DATABASE_URL", POSTGRES), ("REDIS_URL", url.as_str())];
        for word in ["run", "verify", "status", "adopt"] {
            fails(&[word], &variables, 64, &["REDIS_URL: ", "redis://user:password@host:6379/0"]);
        }
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once_with_value_and_bound() {
    let prefix = "a b".to_owned();
    let variables = [
        ("DATABASE_URL", "mysql://u:hunter2-very-secret@h/d"),
        ("REDIS_URL", "redis://:hunter2-very-secret@h:port"),
        ("OUTBOX_PREFIX", prefix.as_str()),
        ("OUTBOX_LEASE", "1ms"),
        ("OUTBOX_AUDIT", "soon"),
        ("OUTBOX_POLL", "2s"),
        ("OUTBOX_WAKE", "maybe"),
        ("OUTBOX_DRAIN", "11m"),
        ("OUTBOX_START", "-1s"),
        ("OUTBOX_BATCH_ROWS", "20001"),
        ("OUTBOX_BATCH_BYTES", "63KiB"),
        ("OUTBOX_HTTP", "9464"),
        ("OUTBOX_METRIC_STREAMS", "10001"),
    ];
    let expected = [
        "DATABASE_URL: ",
        "REDIS_URL: ",
        "OUTBOX_PREFIX: \"a b\"",
        "OUTBOX_LEASE: \"1ms\" is not between 1s and",
        "OUTBOX_AUDIT: \"soon\" is not a time like",
        "OUTBOX_POLL: \"2s\" is not between 10ms and 1s",
        "OUTBOX_WAKE: \"maybe\" is neither on nor off",
        "OUTBOX_DRAIN: \"11m\" is not between",
        "OUTBOX_START: \"-1s\" is not a time like",
        "OUTBOX_BATCH_ROWS: \"20001\" is not a number from 1 to 20000",
        "OUTBOX_BATCH_BYTES: \"63KiB\" is not between 64 KiB and",
        "OUTBOX_HTTP: \"9464\" is not an address with a port like 127.0.0.1:9464",
        "OUTBOX_METRIC_STREAMS: \"10001\" is not a number from 0 to 10000",
    ];
    fails(&["run"], &variables, 64, &expected);
    let flags = ["run", "--lease", "1ms", "--batch-rows", "0", "--wake", "1"];
    fails(
        &flags,
        &[],
        64,
        &["DATABASE_URL", "REDIS_URL", "OUTBOX_LEASE", "OUTBOX_BATCH_ROWS", "OUTBOX_WAKE"],
    );
}

#[test]
fn how_it_logs_is_told_together_with_the_rest() {
    let variables =
        [("OUTBOX_LOG", "outbox_relay=loud"), ("OUTBOX_LEASE", "1ms"), ("REDIS_URL", "x")];
    let wrong = ["OUTBOX_LOG: \"outbox_relay=loud\"", "OUTBOX_LEASE", "REDIS_URL", "DATABASE_URL"];
    fails(&["run"], &variables, 64, &wrong);
    fails(
        &["verify"],
        &[("OUTBOX_LOG", "a=b=c")],
        64,
        &["OUTBOX_LOG", "DATABASE_URL", "REDIS_URL"],
    );
    fails(&["migrate"], &[("OUTBOX_LOG", "a=b=c")], 64, &["OUTBOX_LOG", "DATABASE_URL"]);
    let format = [("OUTBOX_LOG_FORMAT", "xml"), ("OUTBOX_LOG", "a=b=c")];
    let wrong =
        ["OUTBOX_LOG_FORMAT: \"xml\" is neither text nor json", "OUTBOX_LOG: ", "REDIS_URL"];
    fails(&["run"], &format, 64, &wrong);
}

#[test]
fn a_missing_url_exits_64_and_both_ways_to_give_it_are_named() {
    fails(
        &["run"],
        &[],
        64,
        &[
            "DATABASE_URL: is not set; set it or DATABASE_URL_FILE",
            "REDIS_URL: is not set; set it or REDIS_URL_FILE",
        ],
    );
    fails(
        &["verify"],
        &[("DATABASE_URL", POSTGRES)],
        64,
        &["REDIS_URL: is not set; set it or REDIS_URL_FILE"],
    );
    fails(&["migrate"], &[], 64, &["DATABASE_URL: is not set; set it or DATABASE_URL_FILE"]);
    for nothing in ["", " "] {
        let empty = [("DATABASE_URL", nothing), ("REDIS_URL", nothing)];
        fails(&["run"], &empty, 64, &["DATABASE_URL: is not set", "REDIS_URL: is not set"]);
    }
}

#[test]
fn a_url_and_a_file_with_a_url_are_one_too_many() {
    let variables = [
        ("DATABASE_URL", POSTGRES),
        ("DATABASE_URL_FILE", "/dev/null"),
        ("REDIS_URL", REDIS),
        ("REDIS_URL_FILE", "/dev/null"),
    ];
    let told = [
        "DATABASE_URL: is set, and so is DATABASE_URL_FILE",
        "REDIS_URL: is set, and so is REDIS_URL_FILE",
    ];
    fails(&["run"], &variables, 64, &told);
}

#[test]
fn a_file_that_cannot_be_read_or_is_empty_exits_64_and_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let (absent, empty) = (folder.path().join("absent"), folder.path().join("empty"));
    std::fs::write(&empty, "\n").unwrap();
    let (absent, empty) = (absent.to_str().unwrap(), empty.to_str().unwrap());
    let variables =
        [("DATABASE_URL_FILE", absent), ("REDIS_URL_FILE", folder.path().to_str().unwrap())];
    let told = ["DATABASE_URL_FILE", absent, "No such file", "REDIS_URL_FILE", "directory"];
    fails(&["run"], &variables, 64, &told);
    let variables = [("DATABASE_URL_FILE", empty), ("REDIS_URL_FILE", empty)];
    fails(&["run"], &variables, 64, &["DATABASE_URL_FILE", "REDIS_URL_FILE", empty, "is empty"]);
}

#[test]
fn a_variable_that_is_no_utf8_exits_64() {
    use std::os::unix::ffi::OsStrExt as _;
    let mut program = Command::new(program());
    let odd = std::ffi::OsStr::from_bytes(b"postgres://u:hunter2-very-secret@h/\xff");
    program.arg("migrate").env("DATABASE_URL", odd);
    let ended = to_the_end(program, Duration::from_secs(20));
    assert_eq!(ended.code, Some(64), "{ended:#?}");
    ended.hides(SECRET);
}
