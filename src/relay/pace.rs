//! When to search, when to sleep, when to ask for a wake-up. Pure: told the time, reads no clock.
//!
//! ```text
//!            rows                     no rows                       no rows
//!   Awake ─────────▶ Awake   Awake ─────────▶ ask, then search   Asked ─────────▶ are all
//!   (asks no more after a streak)                                 transactions that may not
//!                                                                 have seen the question over?
//!   Quiet ── wake-up, or the poll ──▶ search                      yes: search once more ─▶ Quiet
//!                                                                 no:  doze, search
//! ```

use std::time::Duration;

/// Searches in a row that found rows before the relay stops asking for wake-ups: it does not sleep,
/// and a NOTIFY costs writers a lock of the whole database.
const STREAK: u32 = 8;
/// After such a streak it asks again once the searches that found nothing outweigh those that found rows
/// by this much, two for one: at every lull of a busy writer it would ask and stop asking, and if it
/// waited for a long lull, a row every 2 ms would keep it polling, with twice the delay of a wake-up.
const LULL: u32 = 40;
/// Wait between such searches.
const LULL_WAIT: Duration = Duration::from_millis(1);
/// First doze while transactions from before the question are still open.
const DOZE: Duration = Duration::from_millis(2);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Search for rows.
    Search,
    /// Ask writers for wake-ups.
    Ask,
    /// Stop asking.
    StopAsking,
    /// See whether every transaction from before the question is over.
    CheckOver,
    /// Wait for a wake-up, at most this long, then search.
    Wait(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asking {
    No,
    /// Asked, but some writer may not have seen it.
    Asked {
        doze: Duration,
    },
    /// Every commit with rows wakes; one last search is due.
    Over,
    /// Every commit with rows wakes, and there were none left.
    Quiet,
}

/// The pace of one reader.
#[derive(Debug)]
pub struct Pace {
    poll: Duration,
    wakes: bool,
    asking: Asking,
    asked_at: Duration,
    streak: u32,
    lull: u32,
}

impl Pace {
    /// Searches at least every `poll`. Without `wakes` it polls only.
    pub fn new(poll: Duration, wakes: bool) -> Self {
        Self { poll, wakes, asking: Asking::No, asked_at: Duration::ZERO, streak: 0, lull: LULL }
    }

    /// How long a question holds: long enough to be asked again at each poll, short enough that a
    /// relay killed in its sleep stops costing soon.
    pub fn question(&self) -> Duration {
        Duration::from_secs((2.0 * self.poll.as_secs_f64()).ceil() as u64 + 1)
    }

    /// After a search at time `now` (since any fixed moment).
    pub fn searched(&mut self, found: bool, now: Duration) -> Step {
        if found {
            self.streak += 1;
            if self.lull < LULL {
                self.lull = self.lull.saturating_sub(1);
            }
            if self.streak >= STREAK && self.asking != Asking::No {
                self.asking = Asking::No;
                self.lull = 0;
                return Step::StopAsking;
            }
            return Step::Search;
        }
        self.streak = 0;
        if !self.wakes {
            return Step::Wait(self.poll);
        }
        if self.lull < LULL {
            self.lull += 2;
            return Step::Wait(LULL_WAIT.min(self.poll));
        }
        if self.asking != Asking::No && now.saturating_sub(self.asked_at) >= self.question() {
            // The question ran out unnoticed: whoever wrote since then was not asked.
            self.asking = Asking::No;
        }
        match self.asking {
            Asking::No => Step::Ask,
            Asking::Asked { .. } => Step::CheckOver,
            Asking::Over | Asking::Quiet => {
                self.asking = Asking::Quiet;
                if now.saturating_sub(self.asked_at) >= self.poll {
                    Step::Ask
                } else {
                    Step::Wait(self.poll)
                }
            }
        }
    }

    /// After asking at time `now`. `now` must have been read before the question was sent.
    pub fn asked(&mut self, now: Duration) -> Step {
        self.asked_at = now;
        if self.asking == Asking::Quiet {
            // Asked again before the last question ran out: nobody was left unasked between.
            return Step::Wait(self.poll);
        }
        self.asking = Asking::Asked { doze: DOZE };
        Step::Search
    }

    /// After looking whether older transactions are over.
    pub fn checked(&mut self, over: bool) -> Step {
        let Asking::Asked { doze } = self.asking else { return Step::Search };
        if over {
            self.asking = Asking::Over;
            return Step::Search;
        }
        self.asking = Asking::Asked { doze: (doze * 2).min(self.poll) };
        Step::Wait(doze)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLL: Duration = Duration::from_secs(1);
    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn sleeps_only_after_a_search_that_followed_the_end_of_older_transactions() {
        let mut pace = Pace::new(POLL, true);
        assert_eq!(pace.searched(false, s(0)), Step::Ask);
        assert_eq!(pace.asked(s(0)), Step::Search);
        assert_eq!(pace.searched(false, s(0)), Step::CheckOver);
        assert_eq!(pace.checked(false), Step::Wait(DOZE));
        assert_eq!(pace.searched(false, s(0)), Step::CheckOver);
        assert_eq!(pace.checked(true), Step::Search);
        assert_eq!(pace.searched(false, s(0)), Step::Wait(POLL));
    }

    fn quiet() -> Pace {
        let mut pace = Pace::new(POLL, true);
        pace.searched(false, s(0));
        pace.asked(s(0));
        pace.searched(false, s(0));
        pace.checked(true);
        assert_eq!(pace.searched(false, s(0)), Step::Wait(POLL));
        pace
    }

    #[test]
    fn a_long_transaction_makes_it_doze_ever_longer_but_never_longer_than_the_poll() {
        let mut pace = Pace::new(POLL, true);
        pace.searched(false, s(0));
        pace.asked(s(0));
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            assert_eq!(pace.searched(false, s(0)), Step::CheckOver);
            let Step::Wait(doze) = pace.checked(false) else { panic!("it must wait") };
            assert!(doze >= last && doze <= POLL);
            last = doze;
        }
        assert_eq!(last, POLL);
    }

    #[test]
    fn asks_again_at_each_poll_without_starting_over() {
        let mut pace = quiet();
        assert_eq!(pace.searched(false, s(1)), Step::Ask);
        assert_eq!(pace.asked(s(1)), Step::Wait(POLL));
    }

    #[test]
    fn starts_over_when_the_question_ran_out() {
        let mut pace = quiet();
        assert_eq!(pace.searched(false, s(60)), Step::Ask);
        assert_eq!(pace.asked(s(60)), Step::Search);
        assert_eq!(pace.searched(false, s(60)), Step::CheckOver);
    }

    #[test]
    fn stops_asking_under_load_and_asks_anew_after_it() {
        let mut pace = quiet();
        let steps: Vec<Step> = (0..STREAK).map(|_| pace.searched(true, s(0))).collect();
        assert_eq!(steps.last(), Some(&Step::StopAsking));
        assert!(steps[..steps.len() - 1].iter().all(|step| *step == Step::Search));
        assert_eq!(pace.searched(true, s(0)), Step::Search);
        for _ in 0..LULL / 2 {
            assert_eq!(pace.searched(false, s(0)), Step::Wait(LULL_WAIT), "a lull is not the end");
        }
        assert_eq!(pace.searched(false, s(0)), Step::Ask);
        assert_eq!(pace.asked(s(0)), Step::Search);
    }

    /// Searches until it asks again, of which `found` in `of` find rows.
    fn searches_until_it_asks(found: u32, of: u32) -> Option<u32> {
        let mut pace = quiet();
        for _ in 0..STREAK {
            pace.searched(true, s(0));
        }
        (0..10_000).find(|search| pace.searched(search % of < found, s(0)) == Step::Ask)
    }

    #[test]
    fn asks_anew_beside_a_slow_writer_and_never_beside_a_fast_one() {
        assert!(searches_until_it_asks(1, 2).is_some_and(|searches| searches < 100));
        assert_eq!(searches_until_it_asks(3, 4), None);
    }

    #[test]
    fn a_row_now_and_then_leaves_the_question_as_it_is() {
        let mut pace = quiet();
        assert_eq!(pace.searched(true, s(0)), Step::Search);
        assert_eq!(pace.searched(false, s(0)), Step::Wait(POLL));
    }

    #[test]
    fn polls_only_where_wake_ups_are_off() {
        let mut pace = Pace::new(POLL, false);
        assert_eq!(pace.searched(true, s(0)), Step::Search);
        assert_eq!(pace.searched(false, s(0)), Step::Wait(POLL));
    }
}
