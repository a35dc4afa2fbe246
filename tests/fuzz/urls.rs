//! The door of URLs. `SECRET` in an input stands for the password; whatever else of a URL is wrong, it is
//! never told.

use std::process::Command;
use std::time::Duration;

use outbox_relay::outbox::Database;
use outbox_relay::stream::Server;

use super::door::Door;
use crate::support::command::{SECRET, to_the_end};
use crate::support::relay::program;

/// Whether the secret is where a reader would take it for a password, and nowhere else: behind a colon,
/// before the last @.
fn is_password(url: &str) -> bool {
    let found = || {
        let (scheme, rest) = url.split_once("://")?;
        let (before, host) = rest.rsplit_once('@')?;
        let (user, password) = before.split_once(':')?;
        // Of a socket, it is an option, and so is the user.
        let is_socket = scheme.contains("unix");
        let elsewhere = is_socket || [scheme, host, user].iter().any(|part| part.contains(SECRET));
        Some(password.contains(SECRET) && !elsewhere)
    };
    found().unwrap_or(false)
}

#[track_caller]
fn hides(texts: &[String]) {
    for text in texts {
        for part in [SECRET, &SECRET[..SECRET.len() / 2], &SECRET[SECRET.len() / 2..]] {
            assert!(!text.contains(part), "a secret is told: {text}");
        }
    }
}

/// What can be told of a URL: that it is wrong, or how the server is called.
fn told(is_redis: bool, url: &str) -> Result<Vec<String>, String> {
    match is_redis {
        true => Server::from_url(url, "")
            .map(|server| vec![server.name(), format!("{server:?}"), server.user()])
            .map_err(|error| error.to_string()),
        false => Database::from_url(url)
            .map(|database| vec![database.name(), format!("{database:?}")])
            .map_err(|error| error.to_string()),
    }
}

#[test]
fn no_url_tells_its_password_however_wrong_it_is() {
    let mut door = Door::open("urls");
    while let Some(input) = door.next() {
        let url = String::from_utf8_lossy(&input.bytes).trim().replace("SECRET", SECRET);
        for is_redis in [true, false] {
            match told(is_redis, &url) {
                Err(error) => {
                    hides(std::slice::from_ref(&error));
                    assert!(error.len() < 500 && !error.contains('\n'), "{error:?}");
                    if !input.is_mutated || door.dice().one_in(200) {
                        refused(is_redis, &url);
                    }
                }
                Ok(texts) if is_password(&url) => hides(&texts),
                Ok(_) => {}
            }
        }
    }
}

/// The program says no more of it, wherever it is given.
fn refused(is_redis: bool, url: &str) {
    if url.contains('\0') || url.is_empty() {
        return;
    }
    let good = ["postgres://u@127.0.0.1:1/d", "redis://127.0.0.1:1/0"];
    let (database, redis) = if is_redis { (good[0], url) } else { (url, good[1]) };
    let mut by_variable = Command::new(program());
    by_variable.arg("verify").env("DATABASE_URL", database).env("REDIS_URL", redis);
    let mut by_flag = Command::new(program());
    by_flag.args([format!("--database-url={database}"), format!("--redis-url={redis}")]);
    let mut by_subcommand = Command::new(program());
    by_subcommand.args(["verify", &format!("--database-url={database}")]);
    by_subcommand.arg(format!("--redis-url={redis}"));
    for command in [by_variable, by_flag, by_subcommand] {
        let ended = to_the_end(command, Duration::from_secs(20));
        assert_eq!(ended.code, Some(64), "{ended:#?}");
        ended.hides(SECRET);
    }
}
