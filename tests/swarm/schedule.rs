//! From a seed to what happens when. Pure, printable, and read back from what was printed.

use std::fmt;
use std::str::FromStr;

use super::kind::Kind;
use crate::support::dice::Dice;

/// Everything that is decided before a run begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) settings: Settings,
    pub(crate) faults: Vec<Planned>,
}

/// One fault, and when it happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Planned {
    /// Milliseconds after the beginning.
    pub(crate) at: u64,
    pub(crate) kind: Kind,
    /// Milliseconds until it is healed.
    pub(crate) lasts: u64,
    /// Which stream, relay or number of bytes, as the fault sees fit.
    pub(crate) pick: u64,
}

macro_rules! settings {
    ($($(#[$meaning:meta])* $field:ident $name:literal;)*) => {
        /// How relay, writers and consumers are set up; 0 stands for no and for none.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub(crate) struct Settings { $($(#[$meaning])* pub(crate) $field: u64,)* }

        impl Settings {
            fn named(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$field),)*]
            }

            fn set(&mut self, name: &str, value: u64) -> Result<(), String> {
                match name {
                    $($name => self.$field = value,)*
                    _ => return Err(format!("no setting is called {name:?}")),
                }
                Ok(())
            }
        }
    };
}

settings! {
    /// Milliseconds of traffic.
    length "length";
    batch_rows "batch-rows";
    /// The streams have a prefix in Redis.
    prefix "prefix";
    wake "wake";
    checkpoint "checkpoint";
    lease "lease";
    audit "audit";
    relays "relays";
    limit "limit";
    /// Milliseconds for which rows are kept.
    retention "retention";
    writers "writers";
    streams "streams";
    groups "groups";
    /// Redis keeps an append-only file.
    aof "aof";
    /// One more writer, whose commits do not wait for the disk.
    hasty "hasty";
    /// Consumers take their time.
    slow "slow";
}

impl Schedule {
    /// The schedule of a seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut dice = Dice::seeded(seed);
        let kinds = some_kinds(&mut dice);
        let settings = settings(&mut dice, &kinds);
        let mut faults = Vec::new();
        let gap = 150 + dice.below(500);
        let mut at = 300 + dice.below(300);
        while at < settings.length {
            let kind = kinds[dice.below(kinds.len() as u64) as usize];
            let (least, most) = kind.lasts();
            let lasts = least + dice.below(most - least + 1);
            faults.push(Planned { at, kind, lasts, pick: dice.below(100_000) });
            at += 1 + dice.below(2 * gap);
        }
        Self { seed, settings, faults }
    }

    pub(crate) fn has(&self, kind: Kind) -> bool {
        self.faults.iter().any(|fault| fault.kind == kind)
    }
}

/// A random few: a fault that never happens leaves the others room to go further.
fn some_kinds(dice: &mut Dice) -> Vec<Kind> {
    let most = 2 + dice.below(7) as usize;
    let mut kinds = Vec::new();
    // What all of this is about is not left to chance.
    if !dice.one_in(4) {
        let losses: Vec<Kind> = Kind::ALL.iter().copied().filter(|kind| kind.loses()).collect();
        kinds.push(losses[dice.below(losses.len() as u64) as usize]);
    }
    while kinds.len() < most {
        let kind = Kind::ALL[dice.below(Kind::ALL.len() as u64) as usize];
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    kinds
}

fn settings(dice: &mut Dice, kinds: &[Kind]) -> Settings {
    let mut one_of = |choices: &[u64]| choices[dice.below(choices.len() as u64) as usize];
    let has = |kind| u64::from(kinds.contains(&kind));
    Settings {
        length: one_of(&[2_500, 3_000, 4_000]),
        batch_rows: one_of(&[1, 7, 20, 200, 5_000]),
        prefix: one_of(&[0, 1]),
        wake: one_of(&[0, 1]),
        checkpoint: one_of(&[100, 100, 300, 1_000]),
        lease: one_of(&[1_000, 2_000]),
        audit: one_of(&[100, 500]),
        relays: one_of(&[1, 2]),
        limit: one_of(&[0, 0, 300]),
        retention: one_of(&[0, 0, 1_000]),
        writers: one_of(&[2, 3, 4]),
        streams: one_of(&[2, 3, 4]),
        groups: one_of(&[1, 2, 3]),
        aof: has(Kind::AofCut),
        hasty: has(Kind::PostgresCrash) * one_of(&[0, 1, 1]),
        slow: one_of(&[0, 0, 1]),
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}", self.seed)?;
        for (name, value) in self.settings.named() {
            writeln!(f, "set {name} {value}")?;
        }
        for fault in &self.faults {
            writeln!(f, "{fault}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} {} for {} pick {}", self.at, self.kind, self.lasts, self.pick)
    }
}

impl FromStr for Schedule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut schedule = Self { seed: 0, settings: Settings::default(), faults: Vec::new() };
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
            let number = |word: &str| word.parse().map_err(|_| format!("no number in {line:?}"));
            match line.split_whitespace().collect::<Vec<_>>()[..] {
                ["seed", seed] => schedule.seed = number(seed)?,
                ["set", name, value] => schedule.settings.set(name, number(value)?)?,
                ["at", at, kind, "for", lasts, "pick", pick] => schedule.faults.push(Planned {
                    at: number(at)?,
                    kind: kind.parse()?,
                    lasts: number(lasts)?,
                    pick: number(pick)?,
                }),
                _ => return Err(format!("{line:?} is no line of a schedule")),
            }
        }
        schedule.faults.sort_by_key(|fault| fault.at);
        Ok(schedule)
    }
}

#[test]
fn a_seed_gives_one_schedule_and_it_reads_what_it_prints() {
    for seed in 0..200 {
        let schedule = Schedule::of(seed);
        assert_eq!(schedule, Schedule::of(seed));
        assert_eq!(schedule.to_string().parse(), Ok(schedule));
    }
}

#[test]
fn every_kind_of_fault_has_its_turn() {
    let schedules: Vec<Schedule> = (0..500).map(Schedule::of).collect();
    for kind in Kind::ALL {
        assert!(schedules.iter().any(|s| s.has(*kind)), "{kind} never happens");
    }
}
