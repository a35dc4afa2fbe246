//! How fast it is, beside the limit and beside the textbook, on private servers that each measure starts.
//!
//! `make bench` runs all, `make bench MEASURE=drain` one. What comes out is printed as a table, and kept as
//! JSON below `target/bench`; `picture` draws `benches/results.svg` from it.
//!
//! | file | noun |
//! |---|---|
//! | `drain`, `latency`, `burden`, `growth`, `rebuild`, `memory`, `partitions` | the measures |
//! | `nodes` | a Redis Cluster, as the tests have it |
//! | `limit` | the same statements and scripts, back to back, with nothing between |
//! | `textbook` | the relay that an engineer writes in an afternoon |
//! | `stage`, `load` | the servers and the relay; rows and who writes them |
//! | `result`, `picture` | what was measured; the drawing of it |

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a program for the terminal, and for tests"
)]

mod burden;
mod drain;
mod growth;
mod latency;
mod limit;
mod load;
mod memory;
#[path = "../tests/support/nodes.rs"]
mod nodes;
mod partitions;
mod picture;
mod rebuild;
mod result;
mod stage;
mod textbook;

use clap::{Parser, ValueEnum};

use self::result::Results;

#[derive(Parser)]
#[command(name = "measures")]
struct Options {
    /// What to measure; all if none is named.
    measures: Vec<Measure>,
    /// Runs of each, of which the median counts.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// A hundredth of the work, to see that all of it still runs. The figures mean nothing.
    #[arg(long)]
    short: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Measure {
    Drain,
    Latency,
    Burden,
    Growth,
    Rebuild,
    Memory,
    Partitions,
    Picture,
}

/// How much is done.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    runs: usize,
    short: bool,
}

impl Size {
    /// So many, or a hundredth in short.
    pub(crate) fn of(self, many: u64) -> u64 {
        if self.short { (many / 100).max(1) } else { many }
    }

    /// Seconds, or a tenth in short.
    pub(crate) fn seconds(self, seconds: u64) -> std::time::Duration {
        std::time::Duration::from_millis(seconds * if self.short { 100 } else { 1_000 })
    }

    pub(crate) fn runs(self) -> usize {
        if self.short { 1 } else { self.runs }
    }
}

// One thread, as the relay has it, so that the limit is one.
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let options = Options::parse();
    let size = Size { runs: options.runs, short: options.short };
    let all = [
        Measure::Drain,
        Measure::Latency,
        Measure::Burden,
        Measure::Growth,
        Measure::Rebuild,
        Measure::Memory,
        Measure::Partitions,
    ];
    let chosen = if options.measures.is_empty() { all.to_vec() } else { options.measures };
    for measure in chosen {
        let results = match measure {
            Measure::Drain => drain::measure(size).await,
            Measure::Latency => latency::measure(size).await,
            Measure::Burden => burden::measure(size).await,
            Measure::Growth => growth::measure(size).await,
            Measure::Rebuild => rebuild::measure(size).await,
            Measure::Memory => memory::measure(size).await,
            Measure::Partitions => partitions::measure(size).await,
            Measure::Picture => {
                picture::draw(&Results::read_all());
                continue;
            }
        };
        results.print();
        if !options.short {
            results.write();
        }
    }
}
