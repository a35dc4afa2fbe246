//! What many runs came to.

use std::collections::BTreeMap;
use std::fmt;

use super::kind::Kind;
use super::run::Outcome;

#[derive(Default)]
pub(crate) struct Tally {
    runs: u64,
    injected: BTreeMap<Kind, u64>,
    written: u64,
    looks: u64,
    /// Entries that Redis lost.
    lost: u64,
    missing: u64,
    doubled: u64,
    disordered: u64,
    needless: u64,
    broken: Vec<String>,
}

impl Tally {
    pub(crate) fn add(&mut self, outcome: &Outcome) {
        let verdict = &outcome.verdict;
        self.runs += 1;
        for (kind, times) in &outcome.injected {
            *self.injected.entry(*kind).or_default() += times;
        }
        self.written += verdict.written;
        self.looks += outcome.looks;
        self.lost += verdict.lost;
        self.missing += verdict.missing;
        self.doubled += verdict.doubled;
        self.disordered += verdict.disordered;
        self.needless += verdict.needless;
        self.broken.extend(verdict.broken.iter().cloned());
    }

    /// Writes it down for other programs.
    pub(crate) fn save(&self) {
        let faults: serde_json::Map<String, serde_json::Value> =
            self.injected.iter().map(|(kind, n)| (kind.to_string(), (*n).into())).collect();
        let json = serde_json::json!({
            "runs": self.runs,
            "faults": faults,
            "rows_written": self.written,
            "looks": self.looks,
            "entries_lost_by_redis": self.lost,
            "lost": self.missing,
            "duplicated": self.doubled,
            "out_of_order": self.disordered,
            "redelivered_needlessly": self.needless,
            "broken": self.broken,
        });
        let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(folder.join("swarm.json"), format!("{json:#}\n")).unwrap();
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{:<24} {:>8}  stands for failures", "fault", "times")?;
        for (kind, times) in &self.injected {
            let rows: Vec<String> = kind.rows().iter().map(u8::to_string).collect();
            writeln!(f, "{kind:<24} {times:>8}  {}", rows.join(", "))?;
        }
        let counts = [
            ("runs", self.runs),
            ("kinds of faults", self.injected.len() as u64),
            ("faults", self.injected.values().sum()),
            ("rows written", self.written),
            ("looks at a stream", self.looks),
            ("entries lost by Redis", self.lost),
            ("lost", self.missing),
            ("duplicated", self.doubled),
            ("out of order", self.disordered),
            ("redelivered needlessly", self.needless),
            ("invariants broken", self.broken.len() as u64),
        ];
        writeln!(f)?;
        for (name, count) in counts {
            writeln!(f, "{name:<24} {count:>8}")?;
        }
        Ok(())
    }
}
