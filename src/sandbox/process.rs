//! A server's process: started in its own group, waited for, signalled, killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::explain;

const START_LIMIT: Duration = Duration::from_secs(30);
const KILL_LIMIT: Duration = Duration::from_secs(10);
const FREEZE_LIMIT: Duration = Duration::from_secs(1);
const POLL_EVERY: Duration = Duration::from_millis(5);
const TAIL_BYTES: u64 = 64 * 1024;
const TAIL_LINES: usize = 20;

/// A direct child of ours; killed, with its own children, when dropped.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    /// Set once the exit status was taken, after which the id may belong to somebody else.
    exit: Option<ExitStatus>,
    log: PathBuf,
    log_start: u64,
}

impl Process {
    /// Starts `command` with its output appended to the file `log`.
    pub(super) fn spawn(command: &mut Command, log: &Path) -> io::Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let log_start = output.metadata()?.len();
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            // Ctrl-C in a terminal goes to the whole foreground group; the owner of this value
            // wants to stop its servers itself, in its own order.
            .process_group(0)
            .spawn()
            .map_err(|e| {
                explain(format_args!("cannot start {}", command.get_program().display()), &e)
            })?;
        Ok(Self { child, exit: None, log: log.to_path_buf(), log_start })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Polls `ready` until it holds, at most 30 s.
    ///
    /// The error has kind `AddrInUse` when the server found its port taken.
    pub(super) fn wait_ready(
        &mut self,
        mut ready: impl FnMut(u32) -> io::Result<bool>,
    ) -> io::Result<()> {
        let deadline = Instant::now() + START_LIMIT;
        while Instant::now() < deadline {
            if let Some(status) = self.exit_status()? {
                return Err(self.early_exit(status));
            }
            if ready(self.pid())? {
                return Ok(());
            }
            sleep(POLL_EVERY);
        }
        let text = format!(
            "the server did not accept connections within {} s; its log ends:\n{}",
            START_LIMIT.as_secs(),
            log_tail(&self.log, TAIL_LINES)
        );
        Err(io::Error::new(io::ErrorKind::TimedOut, text))
    }

