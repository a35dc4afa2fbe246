//! What was measured: a figure a run, of which the median counts.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::stage::Stage;

/// One measure.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) measure: String,
    /// Processors, memory, kernel, and the versions of the servers.
    pub(crate) machine: String,
    pub(crate) rows: Vec<Row>,
}

/// One line of the table.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: String,
    /// One figure a run, in the order of the runs.
    pub(crate) figures: Vec<f64>,
}

impl Row {
    fn sorted(&self) -> Vec<f64> {
        let mut sorted = self.figures.clone();
        sorted.sort_by(f64::total_cmp);
        sorted
    }

    /// The middle one, or the mean of the two in the middle.
    pub(crate) fn median(&self) -> f64 {
        let sorted = self.sorted();
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            even if even.is_multiple_of(2) => (sorted[middle - 1] + sorted[middle]) / 2.0,
            _ => sorted[middle],
        }
    }
}

impl Results {
    pub(crate) fn new(measure: &str, stage: &Stage) -> Self {
        let machine = format!("{}, {}", machine(), stage.servers);
        Self { measure: measure.to_owned(), machine, rows: Vec::new() }
    }

    /// Adds the figure of one run.
    pub(crate) fn add(&mut self, what: &str, unit: &str, figure: f64) {
        let known = self.rows.iter_mut().find(|row| row.what == what);
        match known {
            Some(row) => row.figures.push(figure),
            None => self.rows.push(Row {
                what: what.to_owned(),
                unit: unit.to_owned(),
                figures: vec![figure],
            }),
        }
        println!("  {what}: {} {unit}", shown(figure));
    }

    /// Adds how two rows compare, run by run.
    pub(crate) fn ratio(&mut self, what: &str, of: &str, to: &str) {
        let figures = |name: &str| {
            self.rows.iter().find(|row| row.what == name).map(|row| row.figures.clone())
        };
        let Some((of, to)) = figures(of).zip(figures(to)) else { return };
        let figures = of.iter().zip(&to).map(|(of, to)| of / to).collect();
        self.rows.push(Row { what: what.to_owned(), unit: "ratio".to_owned(), figures });
    }

    pub(crate) fn print(&self) {
        println!("\n{}, on {}", self.measure, self.machine);
        let width = self.rows.iter().map(|row| row.what.len()).max().unwrap_or(0).max(4);
        println!("  {:width$}  {:>10}  {:>10}  {:>10}  unit", "what", "median", "min", "max");
        for row in &self.rows {
            let sorted = row.sorted();
            let ends = [sorted.first(), sorted.last()]
                .map(|end| end.copied().map_or(String::new(), shown));
            println!(
                "  {:width$}  {:>10}  {:>10}  {:>10}  {}",
                row.what,
                shown(row.median()),
                ends[0],
                ends[1],
                row.unit
            );
        }
        println!();
    }

    fn folder() -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/bench")
    }

    pub(crate) fn write(&self) {
        std::fs::create_dir_all(Self::folder()).unwrap();
        let file = Self::folder().join(format!("{}.json", self.measure));
        std::fs::write(&file, serde_json::to_string_pretty(self).unwrap() + "\n").unwrap();
        println!("kept in {}", file.display());
    }

    /// What was kept of all measures, by name.
    pub(crate) fn read_all() -> Vec<Self> {
        let Ok(folder) = std::fs::read_dir(Self::folder()) else { return Vec::new() };
        let files = folder.filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok());
        let mut all: Vec<Self> =
            files.filter_map(|text| serde_json::from_str(&text).ok()).collect();
        all.sort_by(|a, b| a.measure.cmp(&b.measure));
        all
    }
}

/// Three digits that count.
pub(crate) fn shown(figure: f64) -> String {
    match figure.abs() {
        large if large >= 1_000.0 => {
            let digits = format!("{figure:.0}");
            let at = |index: usize| index > 0 && (digits.len() - index).is_multiple_of(3);
            let mut text = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if at(index) {
                    text.push(',');
                }
                text.push(digit);
            }
            text
        }
        middle if middle >= 100.0 => format!("{figure:.0}"),
        middle if middle >= 10.0 => format!("{figure:.1}"),
        _ => format!("{figure:.2}"),
    }
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("an unnamed processor", |(_, name)| name.trim());
    let memory = read("/proc/meminfo");
    let memory = memory.lines().find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: u64 = memory
        .and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{cores} cores of {model}, {} GiB", kib >> 20)
}
