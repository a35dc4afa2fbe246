//! A command of the program, run to its end.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::relay::program;

/// Stands for every password in tests; must never be printed.
pub(crate) const SECRET: &str = "hunter2-very-secret";

/// What a command that has ended said.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

/// Runs the program with these words and variables, and nothing else of ours in its environment.
#[track_caller]
pub(crate) fn command(words: &[&str], variables: &[(&str, &str)]) -> Ended {
    let mut command = Command::new(program());
    command.args(words).envs(variables.iter().copied());
    to_the_end(command, Duration::from_secs(60))
}

/// As [`command`], where it has to end badly: exit code `code`, nothing on stdout, one error on
/// stderr that contains each of `texts`, and no secret.
#[track_caller]
pub(crate) fn fails(
    words: &[&str],
    variables: &[(&str, &str)],
    code: i32,
    texts: &[&str],
) -> Ended {
    let ended = command(words, variables);
    let case = format!("{words:?} with {variables:?}\n{ended:#?}");
    assert_eq!(ended.code, Some(code), "{case}");
    assert_eq!(ended.out, "", "{case}");
    assert_eq!(format!("\n{}", ended.err).matches("\nerror: ").count(), 1, "{case}");
    for text in texts {
        assert!(ended.err.contains(text), "no {text:?} in the output of {case}");
    }
    ended.hides(SECRET);
    ended
}

impl Ended {
    /// Nothing printed contains `secret`, nor the half of it before or after a cut.
    #[track_caller]
    pub(crate) fn hides(&self, secret: &str) {
        for part in [secret, &secret[..secret.len() / 2], &secret[secret.len() / 2..]] {
            assert!(!self.err.contains(part), "stderr shows a secret: {}", self.err);
            assert!(!self.out.contains(part), "stdout shows a secret: {}", self.out);
        }
    }
}

/// Waits for the end of a program without filling its pipes.
#[track_caller]
pub(crate) fn to_the_end(mut command: Command, bound: Duration) -> Ended {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| std::fs::File::create(folder.path().join(name)).unwrap();
    let read = |name: &str| read(&folder.path().join(name));
    let begun = Instant::now();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut given: Vec<_> =
        command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    if !given.iter().any(|(name, _)| name == "PATH") {
        given.push(("PATH".into(), path));
    }
    // Tests run side by side; the default port is for one relay.
    command.env_clear().env("OUTBOX_HTTP", "127.0.0.1:0").envs(given);
    command.stdin(Stdio::null()).stdout(file("out")).stderr(file("err"));
    let mut child = command.spawn().unwrap();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            let took = begun.elapsed();
            return Ended { code: status.code(), out: read("out"), err: read("err"), took };
        }
        if begun.elapsed() > bound {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{command:?} did not end within {bound:?}:\n{}{}", read("out"), read("err"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn read(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
}
