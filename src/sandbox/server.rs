//! What both kinds of server have in common: a folder, a log, and a process at times.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use super::account::Account;
use super::explain;
use super::folder::Folder;
use super::process::{Process, log_tail};

/// A server that is stopped or running.
#[derive(Debug)]
pub(super) struct Server {
    name: &'static str,
    // Dropped first: the folder goes when nobody writes to it any more.
    process: Option<Process>,
    folder: Folder,
}

impl Server {
    /// Makes the folder of a server called `name`, owned by `account`; see [`Folder::new`].
    pub(super) fn new(name: &'static str, account: Account, last_signal: &str) -> io::Result<Self> {
        let prefix = format!("outbox-{}-", name.to_lowercase());
        let folder = Folder::new(&prefix, account, last_signal)?;
        Ok(Self { name, process: None, folder })
    }

    /// The private folder.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The server's own folder in the private one; not made here.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.folder().join("data")
    }

    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    pub(super) fn log_tail(&self, lines: usize) -> String {
        log_tail(&self.log(), lines)
    }

    /// Runs `command` until `ready` holds; see [`Process::wait_ready`].
    pub(super) fn launch(
        &mut self,
        command: &mut Command,
        ready: impl FnMut(u32) -> io::Result<bool>,
    ) -> io::Result<()> {
        let mut process = Process::spawn(command, &self.log())?;
        self.folder.guard_process(Some(process.pid()));
        let outcome = process.wait_ready(ready);
        self.process = Some(process);
        outcome.map_err(|e| {
            let _ = self.end(Process::kill);
            let program = command.get_program().display();
            explain(format_args!("cannot start {} ({program})", self.name), &e)
        })
    }

    /// Sends `signal` to the server, if there is one.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        self.process.as_ref().map_or(Ok(()), |process| process.signal(signal))
    }

    /// Ends the process with `stop`, or by SIGKILL when that fails.
    pub(super) fn end(
        &mut self,
        stop: impl FnOnce(&mut Process) -> io::Result<()>,
    ) -> io::Result<()> {
        let Some(mut process) = self.process.take() else {
            return Ok(());
        };
        let outcome = stop(&mut process);
        drop(process);
        self.folder.guard_process(None);
        outcome.map_err(|e| explain(format_args!("{} did not stop", self.name), &e))
    }

    fn log(&self) -> PathBuf {
        self.folder().join("server.log")
    }
}
