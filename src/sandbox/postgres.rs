//! A private PostgreSQL server.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use super::account::Account;
use super::pgdata::{Maker, program};
use super::process::Process;
use super::server::Server;
use super::{find, on_free_port, on_same_port};

const STOP_LIMIT: Duration = Duration::from_secs(30);
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// The message SSLRequest: its length, then its code 80877103.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// How to set up a [`Postgres`].
#[derive(Clone, Debug)]
pub struct PostgresOptions {
    /// Lines for `postgresql.conf`, name and value without quotes; they win over the defaults
    /// (32 MB of `shared_buffers`, 100 `max_connections`, 20 `max_prepared_transactions`) but
    /// not over the address and the port. `ALTER SYSTEM` wins over them.
    pub settings: Vec<(String, String)>,
    /// A folder that keeps one fresh data folder for each server version, encoding and owner:
    /// made there once, then copied for each server. Any number of threads and processes may
    /// share it. `None` runs `initdb` for each server.
    pub template: Option<PathBuf>,
    /// Whether the server waits for the disk. Without it, what was committed still survives
    /// every kind of stop of the server, though not of the machine.
    pub fsync: bool,
    /// The encoding of all databases, a name that `initdb --encoding` knows.
    pub encoding: String,
}

impl Default for PostgresOptions {
    /// No settings, no template, no `fsync`, UTF8.
    fn default() -> Self {
        Self { settings: Vec::new(), template: None, fsync: false, encoding: "UTF8".into() }
    }
}

impl PostgresOptions {
    /// Adds a line for `postgresql.conf`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// A PostgreSQL server on 127.0.0.1, whose superuser `postgres` needs no password.
///
/// Stopped, and its files removed, when dropped.
#[derive(Debug)]
pub struct Postgres {
    server: Server,
    port: u16,
    account: Account,
    bin: PathBuf,
}

impl Postgres {
    /// Makes and starts a server; returns when it accepts connections.
    ///
    /// As root, runs it as the user `postgres`, or else `nobody`.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, `initdb` fails, or the server does not come up within
    /// 30 s; the text has the end of its log.
    pub fn start(options: PostgresOptions) -> io::Result<Self> {
        let bin = find::postgres_folder()?;
        let account = Account::other_than_root()?;
        let server = Server::new("PostgreSQL", account, "QUIT")?;
        Maker { bin: &bin, account, options: &options }.make(&server.data_dir())?;
        let mut postgres = Self { server, port: 0, account, bin };
        on_free_port(|port| {
            postgres.port = port;
            postgres.launch()
        })?;
        Ok(postgres)
    }

    /// The address of the database `postgres` for the superuser.
    pub fn url(&self) -> String {
        self.url_of("postgres", "postgres")
    }

    /// The address of `database` for `user`, names without characters that URLs reserve.
    pub fn url_of(&self, database: &str, user: &str) -> String {
        format!("postgres://{user}@127.0.0.1:{}/{database}", self.port)
    }

    /// The port on 127.0.0.1, the same after each restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The main process (the postmaster); `None` after a stop.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.server.data_dir()
    }

    /// The folder with PostgreSQL's programs.
    pub fn bin_dir(&self) -> &Path {
        &self.bin
    }

    /// The last `lines` lines of the server's log; empty when it cannot be read.
    pub fn log_tail(&self, lines: usize) -> String {
        self.server.log_tail(lines)
    }

    /// Ends all sessions, writes a checkpoint and stops (as `pg_ctl stop -m fast`).
    ///
    /// Takes harder means after 30 s. Does nothing when stopped already.
    ///
    /// # Errors
    /// When the server cannot be ended at all.
    pub fn stop_fast(&mut self) -> io::Result<()> {
        self.stop_with(Signal::INT)
    }

    /// Stops without a checkpoint (as `pg_ctl stop -m immediate`): the next start recovers from
    /// the log.
    ///
    /// Takes harder means after 30 s. Does nothing when stopped already.
    ///
    /// # Errors
    /// When the server cannot be ended at all.
    pub fn stop_immediate(&mut self) -> io::Result<()> {
        self.stop_with(Signal::QUIT)
    }

    /// Kills all the server's processes at one moment (SIGKILL); returns when they are gone.
    ///
    /// Does nothing when stopped already.
    ///
    /// # Errors
    /// When a process is still there after 10 s.
    pub fn kill(&mut self) -> io::Result<()> {
        self.server.end(Process::kill)
    }

    /// Starts again on the same port and files, stopping first (fast) what still runs.
    ///
    /// # Errors
    /// As for [`start`](Self::start), or when somebody else has held the port for 5 s.
    pub fn restart(&mut self) -> io::Result<()> {
        self.stop_fast()?;
        on_same_port(|| self.launch())
    }

    fn stop_with(&mut self, signal: Signal) -> io::Result<()> {
        self.server.end(|process| {
            for signal in [signal, Signal::QUIT] {
                process.signal(signal)?;
                if process.wait_exit(STOP_LIMIT)? {
                    return Ok(());
                }
            }
            process.kill()
        })
    }

    fn launch(&mut self) -> io::Result<()> {
        let data = self.data_dir();
        let mut command = program(&self.bin, "postgres", self.account);
        command
            .arg("-D")
            .arg(&data)
            .args(["-p", &self.port.to_string()])
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="])
            .current_dir(&data);
        let port = self.port;
        self.server.launch(&mut command, |pid| Ok(is_ready(&data, pid) && answers(port)))
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let _ = self.stop_immediate();
        if let Some(segment) = left_segment(&self.data_dir()) {
            // A killed server cannot remove it, and the machine has few.
            let remover = Command::new("ipcrm")
                .args(["-m", &segment])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            drop(remover);
        }
    }
}

/// Whether the server with this process id says so in its data folder: the port may answer for a
/// stranger who took it just before.
fn is_ready(data: &Path, pid: u32) -> bool {
    let status = fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    status_of(&status) == Some((pid, "ready"))
}

/// The process id and the state in the text of `postmaster.pid`.
fn status_of(text: &str) -> Option<(u32, &str)> {
    let pid = text.lines().next()?.trim().parse().ok()?;
    Some((pid, text.lines().nth(7)?.trim()))
}

/// The System V shared memory that a server which did not stop in order left behind.
fn left_segment(data: &Path) -> Option<String> {
    segment_in(&fs::read_to_string(data.join("postmaster.pid")).ok()?)
}

/// The second number of the seventh line of `postmaster.pid`; the first is the key.
fn segment_in(text: &str) -> Option<String> {
    let id = text.lines().nth(6)?.split_whitespace().nth(1)?;
    id.bytes().all(|byte| byte.is_ascii_digit()).then(|| id.to_owned())
}

fn answers(port: u16) -> bool {
    let probe = || {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
        stream.set_read_timeout(Some(PROBE_LIMIT))?;
        stream.write_all(&SSL_REQUEST)?;
        let mut answer = [0];
        stream.read_exact(&mut answer).map(|()| answer[0])
    };
    matches!(probe(), Ok(b'N' | b'S'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "4711\n/tmp/x/data\n1700000000\n20000\n\n127.0.0.1\n \
        4000613     32769\nready   \n";

    #[test]
    fn the_status_file_is_read() {
        assert_eq!(status_of(STATUS), Some((4711, "ready")));
        assert_eq!(segment_in(STATUS).as_deref(), Some("32769"));
    }

    #[test]
    fn a_status_file_half_written_says_nothing() {
        assert_eq!(status_of("4711\n/tmp/x/data\n"), None);
        assert_eq!(status_of(""), None);
        assert_eq!(segment_in("4711\n"), None);
    }
}
