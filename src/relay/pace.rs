//! When to search, when to sleep, when to ask for a wake-up. Pure: told the time, reads no clock.
//!
//! ```text
//!            rows                     no rows                       no rows
//!   Awake ─────────▶ Awake   Awake ─────────▶ ask, then search   Asked ─────────▶ are all
//!     ▲ few rows, for long                                        transactions that may not
//!     │                                                           have seen the question over?
//!   Busy ── a breath ──▶ search                                   yes: search once more ─▶ Quiet
//!     ▲ a streak of searches with rows, from anywhere             no:  doze, search
//!   Quiet ── wake-up, or the poll ──▶ search
//! ```

use std::time::Duration;

/// Searches in a row that found rows, after no sleep to speak of, before the relay is busy and stops asking
/// for wake-ups: it does not sleep, and a NOTIFY costs writers a lock of the whole database.
const STREAK: u32 = 8;
/// A sleep that is none to speak of: it ended with a wake-up that was there already, or nearly so.
const NAP: Duration = Duration::from_micros(500);
/// Wait between searches of a busy relay that found all there was: each of them is followed by a commit
/// and a script, and those 700 times a second took of the writers what they do on the same processors.
const BREATH: Duration = Duration::from_millis(5);
/// Rows of a search after a breath, below which polling costs more than wake-ups would: 700 rows a second.
const FEW: usize = 4;
/// A busy relay asks again once the searches that found few rows outweigh the others by this much: at
/// every lull of a busy writer it would ask and stop asking.
const LULL: u32 = 20;
/// First doze while transactions from before the question are still open.
const DOZE: Duration = Duration::from_millis(2);

/// What a search came back with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// Rows that it found.
    pub rows: usize,
    /// It left some for the next one.
    pub more: bool,
}

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
        /// When to look whether they are over.
        look_at: Duration,
    },
    /// Every commit with rows wakes; one last search is due.
    Over,
    /// Every commit with rows wakes, and there were none left: after a wake-up one search is enough.
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
    /// Of a busy relay: by how much searches that found few rows outweigh the others.
    lull: Option<u32>,
}

impl Pace {
    /// Searches at least every `poll`. Without `wakes` it polls only.
    pub fn new(poll: Duration, wakes: bool) -> Self {
        Self { poll, wakes, asking: Asking::No, asked_at: Duration::ZERO, streak: 0, lull: None }
    }

    /// How long a question holds: long enough to be asked again at each poll, short enough that a
    /// relay killed in its sleep stops costing soon.
    pub fn question(&self) -> Duration {
        Duration::from_secs((2.0 * self.poll.as_secs_f64()).ceil() as u64 + 1)
    }

