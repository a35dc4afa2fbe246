//! The relay as a child process: this very program, with another command.

use std::env;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::time::sleep;

use super::error::DemoError;
use super::relay_log::RelayLog;

const LOOK_EVERY: Duration = Duration::from_millis(20);
const LOG_LINES: usize = 15;
const LOG_COLUMNS: usize = 300;

/// Settings that would lead the child to somebody else's servers.
const FOREIGN_SETTINGS: [&str; 4] =
    ["DATABASE_URL", "DATABASE_URL_FILE", "REDIS_URL", "REDIS_URL_FILE"];

/// A relay that runs, was killed, or has not started. Killed and waited for when dropped.
pub(super) struct RelayProcess {
    child: Option<Child>,
    command: Command,
    log: Arc<RelayLog>,
}

impl RelayProcess {
    /// What will run `outbox-relay run` with these settings and write to `log`.
    pub(super) fn new(settings: &[(&str, &str)], log: Arc<RelayLog>) -> Result<Self, DemoError> {
        let command = ourselves(&["run"], settings, log.path())?;
        Ok(Self { child: None, command, log })
    }

    /// Starts it, also again after [`kill`](Self::kill).
    pub(super) fn start(&mut self) -> Result<(), DemoError> {
        self.log.begin();
        let step = format!("cannot start {}", self.log.name());
        self.child = Some(self.command.spawn().map_err(DemoError::io(step))?);
        Ok(())
    }

    /// Fails when the relay has ended by itself.
    pub(super) fn ensure_running(&mut self) -> Result<(), DemoError> {
        match self.exit_status()? {
            None => Ok(()),
            Some(status) => Err(self.error(&format!("ended by itself ({status})"))),
        }
    }

    /// SIGKILL; returns when the process is gone.
    pub(super) fn kill(&mut self) -> Result<(), DemoError> {
        let step = format!("cannot kill {}", self.log.name());
        self.end().map_err(DemoError::io(step))
    }

    /// SIGTERM; returns how long it took to drain and exit with 0.
    pub(super) async fn terminate(&mut self, limit: Duration) -> Result<Duration, DemoError> {
        let begun = Instant::now();
        let Some(child) = &self.child else { return Ok(Duration::ZERO) };
        kill_process(Pid::from_child(child), Signal::TERM)
            .map_err(|e| DemoError::failed(format!("cannot stop {}", self.log.name()), &e))?;
        while begun.elapsed() < limit {
            match self.exit_status()? {
                None => sleep(LOOK_EVERY).await,
                Some(status) if status.success() => return Ok(begun.elapsed()),
                Some(status) => {
                    return Err(
                        self.error(&format!("did not exit with 0 after SIGTERM ({status})"))
                    );
                }
            }
        }
        Err(self.error(&format!("still runs {} s after SIGTERM", limit.as_secs())))
    }

    fn error(&self, what: &str) -> DemoError {
        let what = format!("{} {what}", self.log.name());
        DemoError::Relay { what, log: tail(self.log.path()) }
    }

    fn exit_status(&mut self) -> Result<Option<ExitStatus>, DemoError> {
        let step = format!("cannot wait for {}", self.log.name());
        let Some(child) = &mut self.child else { return Ok(None) };
        child.try_wait().map_err(DemoError::io(step))
    }

    fn end(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            kill_and_wait(&mut child)?;
        }
        self.log.end();
        Ok(())
    }
}

impl Drop for RelayProcess {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// A command that has ended: its exit status, and the last line it printed.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    pub(super) last_line: String,
}

/// Runs `outbox-relay <arguments>` to its end, at most `limit`, its output in the file `log`.
pub(super) async fn run_to_end(
    arguments: &[&str],
    settings: &[(&str, &str)],
    log: &Path,
    limit: Duration,
) -> Result<Ended, DemoError> {
    let name = format!("`outbox-relay {}`", arguments.first().unwrap_or(&""));
    let child = ourselves(arguments, settings, log)?
        .spawn()
        .map_err(DemoError::io(format!("cannot start {name}")))?;
    let mut child = KilledOnDrop(child);
    let begun = Instant::now();
    loop {
        let status = child.0.try_wait();
        match status.map_err(DemoError::io(format!("cannot wait for {name}")))? {
            Some(status) => {
                let last_line = last_lines(log, 1).pop().unwrap_or_default();
                return Ok(Ended { status, last_line });
            }
            None if begun.elapsed() < limit => sleep(LOOK_EVERY).await,
            None => {
                return Err(DemoError::Relay {
                    what: format!("{name} did not end within {} s", limit.as_secs()),
                    log: tail(log),
                });
            }
        }
    }
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = kill_and_wait(&mut self.0);
    }
}

fn kill_and_wait(child: &mut Child) -> io::Result<()> {
    child.kill()?;
    child.wait().map(drop)
}

/// This program with other arguments, with none of the caller's settings, in a process group of
/// its own: Ctrl-C must reach us first.
fn ourselves(
    arguments: &[&str],
    settings: &[(&str, &str)],
    log: &Path,
) -> Result<Command, DemoError> {
    let program = env::current_exe().map_err(DemoError::io("cannot find this program"))?;
    let unusable = || DemoError::io(format!("cannot write {}", log.display()));
    let out: File = OpenOptions::new().create(true).append(true).open(log).map_err(unusable())?;
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        let shown = name.to_string_lossy();
        if shown.starts_with("OUTBOX_") || FOREIGN_SETTINGS.contains(&&*shown) {
            command.env_remove(&name);
        }
    }
    command
        .args(arguments)
        .envs(settings.iter().copied())
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stderr(out.try_clone().map_err(unusable())?)
        .stdout(out)
        .process_group(0);
    Ok(command)
}

/// The end of a log, indented; empty when there is none.
pub(super) fn tail(log: &Path) -> String {
    let cut = |line: String| -> String {
        let line: String = line.chars().take(LOG_COLUMNS).collect();
        format!("      {line}")
    };
    let lines: Vec<String> = last_lines(log, LOG_LINES).into_iter().map(cut).collect();
    lines.join("\n")
}

/// The last `count` lines that are not blank.
fn last_lines(log: &Path, count: usize) -> Vec<String> {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let first = lines.len().saturating_sub(count);
    lines.iter().skip(first).map(ToString::to_string).collect()
}
