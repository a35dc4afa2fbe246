//! A copy of the source with one thing broken, built and run.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use super::table::{By, Mutant};

/// What the program is built from.
const PARTS: [&str; 6] = ["src", "sql", "tests", "Cargo.toml", "Cargo.lock", "README.md"];
/// How long a simulation may take to catch one, in seconds.
const SECONDS: &str = "180";
/// How many seeds the swarm may take.
const SEEDS: &str = "16";

/// What caught a mutant.
#[derive(Debug)]
pub(super) struct Caught {
    pub(super) seed: String,
    pub(super) invariant: String,
    pub(super) sentence: String,
}

/// The copy.
pub(super) struct Tree {
    source: PathBuf,
    copy: PathBuf,
    target: PathBuf,
}

impl Tree {
    /// The copies of who is to catch what is broken in them.
    pub(super) fn new(source: &Path, by: By) -> Self {
        let folder = source.join("target/mutants").join(by.to_string());
        Self { source: source.to_owned(), copy: folder.join("tree"), target: folder.join("build") }
    }

    /// Builds it and runs it until an invariant is broken. What catches it must hold where nothing is broken.
    ///
    /// # Errors
    ///
    /// What came of it instead: it survived, or it failed in another way.
    pub(super) fn catch(&self, mutant: &Mutant) -> Result<Caught, String> {
        self.keep_whole(mutant.by);
        let text = std::fs::read_to_string(self.source.join(mutant.file)).unwrap();
        assert_eq!(text.matches(mutant.from).count(), 1, "{}: {}", mutant.name, mutant.file);
        let broken = text.replace(mutant.from, mutant.to);
        std::fs::write(self.copy.join(mutant.file), broken).unwrap();
        // Tests make the schema themselves; the rest is in the program.
        let in_program = mutant.by == By::Swarm && !mutant.file.starts_with("sql/migrations");
        let built = match in_program {
            true => self.program(),
            false => self.cargo(mutant.by, &["--no-run"], &[]),
        };
        if !built.status.success() {
            return Err(format!("it does not build:\n{}", said(&built)));
        }
        let ran = match mutant.by {
            By::Simulation => {
                let limits =
                    [("OUTBOX_SIMULATION_SEED", "1"), ("OUTBOX_SIMULATION_SECONDS", SECONDS)];
                let test = "no_schedule_breaks_an_invariant";
                self.cargo(mutant.by, &["--", test, "--nocapture"], &limits)
            }
            By::Swarm if in_program => {
                let mut command = Command::new(self.kept(mutant.by));
                command.args(["swarm::seeds", "--ignored", "--nocapture"]);
                command.env("OUTBOX_SWARM_SEEDS", SEEDS).env("RUST_BACKTRACE", "0");
                command.env("OUTBOX_RELAY_BIN", self.target.join("debug/outbox-relay"));
                command.current_dir(&self.copy).output().unwrap()
            }
            By::Swarm => {
                let seeds = [("OUTBOX_SWARM_SEEDS", SEEDS)];
                self.cargo(mutant.by, &["--", "swarm::seeds", "--ignored", "--nocapture"], &seeds)
            }
        };
        if ran.status.success() {
            return Err("survived".to_owned());
        }
        let said = said(&ran);
        let caught =
            read(&said).ok_or_else(|| format!("it failed without an invariant:\n{said}"))?;
        let whole = self.run_whole(mutant.by, &caught.seed);
        match whole.status.success() {
            true => Ok(caught),
            false => {
                let said = self::said(&whole);
                Err(format!("seed {} fails on the whole program too:\n{said}", caught.seed))
            }
        }
    }

