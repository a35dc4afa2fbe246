//! Private PostgreSQL and Redis servers for the demo, the tests and the benches.
//!
//! Each server listens on a free port of 127.0.0.1 and keeps its files in a temporary folder.
//! Dropping the value stops the server and removes the folder, also while a panic unwinds. When
//! this process ends without dropping it (Ctrl-C, SIGKILL, `process::exit`), a small shell
//! started beside each server does both.
//!
//! Everything here blocks the calling thread; from async code use `spawn_blocking`, or accept
//! the wait.

mod account;
mod find;
mod folder;
mod pgdata;
mod postgres;
mod process;
mod redis;
mod server;

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::thread::sleep;
use std::time::{Duration, Instant};

pub use self::postgres::{Postgres, PostgresOptions};
pub use self::redis::{Redis, RedisOptions};

/// Below the ports that Linux (32768 and up) and macOS (49152 and up) give to outgoing
/// connections: while a server is down, no client's own socket can take its port, nor can a
/// client that keeps reconnecting meet itself there.
const PORTS: RangeInclusive<u16> = 15_000..=32_000;

const PORT_PICKS: usize = 500;
const START_ATTEMPTS: usize = 5;
const SAME_PORT_LIMIT: Duration = Duration::from_secs(5);
const SAME_PORT_EVERY: Duration = Duration::from_millis(100);

/// A port of 127.0.0.1 (15000 to 32000) that nobody listened on a moment ago.
///
/// Somebody else may take it before the caller does.
///
/// # Errors
/// When no port tried was free.
pub fn free_port() -> io::Result<u16> {
    let span = u64::from(PORTS.end() - PORTS.start()) + 1;
    let random = RandomState::new();
    for pick in 0..PORT_PICKS {
        let offset = u16::try_from(random.hash_one(pick) % span).unwrap_or_default();
        let port = PORTS.start() + offset;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    let text = format!("no free port on 127.0.0.1 in {PORTS:?} ({PORT_PICKS} tried)");
    Err(io::Error::new(io::ErrorKind::AddrInUse, text))
}

/// Runs `start` with a free port, and again with others while it reports the port as taken.
fn on_free_port<T>(mut start: impl FnMut(u16) -> io::Result<T>) -> io::Result<T> {
    let mut attempt = 1;
    loop {
        match start(free_port()?) {
            Err(e) if is_port_taken(&e) && attempt < START_ATTEMPTS => attempt += 1,
            outcome => return outcome,
        }
    }
}

/// Runs `start` until it no longer reports its port as taken, at most 5 s.
fn on_same_port(mut start: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let deadline = Instant::now() + SAME_PORT_LIMIT;
    loop {
        match start() {
            Err(e) if is_port_taken(&e) && Instant::now() < deadline => sleep(SAME_PORT_EVERY),
            outcome => return outcome,
        }
    }
}

fn is_port_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

/// Puts what was being done in front of `error`, and keeps its kind.
fn explain(what: impl std::fmt::Display, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_port_can_be_listened_on() {
        let port = free_port().expect("a port");
        assert!(PORTS.contains(&port));
    }

    #[test]
    fn another_port_is_tried_while_the_chosen_one_is_taken() {
        let mut seen = 0;
        let port = on_free_port(|port| {
            seen += 1;
            if seen < 3 { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(port) }
        });
        assert!(port.is_ok());
        assert_eq!(seen, 3);
    }

    #[test]
    fn other_failures_and_too_many_taken_ports_end_the_attempts() {
        let mut seen = 0;
        let outcome: io::Result<()> = on_free_port(|_| {
            seen += 1;
            Err(io::ErrorKind::AddrInUse.into())
        });
        assert!(outcome.is_err());
        assert_eq!(seen, START_ATTEMPTS);

        let outcome: io::Result<()> = on_free_port(|_| Err(io::ErrorKind::NotFound.into()));
        assert_eq!(outcome.map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
    }
}
