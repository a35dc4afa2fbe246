//! The demo as a newcomer runs it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use std::os::unix::process::CommandExt as _;

use crate::support::relay::program;

/// Starts the demo in a process group of its own, with its files in `folder`.
fn start(folder: &Path) -> Child {
    Command::new(program())
        .args(["demo", "--seconds", "6"])
        .env("TMPDIR", folder)
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// A folder that the servers' own user may enter, too.
fn folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// Waits until nothing of the demo is left: no file, and no process that names the folder.
#[track_caller]
fn nothing_left(folder: &Path) {
    let begun = Instant::now();
    loop {
        let files = std::fs::read_dir(folder).unwrap().count();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let processes = Command::new("ps").args(["-eo", "args"]).output().unwrap().stdout;
        let processes = String::from_utf8_lossy(&processes).matches(name).count();
        if files == 0 && processes == 0 {
            return;
        }
        let bound = Duration::from_secs(30);
        assert!(begun.elapsed() < bound, "{files} files and {processes} processes are left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn said(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

#[test]
fn the_demo_loses_redis_and_the_relay_and_nothing_else() {
    let folder = folder();
    let output = start(folder.path()).wait_with_output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("Nothing lost, nothing twice, nothing out of order."), "{text}");
    assert!(text.contains("Redis is killed (SIGKILL)"), "{text}");
    nothing_left(folder.path());
}

#[test]
fn the_demo_leaves_nothing_behind_after_ctrl_c() {
    use std::io::BufRead as _;
    let folder = folder();
    let mut demo = start(folder.path());
    let mut lines = std::io::BufReader::new(demo.stdout.take().unwrap()).lines();
    let started = lines.any(|line| line.unwrap().contains("the relay delivers"));
    assert!(started, "it ended before it began");
    kill_process_group(Pid::from_child(&demo), Signal::INT).unwrap();
    lines.for_each(drop);
    let status = demo.wait().unwrap();
    assert_eq!(status.code(), Some(130));
    nothing_left(folder.path());
}
