//! One door: its corpus, then mutations of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::mutate::Mutator;
use crate::support::dice::Dice;

/// Seconds per door, unless `OUTBOX_FUZZ_SECONDS` says otherwise.
const SECONDS: u64 = 3;
/// Mutations of one file of the corpus that are tried before the next one's turn.
const IN_A_ROW: usize = 10;

/// What is tried at a door.
#[derive(Clone, Debug)]
pub(super) struct Input {
    /// Name of the file in the corpus that it is, or was made of.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
    pub(super) is_mutated: bool,
}

/// The inputs of a door, one after another. Keeps the one at which the test panics.
pub(super) struct Door {
    name: &'static str,
    corpus: Vec<Input>,
    mutator: Mutator,
    dice: Dice,
    deadline: Instant,
    tried: usize,
    current: Option<Input>,
}

fn folder(door: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(door)
}

/// How long a door is tried.
pub(super) fn seconds() -> Duration {
    let given = std::env::var("OUTBOX_FUZZ_SECONDS").ok();
    Duration::from_secs(given.map_or(SECONDS, |text| text.parse().unwrap()))
}

impl Door {
    pub(super) fn open(name: &'static str) -> Self {
        let files = std::fs::read_dir(folder(name)).unwrap().map(|file| file.unwrap().path());
        let mut corpus: Vec<Input> = files
            .map(|path| Input {
                name: path.file_name().unwrap().to_str().unwrap().to_owned(),
                bytes: std::fs::read(&path).unwrap(),
                is_mutated: false,
            })
            .collect();
        corpus.sort_by(|a, b| a.name.cmp(&b.name));
        let mutator = Mutator::new(corpus.iter().map(|input| input.bytes.clone()).collect());
        let deadline = Instant::now() + seconds();
        Self { name, corpus, mutator, dice: Dice::new(), deadline, tried: 0, current: None }
    }

    /// The next input; None when the time is over and all of the corpus has been tried.
    pub(super) fn next(&mut self) -> Option<Input> {
        let (at, count) = (self.tried, self.corpus.len());
        self.tried += 1;
        let input = match self.corpus.get(at) {
            Some(input) => input.clone(),
            None if Instant::now() >= self.deadline => {
                self.current = None;
                println!("{}: {} inputs, {count} of them from the corpus", self.name, at);
                return None;
            }
            None => {
                let base = &self.corpus[(at / IN_A_ROW + self.dice.below(3) as usize) % count];
                let bytes = self.mutator.mutate(&base.bytes, &mut self.dice);
                Input { name: base.name.clone(), bytes, is_mutated: true }
            }
        };
        self.current = Some(input.clone());
        Some(input)
    }

    /// Dice for what is chosen beside the input.
    pub(super) fn dice(&mut self) -> &mut Dice {
        &mut self.dice
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        let Some(input) = self.current.take().filter(|_| std::thread::panicking()) else { return };
        let shown = input.bytes.escape_ascii().to_string();
        eprintln!("{}: failed on {}: {}", self.name, input.name, &shown[..shown.len().min(2_000)]);
        if input.is_mutated {
            // The first word of the name tells a door what to do with it.
            let kind = input.name.split('-').next().unwrap_or_default();
            let number = uuid::Uuid::new_v4().simple().to_string();
            let file = folder(self.name).join(format!("{kind}-found-{}", &number[..8]));
            eprintln!("kept as {}: {:?}", file.display(), std::fs::write(&file, &input.bytes));
        }
    }
}
