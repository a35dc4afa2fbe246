//! What a relay's log tells an onlooker: its role, and where its HTTP server listens.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What a relay does at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// With this token; each new leader has a higher one.
    Leads(u64),
    StandsBy,
    /// It has started and not said anything yet.
    Starts,
    /// A server failed it, and it begins again.
    Reconnects,
    Killed,
}

/// The log of one relay, over all processes that it has been.
pub(super) struct RelayLog {
    name: &'static str,
    path: PathBuf,
    /// Where the process that runs began to write; `None` while none runs.
    begins: Mutex<Option<usize>>,
}

impl RelayLog {
    pub(super) fn new(name: &'static str, path: PathBuf) -> Self {
        Self { name, path, begins: Mutex::new(None) }
    }

    /// What the story calls the relay.
    pub(super) fn name(&self) -> &'static str {
        self.name
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What the process says that starts now.
    pub(super) fn begin(&self) {
        self.set_begins(Some(self.text().len()));
    }

    /// The process was killed.
    pub(super) fn end(&self) {
        self.set_begins(None);
    }

    pub(super) fn role(&self) -> Role {
        self.of_this_process().map_or(Role::Killed, |text| role_in(&text))
    }

    /// The address of its HTTP server, if it has one.
    pub(super) fn http_address(&self) -> Option<String> {
        self.of_this_process().and_then(|text| http_address_in(&text))
    }

    fn of_this_process(&self) -> Option<String> {
        let begins = *self.begins.lock().unwrap_or_else(PoisonError::into_inner);
        let text = self.text();
        begins.map(|begins| String::from_utf8_lossy(text.get(begins..).unwrap_or(&[])).into_owned())
    }

    fn text(&self) -> Vec<u8> {
        std::fs::read(&self.path).unwrap_or_default()
    }

    fn set_begins(&self, begins: Option<usize>) {
        *self.begins.lock().unwrap_or_else(PoisonError::into_inner) = begins;
    }
}

/// The role by the last line that tells one.
fn role_in(text: &str) -> Role {
    text.lines().rev().find_map(role_after).unwrap_or(Role::Starts)
}

fn role_after(line: &str) -> Option<Role> {
    if let Some(token) = number_after(line, "leading with token ") {
        return Some(Role::Leads(token));
    }
    let says = |words| line.contains(words);
    if says("standing by: another relay holds the lease") {
        return Some(Role::StandsBy);
    }
    says("; trying again in ").then_some(Role::Reconnects)
}

fn number_after(line: &str, words: &str) -> Option<u64> {
    let (_, rest) = line.split_once(words)?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

fn http_address_in(text: &str) -> Option<String> {
    let start = "http://127.0.0.1:";
    let port = text.lines().rev().find_map(|line| number_after(line, start))?;
    Some(format!("{start}{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LED: &str = "INFO serving /metrics on http://127.0.0.1:18123\n\
        INFO leading with token 12 token=12\nINFO stream orders is active\n";

    #[test]
    fn the_last_line_about_a_role_counts() {
        let lost = format!("{LED}WARN Redis: connection refused; trying again in 50 ms\n");
        let behind = format!("{lost}INFO standing by: another relay holds the lease\n");
        assert_eq!(role_in(""), Role::Starts);
        assert_eq!(role_in(LED), Role::Leads(12));
        assert_eq!(role_in(&lost), Role::Reconnects);
        assert_eq!(role_in(&behind), Role::StandsBy);
    }

    #[test]
    fn the_address_is_taken_from_the_middle_of_a_line() {
        assert_eq!(http_address_in(LED).as_deref(), Some("http://127.0.0.1:18123"));
        assert_eq!(http_address_in("INFO http://[::1]:1 is not ours"), None);
    }

    #[test]
    fn only_what_the_running_process_wrote_counts() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = RelayLog::new("relay-1", folder.path().join("log"));
        assert_eq!(log.role(), Role::Killed);
        std::fs::write(log.path(), LED).expect("a log");
        log.begin();
        assert_eq!(log.role(), Role::Starts);
        log.end();
        assert_eq!(log.role(), Role::Killed);
    }
}
