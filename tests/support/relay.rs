//! The program as a child process.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// The program under test: the one that was built with the tests, or `OUTBOX_RELAY_BIN`.
pub(crate) fn program() -> PathBuf {
    match std::env::var_os("OUTBOX_RELAY_BIN") {
        Some(path) => path.into(),
        None => env!("CARGO_BIN_EXE_outbox-relay").into(),
    }
}

/// A running `outbox-relay run`; killed when dropped.
pub(crate) struct Relay {
    child: Child,
    log: PathBuf,
}

impl Relay {
    /// Starts the program with these variables and nothing else of ours in its environment.
    pub(crate) fn start(folder: &Path, name: &str, variables: &[(&str, &str)]) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).unwrap();
        Self::start_telling(file, log, variables)
    }

    /// As [`Relay::start`], with its log written to `stderr`; `log` is where it is read.
    pub(crate) fn start_telling(stderr: File, log: PathBuf, variables: &[(&str, &str)]) -> Self {
        let child = Command::new(program())
            .arg("run")
            .env_clear()
            .envs(std::env::vars().filter(|(k, _)| k == "PATH" || k == "RUST_BACKTRACE"))
            .env("OUTBOX_HTTP", "127.0.0.1:0")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .unwrap();
        Self { child, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and waits for the end.
    #[track_caller]
    pub(crate) fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        self.wait(Duration::from_secs(40))
    }

    /// Waits for the end.
    #[track_caller]
    pub(crate) fn wait(&mut self, bound: Duration) -> ExitStatus {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(
                begun.elapsed() < bound,
                "the relay did not end within {bound:?}:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// A number that Linux keeps of the process, like `VmHWM` (KiB).
    pub(crate) fn status_of_linux(&self, name: &str) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap().split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Sets a limit of the running process, like `--nofile=20:`.
    pub(crate) fn limit(&self, limit: &str) {
        let pid = self.pid().to_string();
        let set = Command::new("prlimit").args(["--pid", &pid, limit]).status().unwrap();
        assert!(set.success(), "prlimit {limit}");
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until it has logged `text` at least `times` times.
    #[track_caller]
    pub(crate) fn logged_times(&self, text: &str, times: usize) -> impl Future<Output = ()> {
        let (caller, log, text) =
            (std::panic::Location::caller(), self.log.clone(), text.to_owned());
        async move {
            let begun = Instant::now();
            loop {
                let found = std::fs::read_to_string(&log).unwrap_or_default();
                if found.matches(&text).count() >= times {
                    return;
                }
                assert!(
                    begun.elapsed() < Duration::from_secs(30),
                    "{caller}: the relay did not log {text:?} {times} times:\n{found}"
                );
                super::pause().await;
            }
        }
    }

    /// Waits until it has logged `text`.
    #[track_caller]
    pub(crate) fn logged(&self, text: &str) -> impl Future<Output = ()> {
        self.logged_times(text, 1)
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.log.display(), self.log());
        }
    }
}
