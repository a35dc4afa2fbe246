//! A server's temporary folder, and the shell that clears up when this process cannot.

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::account::Account;
use super::explain;

/// Reads the server's process id (or an empty line while it is stopped) until the pipe ends with
/// this process, then does what `Drop` would have done.
const GUARD: &str = r#"
pid=
while read -r line; do pid=$line; done
if [ -n "$pid" ]; then
    kill -s "$1" "$pid"
    tries=0
    while kill -s 0 "$pid" && [ "$tries" -lt 100 ]; do
        sleep 0.1
        tries=$((tries + 1))
    done
    [ "$tries" -lt 100 ] || kill -s KILL "$pid"
fi
rm -rf -- "$2"
"#;

/// A private folder (mode 0700), removed when dropped or when this process ends.
#[derive(Debug)]
pub(super) struct Folder {
    // Dropped first, so that the two never remove the folder at the same time.
    guard: Guard,
    dir: TempDir,
}

impl Folder {
    /// Makes a folder for `account`, and a guard that ends a left-over server with
    /// `last_signal` (a name such as `QUIT`).
    pub(super) fn new(prefix: &str, account: Account, last_signal: &str) -> io::Result<Self> {
        let base = temporary_base(account);
        let dir = tempfile::Builder::new()
            .prefix(prefix)
            .tempdir_in(&base)
            .map_err(|e| explain(format_args!("temporary folder in {}", base.display()), &e))?;
        account.own(dir.path())?;
        let guard = Guard::start(last_signal, dir.path())?;
        Ok(Self { guard, dir })
    }

    pub(super) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Names the process to end before the folder goes; `None` while there is none.
    pub(super) fn guard_process(&mut self, pid: Option<u32>) {
        self.guard.watch(pid);
    }
}

#[derive(Debug)]
struct Guard(Child);

impl Guard {
    fn start(signal: &str, folder: &Path) -> io::Result<Self> {
        Command::new("/bin/sh")
            .args(["-c", GUARD, "outbox-sandbox-guard", signal])
            .arg(folder)
            .current_dir("/")
            // Ctrl-C must reach us, not the guard that acts on our end.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map(Self)
            .map_err(|e| explain("cannot start /bin/sh", &e))
    }

    fn watch(&mut self, pid: Option<u32>) {
        let line = pid.map_or_else(String::new, |pid| pid.to_string());
        if let Some(pipe) = self.0.stdin.as_mut() {
            // A guard that somebody killed is no reason to fail: dropping still clears up.
            let _ = writeln!(pipe, "{line}");
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Killed before its pipe closes, or it would act.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The temporary folder of the environment, or `/tmp` where `account` cannot enter that.
fn temporary_base(account: Account) -> PathBuf {
    let base = env::temp_dir();
    let enterable = account == Account::Ourselves || base.ancestors().all(is_open_to_all);
    if enterable { base } else { PathBuf::from("/tmp") }
}

fn is_open_to_all(folder: &Path) -> bool {
    // The last ancestor of a relative path is the empty one.
    folder.as_os_str().is_empty() || fs::metadata(folder).is_ok_and(|meta| meta.mode() & 0o001 != 0)
}