    /// After a search at time `now` (since any fixed moment), before which it slept so long.
    pub fn searched(&mut self, search: Search, slept: Duration, now: Duration) -> Step {
        let Search { rows, more } = search;
        self.streak = match rows {
            0 => 0,
            _ if slept >= NAP => 1,
            _ => self.streak + 1,
        };
        if self.is_busy(rows, more) {
            return self.busy(more);
        }
        if rows > 0 && (more || self.asking != Asking::Quiet) {
            return Step::Search;
        }
        if !self.wakes {
            return Step::Wait(self.poll);
        }
        if self.asking != Asking::No && now.saturating_sub(self.asked_at) >= self.question() {
            // The question ran out unnoticed: whoever wrote since then was not asked.
            self.asking = Asking::No;
        }
        match self.asking {
            Asking::No => Step::Ask,
            Asking::Asked { look_at, .. } if now < look_at => Step::Wait(look_at - now),
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

    /// Counts a search in.
    fn is_busy(&mut self, rows: usize, more: bool) -> bool {
        match self.lull {
            None if self.streak < STREAK => return false,
            None => self.lull = Some(0),
            Some(lull) if rows >= FEW || more => self.lull = Some(lull.saturating_sub(1)),
            Some(lull) if lull + 1 < LULL => self.lull = Some(lull + 1),
            Some(_) => {
                self.lull = None;
                self.streak = 0;
            }
        }
        self.lull.is_some()
    }

    fn busy(&mut self, more: bool) -> Step {
        if self.asking != Asking::No {
            self.asking = Asking::No;
            return Step::StopAsking;
        }
        if more { Step::Search } else { Step::Wait(BREATH.min(self.poll)) }
    }

    /// After asking at time `now`. `now` must have been read before the question was sent.
    pub fn asked(&mut self, now: Duration) -> Step {
        self.asked_at = now;
        if self.asking == Asking::Quiet {
            // Asked again before the last question ran out: nobody was left unasked between.
            return Step::Wait(self.poll);
        }
        self.asking = Asking::Asked { doze: DOZE, look_at: now };
        Step::Search
    }

    /// After looking, at time `now`, whether older transactions are over.
    pub fn checked(&mut self, over: bool, now: Duration) -> Step {
        let Asking::Asked { doze, .. } = self.asking else { return Step::Search };
        if over {
            self.asking = Asking::Over;
            return Step::Search;
        }
        self.asking = Asking::Asked { doze: (doze * 2).min(self.poll), look_at: now + doze };
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

    fn found(pace: &mut Pace, rows: usize, now: Duration) -> Step {
        pace.searched(Search { rows, more: false }, Duration::ZERO, now)
    }

    fn found_more(pace: &mut Pace, rows: usize, now: Duration) -> Step {
        pace.searched(Search { rows, more: true }, Duration::ZERO, now)
    }

    #[test]
    fn sleeps_only_after_a_search_that_followed_the_end_of_older_transactions() {
        let mut pace = Pace::new(POLL, true);
        assert_eq!(found(&mut pace, 0, s(0)), Step::Ask);
        assert_eq!(pace.asked(s(0)), Step::Search);
        assert_eq!(found(&mut pace, 0, s(0)), Step::CheckOver);
        assert_eq!(pace.checked(false, s(0)), Step::Wait(DOZE));
        assert_eq!(found(&mut pace, 0, DOZE / 2), Step::Wait(DOZE / 2), "woken before");
        assert_eq!(found(&mut pace, 0, DOZE), Step::CheckOver);
        assert_eq!(pace.checked(true, s(0)), Step::Search);
        assert_eq!(found(&mut pace, 0, s(0)), Step::Wait(POLL));
    }

    fn quiet() -> Pace {
        let mut pace = Pace::new(POLL, true);
        found(&mut pace, 0, s(0));
        pace.asked(s(0));
        found(&mut pace, 0, s(0));
        pace.checked(true, s(0));
        assert_eq!(found(&mut pace, 0, s(0)), Step::Wait(POLL));
        pace
    }

    #[test]
    fn a_long_transaction_makes_it_doze_ever_longer_but_never_longer_than_the_poll() {
        let mut pace = Pace::new(POLL, true);
        found(&mut pace, 0, s(0));
        pace.asked(s(0));
        let (mut now, mut last) = (s(0), Duration::ZERO);
        for _ in 0..20 {
            pace.asked_at = now;
            assert_eq!(found(&mut pace, 0, now), Step::CheckOver);
            let Step::Wait(doze) = pace.checked(false, now) else { panic!("it must wait") };
            assert!(doze >= last && doze <= POLL);
            (now, last) = (now + doze, doze);
        }
        assert_eq!(last, POLL);
    }

    #[test]
    fn asks_again_at_each_poll_without_starting_over() {
        let mut pace = quiet();
        assert_eq!(found(&mut pace, 0, s(1)), Step::Ask);
        assert_eq!(pace.asked(s(1)), Step::Wait(POLL));
    }

    #[test]
    fn starts_over_when_the_question_ran_out() {
        let mut pace = quiet();
        assert_eq!(found(&mut pace, 0, s(60)), Step::Ask);
        assert_eq!(pace.asked(s(60)), Step::Search);
        assert_eq!(found(&mut pace, 0, s(60)), Step::CheckOver);
    }

    /// A pace that is busy, and asks no more.
    fn busy() -> Pace {
        let mut pace = quiet();
        let steps: Vec<Step> = (0..STREAK).map(|_| found(&mut pace, 1, s(0))).collect();
        assert_eq!(steps.last(), Some(&Step::StopAsking));
        assert!(steps[..steps.len() - 1].iter().all(|step| *step == Step::Wait(POLL)));
        pace
    }

    #[test]
    fn breathes_under_load_unless_there_is_more_to_find() {
        let mut pace = busy();
        assert_eq!(found(&mut pace, FEW, s(0)), Step::Wait(BREATH));
        assert_eq!(found_more(&mut pace, FEW, s(0)), Step::Search);
        assert_eq!(found(&mut pace, 0, s(0)), Step::Wait(BREATH), "a lull is not the end");
    }

    #[test]
    fn a_backlog_from_the_start_is_searched_without_a_breath_and_what_follows_with_one() {
        let mut pace = Pace::new(POLL, true);
        assert!((0..100).all(|_| found_more(&mut pace, 5_000, s(0)) == Step::Search));
        assert_eq!(found(&mut pace, FEW, s(0)), Step::Wait(BREATH));
    }

    /// Searches of a busy relay until it asks again, of which all find few rows but every one `of` so many.
    fn searches_until_it_asks(of: u32) -> Option<u32> {
        let mut pace = busy();
        let rows = |search: u32| if search.is_multiple_of(of) { FEW } else { FEW - 1 };
        (0..10_000).find(|search| found(&mut pace, rows(*search), s(0)) != Step::Wait(BREATH))
    }

    #[test]
    fn asks_anew_beside_a_slow_writer_and_never_beside_a_fast_one() {
        assert!(searches_until_it_asks(3).is_some_and(|searches| searches < 100));
        assert_eq!(searches_until_it_asks(2), None);
        let mut pace = busy();
        while found(&mut pace, 1, s(0)) != Step::Search {}
        assert_eq!(found(&mut pace, 0, s(0)), Step::Ask);
        assert_eq!(pace.asked(s(0)), Step::Search);
    }

    #[test]
    fn rows_now_and_then_leave_the_question_as_it_is_and_need_one_search_each() {
        let mut pace = quiet();
        let one = Search { rows: 1, more: false };
        assert!((0..100).all(|_| pace.searched(one, NAP, s(0)) == Step::Wait(POLL)));
        assert_eq!(found_more(&mut pace, 5_000, s(0)), Step::Search);
        assert_eq!(found(&mut pace, 0, s(0)), Step::Wait(POLL));
    }

    #[test]
    fn rows_do_not_keep_it_from_asking_again() {
        let mut pace = quiet();
        assert_eq!(found(&mut pace, 1, s(1)), Step::Ask);
        assert_eq!(pace.asked(s(1)), Step::Wait(POLL));
    }

    #[test]
    fn polls_only_where_wake_ups_are_off() {
        let mut pace = Pace::new(POLL, false);
        assert_eq!(found(&mut pace, 1, s(0)), Step::Search);
        assert_eq!(found(&mut pace, 0, s(0)), Step::Wait(POLL));
    }
}
