//! A private Redis (or Valkey) server.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;

use super::account::Account;
use super::process::Process;
use super::server::Server;
use super::{find, on_free_port, on_same_port};

const STOP_LIMIT: Duration = Duration::from_secs(10);
const PROBE_LIMIT: Duration = Duration::from_secs(2);

/// How to set up a [`Redis`].
#[derive(Clone, Debug, Default)]
pub struct RedisOptions {
    /// Lines for the configuration file: name, and value as `redis.conf` writes it (an empty
    /// value stands for `""`). They win over the defaults, which write nothing to disk.
    pub settings: Vec<(String, String)>,
    /// Whether the command `DEBUG` is allowed. Needs Redis 7 or later, which forbids it
    /// otherwise.
    pub debug_command: bool,
}

impl RedisOptions {
    /// Adds a line for the configuration file.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.into(), value.into()));
        self
    }
}

/// A Redis server on 127.0.0.1, without persistence unless the options ask for it.
///
/// Stopped, and its files removed, when dropped.
#[derive(Debug)]
pub struct Redis {
    server: Server,
    port: u16,
    program: PathBuf,
}

impl Redis {
    /// Starts a server; returns when it answers, be it that it is loading its files or wants a
    /// password.
    ///
    /// # Errors
    /// When Redis is not installed, or does not come up within 30 s; the text has the end of
    /// its log.
    pub fn start(options: RedisOptions) -> io::Result<Self> {
        let program = find::redis_server()?;
        let server = Server::new("Redis", Account::Ourselves, "KILL")?;
        let mut redis = Self { server, port: 0, program };
        fs::create_dir(redis.data_dir())?;
        fs::write(redis.settings_file(), settings_text(&options, &redis.data_dir()))?;
        on_free_port(|port| {
            redis.port = port;
            redis.launch()
        })?;
        Ok(redis)
    }

    /// The address of database 0.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The port on 127.0.0.1, the same after each restart.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The server's process; `None` after a stop.
    pub fn pid(&self) -> Option<u32> {
        self.server.pid()
    }

    /// The folder that `dump.rdb` and the append-only files are in, if there are any.
    pub fn data_dir(&self) -> PathBuf {
        self.server.data_dir()
    }

    /// The program that it runs.
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The last `lines` lines of the server's log; empty when it cannot be read.
    pub fn log_tail(&self, lines: usize) -> String {
        self.server.log_tail(lines)
    }

    /// Kills the server, and a child that writes its dump (SIGKILL); returns when they are gone.
    ///
    /// Does nothing when stopped already.
    ///
    /// # Errors
    /// When a process is still there after 10 s.
    pub fn kill(&mut self) -> io::Result<()> {
        self.server.end(Process::kill)
    }

    /// Asks the server to stop (SIGTERM), which writes a dump if the options have a `save`; kills
    /// it after 10 s. Ends a frozen server as well.
    ///
    /// Does nothing when stopped already.
    ///
    /// # Errors
    /// When the server cannot be ended at all.
    pub fn stop(&mut self) -> io::Result<()> {
        self.server.end(|process| {
            process.signal(Signal::TERM)?;
            process.signal(Signal::CONT)?;
            if process.wait_exit(STOP_LIMIT)? { Ok(()) } else { process.kill() }
        })
    }

    /// Starts again on the same port and files (loading a dump, if there is one), stopping first
    /// what still runs.
    ///
    /// # Errors
    /// As for [`start`](Self::start), or when somebody else has held the port for 5 s.
    pub fn start_again(&mut self) -> io::Result<()> {
        self.stop()?;
        on_same_port(|| self.launch())
    }

    /// Makes the server stand still (SIGSTOP): connections are accepted, nothing is answered.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn freeze(&self) -> io::Result<()> {
        self.server.signal(Signal::STOP)
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn thaw(&self) -> io::Result<()> {
        self.server.signal(Signal::CONT)
    }

    fn launch(&mut self) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command
            .arg(self.settings_file())
            .args(["--port", &self.port.to_string()])
            .current_dir(self.data_dir());
        let port = self.port;
        self.server.launch(&mut command, |pid| is_ready(port, pid))
    }

    fn settings_file(&self) -> PathBuf {
        self.server.folder().join("redis.conf")
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

fn settings_text(options: &RedisOptions, data: &Path) -> String {
    let data = data.display().to_string().replace('\\', r"\\").replace('"', "\\\"");
    let mut text = format!(
        "bind 127.0.0.1\ndaemonize no\nlogfile \"\"\ndir \"{data}\"\nsave \"\"\nappendonly no\n"
    );
    if options.debug_command {
        text.push_str("enable-debug-command yes\n");
    }
    for (name, value) in &options.settings {
        let value = if value.is_empty() { "\"\"" } else { value };
        text.push_str(&format!("{name} {value}\n"));
    }
    text
}

/// Asks who is there rather than PING: the port may answer for a stranger who took it just
/// before.
fn is_ready(port: u16, pid: u32) -> io::Result<bool> {
    match answer_to_info(port).map(|answer| verdict(&answer, pid)) {
        Ok(Some(true)) => Ok(true),
        Ok(Some(false)) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("another Redis server has taken port {port}"),
        )),
        Ok(None) | Err(_) => Ok(false),
    }
}

/// Whether `answer` comes from the process `pid`; `None` while it is not complete.
fn verdict(answer: &str, pid: u32) -> Option<bool> {
    // -NOAUTH and -LOADING: alive, and unwilling to say more.
    if answer.starts_with('-') {
        return Some(true);
    }
    let (_, rest) = answer.split_once("process_id:")?;
    let (digits, _) = rest.split_once('\r')?;
    Some(digits.parse() == Ok(pid))
}

fn answer_to_info(port: u16) -> io::Result<String> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let mut stream = TcpStream::connect_timeout(&address, PROBE_LIMIT)?;
    stream.set_read_timeout(Some(PROBE_LIMIT))?;
    stream.write_all(b"INFO server\r\n")?;
    let (mut answer, mut chunk) = (String::new(), [0; 4096]);
    while verdict(&answer, 0).is_none() {
        match stream.read(&mut chunk)? {
            0 => break,
            n => answer.push_str(&String::from_utf8_lossy(&chunk[..n])),
        }
    }
    Ok(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_process_is_ready() {
        let answer = "$99\r\n# Server\r\nprocess_id:42\r\nrun_id:x\r\n";
        assert_eq!(verdict(answer, 42), Some(true));
        assert_eq!(verdict(answer, 4), Some(false));
        assert_eq!(verdict("$99\r\n# Server\r\nprocess_id:4", 4), None);
        assert_eq!(verdict("", 4), None);
    }

    #[test]
    fn a_server_that_wants_a_password_or_loads_is_alive() {
        assert_eq!(verdict("-NOAUTH Authentication required.\r\n", 42), Some(true));
        assert_eq!(verdict("-LOADING Redis is loading\r\n", 42), Some(true));
    }

    #[test]
    fn settings_follow_the_defaults() {
        let options = RedisOptions { debug_command: true, ..RedisOptions::default() };
        let options = options.with("save", "60 1").with("requirepass", "");
        let text = settings_text(&options, Path::new("/a b"));
        assert!(text.contains("dir \"/a b\"\n"));
        assert!(text.ends_with("enable-debug-command yes\nsave 60 1\nrequirepass \"\"\n"));
    }
}