    /// Makes the copy the same as the source, and keeps what is built of that.
    fn keep_whole(&self, by: By) {
        for part in PARTS {
            renew(&self.source.join(part), &self.copy.join(part));
        }
        let kept = self.kept(by);
        if kept.exists() {
            return;
        }
        let built = self.cargo(by, &["--no-run"], &[]);
        let said = said(&built);
        assert!(built.status.success(), "the whole program does not build:\n{said}");
        let target = if by == By::Swarm { "tests/main.rs" } else { "src/lib.rs" };
        let line = said.lines().find(|line| line.contains("Executable") && line.contains(target));
        let path = line.and_then(|line| line.split_once('(')?.1.strip_suffix(')')).unwrap();
        std::fs::copy(self.target.join("debug/outbox-relay"), self.kept_program()).ok();
        std::fs::copy(self.copy.join(path), kept).unwrap();
    }

    fn program(&self) -> Output {
        let mut command =
            Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        command.args(["build", "--features", "failpoints", "--bin", "outbox-relay"]);
        command.current_dir(&self.copy).env("CARGO_TARGET_DIR", &self.target).output().unwrap()
    }

    fn kept(&self, by: By) -> PathBuf {
        self.target.join(format!("whole-{by}-{}", std::process::id()))
    }

    fn kept_program(&self) -> PathBuf {
        self.target.join(format!("whole-program-{}", std::process::id()))
    }

    fn run_whole(&self, by: By, seed: &str) -> Output {
        let mut command = Command::new(self.kept(by));
        match by {
            By::Simulation => {
                command.args(["no_schedule_breaks_an_invariant", "--nocapture"]);
                command.env("OUTBOX_SIMULATION_SEED", seed).env("OUTBOX_SIMULATION_SEEDS", "1");
            }
            By::Swarm => {
                command.args(["swarm::one", "--ignored", "--nocapture"]);
                command.env("OUTBOX_SWARM_SEED", seed).env("OUTBOX_RELAY_BIN", self.kept_program());
            }
        }
        command.current_dir(&self.copy).env("RUST_BACKTRACE", "0").output().unwrap()
    }

    fn cargo(&self, by: By, words: &[&str], variables: &[(&str, &str)]) -> Output {
        let target: &[&str] = match by {
            By::Simulation => &["--lib"],
            By::Swarm => &["--bins", "--test", "it"],
        };
        let mut command =
            Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()));
        command.args(["test", "--features", "failpoints"]).args(target).args(words);
        command.current_dir(&self.copy).env("CARGO_TARGET_DIR", &self.target);
        command.env("RUST_BACKTRACE", "0").envs(variables.iter().copied());
        command.env_remove("OUTBOX_RELAY_BIN");
        if by == By::Simulation {
            // Ten times the schedules for a build of twice the time.
            command.env("CARGO_PROFILE_TEST_OPT_LEVEL", "2");
        }
        command.output().unwrap()
    }
}

fn said(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// The first `I<k> broken: …` that was said, and the seed.
fn read(said: &str) -> Option<Caught> {
    let sentence = said.lines().find_map(|line| {
        let at = line.find(" broken: ")?;
        let invariant = line[..at].rsplit(' ').next()?;
        let number = invariant.strip_prefix('I')?;
        number.parse::<u8>().ok().map(|_| (invariant.to_owned(), line[at + 1..].to_owned()))
    });
    let (invariant, sentence) = sentence?;
    let mut seeds = said.lines().filter_map(|line| {
        let seed = line.trim_start().strip_prefix("seed ")?;
        Some(seed.split(|c: char| !c.is_ascii_digit()).next()?.to_owned())
    });
    Some(Caught { seed: seeds.next_back()?, invariant, sentence })
}

/// Copies what differs, so that only that is built again; removes what is gone.
fn renew(from: &Path, to: &Path) {
    if from.is_dir() {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(to).unwrap() {
            let entry = entry.unwrap();
            if !from.join(entry.file_name()).exists() && entry.file_type().unwrap().is_file() {
                std::fs::remove_file(entry.path()).unwrap();
            }
        }
        for entry in std::fs::read_dir(from).unwrap() {
            let name = entry.unwrap().file_name();
            renew(&from.join(&name), &to.join(&name));
        }
        return;
    }
    let text = std::fs::read(from).unwrap();
    if std::fs::read(to).ok().as_deref() != Some(&text) {
        std::fs::write(to, text).unwrap();
    }
}
