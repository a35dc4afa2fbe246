//! The result of the demo, and the table that shows it.

use std::fmt;
use std::time::Duration;

use super::journal::STREAMS;
use super::reconcile::Counts;
use crate::text::grouped;

/// What the reconciliation found, over all streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DemoOutcome {
    /// Committed events that no worker has processed.
    pub lost: u64,
    /// Events that were rolled back, or that the shop never wrote, and that a worker was given.
    pub ghosts: u64,
    /// Events whose entry comes after the one of a later event of their key.
    pub out_of_order: u64,
    /// Events that were seen under two IDs.
    pub renumbered: u64,
    /// Entries that the workers never got rid of.
    pub stuck: u64,
    /// Events of which the shop could not find out whether they were committed.
    pub unknown: u64,
    /// Whether `outbox-relay verify` exited with 0.
    pub verified: bool,
}

impl DemoOutcome {
    pub(super) fn new(total: &Counts, verified: bool) -> Self {
        Self {
            lost: total.lost,
            ghosts: total.ghosts,
            out_of_order: total.out_of_order,
            renumbered: total.renumbered,
            stuck: total.stuck,
            unknown: total.unknown,
            verified,
        }
    }

    /// Whether the relay kept its promises: exit code 0, else 1.
    pub fn is_clean(&self) -> bool {
        let Self { lost, ghosts, out_of_order, renumbered, stuck, unknown, verified } = *self;
        lost + ghosts + out_of_order + renumbered + stuck + unknown == 0 && verified
    }
}

impl fmt::Display for DemoOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_clean() {
            return f.write_str("Nothing lost, nothing processed twice, nothing out of order.");
        }
        let counts = [
            (self.lost, "lost"),
            (self.ghosts, "without a committed event"),
            (self.out_of_order, "out of order"),
            (self.renumbered, "under two IDs"),
            (self.stuck, "never acknowledged"),
            (self.unknown, "of unknown fate"),
        ];
        let faults = counts.iter().filter(|(count, _)| *count > 0);
        let mut faults: Vec<String> =
            faults.map(|(count, name)| format!("{} {name}", grouped(*count))).collect();
        if !self.verified {
            faults.push("`outbox-relay verify` did not exit with 0".to_owned());
        }
        write!(f, "NOT CLEAN: {}.", faults.join(", "))
    }
}

type Count = fn(&Counts) -> u64;

/// The reconciliation as a table.
pub(super) struct Table<'a> {
    pub(super) counts: &'a [Counts; STREAMS.len()],
    /// After everything was lost, each time.
    pub(super) rebuilds: [Duration; 2],
    /// After what followed a snapshot was lost.
    pub(super) tail_rebuild: Duration,
    pub(super) takeover: Duration,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: [(&str, Count); 10] = [
            ("committed by the shop", |c| c.committed),
            ("rolled back by the shop", |c| c.rolled_back),
            ("processed exactly once", |c| c.processed),
            ("lost: committed, never processed", |c| c.lost),
            ("ghosts: given, not committed", |c| c.ghosts),
            ("out of order within their key", |c| c.out_of_order),
            ("seen under two IDs", |c| c.renumbered),
            ("given again after a loss, skipped", |c| c.repeats),
            ("still in Redis, not trimmed yet", |c| c.left),
            ("of these never acknowledged", |c| c.stuck),
        ];
        let total = self.counts.iter().fold(Counts::default(), |sum, c| sum + *c);
        write!(f, "  {:<36}", "")?;
        for heading in STREAMS.into_iter().chain(["total"]) {
            write!(f, "{heading:>12}")?;
        }
        writeln!(f)?;
        for (name, count) in rows {
            write!(f, "  {name:<36}")?;
            for counts in self.counts.iter().chain([&total]) {
                write!(f, "{:>12}", grouped(count(counts)))?;
            }
            writeln!(f)?;
        }
        let single = |f: &mut fmt::Formatter<'_>, name: &str, time: Duration| {
            let (width, seconds) = (12 * (STREAMS.len() + 1), time.as_secs_f64());
            writeln!(f, "  {name:<36}{seconds:>width$.1}")
        };
        single(f, "seconds to put back what was lost", self.rebuilds[0])?;
        single(f, "the second time", self.rebuilds[1])?;
        single(f, "after the older snapshot", self.tail_rebuild)?;
        single(f, "seconds until the standby took over", self.takeover)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_makes_the_outcome_unclean() {
        let clean = DemoOutcome::new(&Counts::default(), true);
        assert!(clean.is_clean());
        assert!(!DemoOutcome::new(&Counts::default(), false).is_clean());
        let one_fault: [fn(&mut Counts); 6] = [
            |c| c.lost = 1,
            |c| c.ghosts = 1,
            |c| c.out_of_order = 1,
            |c| c.renumbered = 1,
            |c| c.stuck = 1,
            |c| c.unknown = 1,
        ];
        for fault in one_fault {
            let mut counts = Counts::default();
            fault(&mut counts);
            assert!(!DemoOutcome::new(&counts, true).is_clean(), "{counts:?}");
        }
    }

    #[test]
    fn an_unclean_outcome_names_its_faults() {
        let counts = Counts { lost: 1200, ghosts: 1, ..Counts::default() };
        let text = DemoOutcome::new(&counts, true).to_string();
        assert_eq!(text, "NOT CLEAN: 1,200 lost, 1 without a committed event.");
    }

    #[test]
    fn the_table_fits_80_columns() {
        let counts = [Counts { committed: 1_234_567, ..Counts::default() }; STREAMS.len()];
        let table = Table {
            counts: &counts,
            rebuilds: [Duration::from_millis(1_234); 2],
            tail_rebuild: Duration::from_millis(700),
            takeover: Duration::from_secs(3),
        };
        let text = table.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("2,469,134"), "{text}");
    }
}
