//! How the demo stands at one moment, as a line and as a block of lines.

use std::time::Duration;

use super::narrator::Kill;
use super::relay_log::Role;
use super::relays::NAMES;
use crate::text::grouped;

/// The counts are taken one after the other, so that they may differ by what happened in between.
#[derive(Clone, Debug)]
pub(super) struct Moment {
    pub(super) now: Duration,
    pub(super) committed: u64,
    /// `None` while Redis does not answer.
    pub(super) entries: Option<u64>,
    pub(super) processed: u64,
    pub(super) roles: [Role; NAMES.len()],
    pub(super) last_kill: Option<Kill>,
}

impl Moment {
    /// For a log or a pipe.
    pub(super) fn line(&self) -> String {
        let (committed, processed) = (grouped(self.committed), grouped(self.processed));
        format!(
            "  committed {committed:>7}   processed {processed:>7}   to process {:>6}   in Redis {:>6}",
            self.to_process(),
            self.entries(),
        )
    }

    /// For the foot of a terminal.
    pub(super) fn block(&self) -> String {
        let left = [
            ("committed by the shop", grouped(self.committed)),
            ("processed by workers", grouped(self.processed)),
            ("to process", self.to_process()),
            ("entries in Redis", self.entries()),
        ];
        let [one, two] = self.roles.map(describe);
        let right =
            [(NAMES[0], one), (NAMES[1], two), ("killed", self.killed()), ("", String::new())];
        let row = |((left, count), (right, text)): ((&str, String), (&str, String))| {
            let row = format!("  {left:<22}{count:>10}     {right:<9}{text}");
            format!("\n{}", row.trim_end())
        };
        left.into_iter().zip(right).map(row).collect()
    }

    fn entries(&self) -> String {
        self.entries.map_or_else(|| "away".to_owned(), grouped)
    }

    fn to_process(&self) -> String {
        grouped(self.committed.saturating_sub(self.processed))
    }

    fn killed(&self) -> String {
        let Some(Kill { what, at }) = self.last_kill else { return "nothing so far".to_owned() };
        let (at, ago) = (at.as_secs_f64(), self.now.saturating_sub(at).as_secs_f64());
        format!("{what} at {at:.1} s, {ago:.1} s ago")
    }
}

fn describe(role: Role) -> String {
    let words = match role {
        Role::Leads(token) => return format!("leads with token {token}"),
        Role::StandsBy => "stands by",
        Role::Starts => "starts",
        Role::Reconnects => "reconnects",
        Role::Killed => "killed",
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment() -> Moment {
        Moment {
            now: Duration::from_secs(12),
            committed: 1_234_567,
            entries: Some(600),
            processed: 1_234_000,
            roles: [Role::Killed, Role::Leads(2)],
            last_kill: Some(Kill { what: "relay-1", at: Duration::from_millis(10_500) }),
        }
    }

    #[test]
    fn the_block_tells_everything_in_80_columns() {
        let block = moment().block();
        for text in ["1,234,567", "567   ", "leads with token 2", "relay-1 at 10.5 s, 1.5 s ago"] {
            assert!(format!("{block}\n").contains(text), "no {text:?} in {block}");
        }
        assert!(block.lines().all(|line| line.chars().count() <= 80), "{block}");
    }

    #[test]
    fn nothing_is_to_process_when_the_workers_are_ahead_of_the_till() {
        let ahead = Moment { committed: 5, processed: 6, ..moment() };
        assert!(ahead.line().contains("to process      0"), "{}", ahead.line());
        let away = Moment { entries: None, ..moment() };
        assert!(away.line().ends_with("in Redis   away"), "{}", away.line());
    }
}