    /// Sends `signal`, unless the process was seen to have ended.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        if self.exit.is_some() {
            return Ok(());
        }
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until the process has ended; false when it runs on after `limit`.
    pub(super) fn wait_exit(&mut self, limit: Duration) -> io::Result<bool> {
        let mut failure = None;
        let ended = poll(limit, || match self.exit_status() {
            Ok(status) => status.is_some(),
            Err(e) => {
                failure = Some(e);
                true
            }
        });
        failure.map_or(Ok(ended), Err)
    }

    /// SIGKILL for the process and its children, all at one moment; returns once all are gone.
    pub(super) fn kill(&mut self) -> io::Result<()> {
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        let children = self.freeze_and_list_children()?;
        for child in &children {
            // As long as their parent is stopped, even ended children keep their ids.
            let _ = kill_process(*child, Signal::KILL);
        }
        self.signal(Signal::KILL)?;
        let gone = self.wait_exit(KILL_LIMIT)? && poll(KILL_LIMIT, || none_alive(&children));
        if gone { Ok(()) } else { Err(io::Error::other("the server survived SIGKILL")) }
    }

    /// A stopped process starts no more children, so that the list is complete.
    fn freeze_and_list_children(&self) -> io::Result<Vec<Pid>> {
        let own = Pid::from_child(&self.child);
        self.signal(Signal::STOP)?;
        let is_frozen = |entry: &Entry| entry.pid == own && matches!(entry.state, 'T' | 't' | 'Z');
        poll(FREEZE_LIMIT, || process_table().iter().any(is_frozen));
        let children = process_table().into_iter().filter(|entry| entry.parent == Some(own));
        Ok(children.map(|entry| entry.pid).collect())
    }

    fn exit_status(&mut self) -> io::Result<Option<ExitStatus>> {
        if self.exit.is_none() {
            self.exit = self.child.try_wait()?;
        }
        Ok(self.exit)
    }

    fn early_exit(&self, status: ExitStatus) -> io::Error {
        let fresh = read_from(&self.log, self.log_start).unwrap_or_default();
        let kind = if fresh.contains("Address already in use") {
            io::ErrorKind::AddrInUse
        } else {
            io::ErrorKind::Other
        };
        let tail = last_lines(&fresh, TAIL_LINES);
        io::Error::new(kind, format!("the server ended at once ({status}); its log ends:\n{tail}"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// Polls `done` until it holds; false when it does not within `limit`.
fn poll(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while !done() {
        if Instant::now() >= deadline {
            return false;
        }
        sleep(POLL_EVERY);
    }
    true
}

/// The last lines of the file `log`; empty when it cannot be read.
pub(super) fn log_tail(log: &Path, lines: usize) -> String {
    let size = fs::metadata(log).map_or(0, |meta| meta.len());
    let text = read_from(log, size.saturating_sub(TAIL_BYTES)).unwrap_or_default();
    last_lines(&text, lines)
}

fn read_from(file: &Path, offset: u64) -> io::Result<String> {
    let mut file = File::open(file)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    pid: Pid,
    parent: Option<Pid>,
    state: char,
}

fn none_alive(pids: &[Pid]) -> bool {
    // A zombie holds nothing any more; who must reap it is not ours to say.
    !process_table().iter().any(|entry| entry.state != 'Z' && pids.contains(&entry.pid))
}

/// All processes of this machine, from `/proc`, or from `ps` where there is none (macOS).
fn process_table() -> Vec<Entry> {
    let from_proc: Vec<Entry> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path().join("stat")).ok())
        .filter_map(|stat| entry_in_stat(&stat))
        .collect();
    if from_proc.is_empty() { table_of_ps() } else { from_proc }
}

fn table_of_ps() -> Vec<Entry> {
    let output = Command::new("ps").args(["-A", "-o", "pid=,ppid=,state="]).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().filter_map(entry_in_ps).collect()
}

/// Reads `/proc/PID/stat`, whose second field is a name that may hold anything.
fn entry_in_stat(stat: &str) -> Option<Entry> {
    let (pid, _) = stat.split_once(" (")?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.chars().next()?;
    entry(pid, fields.next()?, state)
}

fn entry_in_ps(line: &str) -> Option<Entry> {
    let mut fields = line.split_whitespace();
    let (pid, parent) = (fields.next()?, fields.next()?);
    entry(pid, parent, fields.next()?.chars().next()?)
}

fn entry(pid: &str, parent: &str, state: char) -> Option<Entry> {
    let pid = positive(pid)?;
    Some(Entry { pid, parent: positive(parent), state })
}

/// `Pid::from_raw` panics on a negative number.
fn positive(number: &str) -> Option<Pid> {
    number.parse::<i32>().ok().filter(|n| *n > 0).and_then(Pid::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pid(n: i32) -> Pid {
        Pid::from_raw(n).expect("positive")
    }

    #[test]
    fn a_name_with_brackets_does_not_confuse_the_fields() {
        let expected = Entry { pid: pid(42), parent: Some(pid(7)), state: 'S' };
        assert_eq!(entry_in_stat("42 (a) R 1 (b)) S 7 42 42 0 -1"), Some(expected));
        assert_eq!(entry_in_stat("nonsense"), None);
    }

    #[test]
    fn a_line_of_ps_is_read() {
        let expected = Entry { pid: pid(42), parent: Some(pid(7)), state: 'T' };
        assert_eq!(entry_in_ps("   42     7 T+"), Some(expected));
        assert_eq!(entry_in_ps("    1     0 Ss").and_then(|e| e.parent), None);
    }

    #[test]
    fn this_process_is_in_the_table() {
        let own = rustix::process::getpid();
        assert!(process_table().iter().any(|entry| entry.pid == own));
        assert!(!none_alive(&[own]));
    }

    #[test]
    fn a_tail_has_at_most_that_many_lines() {
        assert_eq!(last_lines("a\nb\nc\n", 2), "b\nc");
        assert_eq!(last_lines("a", 5), "a");
        assert_eq!(last_lines("", 5), "");
    }
}
