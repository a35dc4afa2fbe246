//! What to do with one stream, from where Redis has it and where the log has it. Pure.

use std::ops::RangeInclusive;

use crate::position::Position;
use crate::stream::Place;

/// What is known of one stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where Redis has it (R).
    pub place: Place,
    /// The log gave R to an entry of this stream.
    pub in_log: bool,
    /// The last sealed position (P).
    pub sealed: Position,
    /// The last number that is known to have been in Redis.
    pub confirmed: u64,
    /// Every consumer group has acknowledged up to here (F).
    pub floor: Position,
    /// The log has been purged up to here and no longer knows what was before.
    pub purged: Position,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Redis has all that is sealed.
    InStep,
    /// Append what follows `after`; if `lost` is set, Redis had it and lost it.
    Replay {
        /// Where Redis is.
        after: Position,
        /// Numbers that Redis had and lost.
        lost: Option<RangeInclusive<u64>>,
    },
    /// The stream is gone: make it again so that it begins behind `floor`, then append the rest.
    Bootstrap {
        /// Where it begins.
        floor: Position,
        /// Numbers that Redis had and lost.
        lost: Option<RangeInclusive<u64>>,
    },
    /// An old state came back whose missing part is acknowledged: move it on to the floor, then
    /// append the rest.
    Forward {
        /// Where it goes on.
        floor: Position,
        /// Numbers that Redis had and lost.
        lost: Option<RangeInclusive<u64>>,
    },
    /// Redis has more than the log: look at the entries after `sealed` to see whose they are.
    Ahead {
        /// Where Redis is.
        at: Position,
    },
    /// Somebody else wrote to the stream; it waits for a person.
    Foreign {
        /// Where Redis is.
        at: Position,
    },
    /// The key holds something else; the stream waits for a person.
    WrongType {
        /// What TYPE says.
        kind: String,
    },
}

/// The decision table: the first rule that holds.
pub fn decide(finding: &Finding) -> Verdict {
    let lost = |after: u64| (finding.confirmed > after).then(|| after + 1..=finding.confirmed);
    let at = match &finding.place {
        Place::WrongType(kind) => return Verdict::WrongType { kind: kind.clone() },
        Place::Missing => Position::START,
        Place::At(position) => *position,
    };
    if at == finding.sealed && (at == Position::START || matches!(finding.place, Place::At(_))) {
        Verdict::InStep
    } else if at == Position::START && finding.floor == Position::START {
        Verdict::Replay { after: at, lost: lost(0) }
    } else if at == Position::START {
        Verdict::Bootstrap { floor: finding.floor, lost: lost(finding.floor.n) }
    } else if at > finding.sealed {
        Verdict::Ahead { at }
    } else if !finding.in_log && (at.ms > finding.purged.ms || at.n > finding.purged.n) {
        Verdict::Foreign { at }
    } else if at.n < finding.floor.n {
        // By their numbers: a floor among entries that Postgres lost has the time of what follows them.
        Verdict::Forward { floor: finding.floor, lost: lost(finding.floor.n) }
    } else {
        Verdict::Replay { after: at, lost: lost(at.n) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64, n: u64) -> Position {
        Position { ms, n }
    }

    fn finding(place: Place) -> Finding {
        let (floor, purged) = (Position::START, Position::START);
        Finding { place, in_log: true, sealed: at(90, 9), confirmed: 9, floor, purged }
    }

    #[test]
    fn in_step() {
        assert_eq!(decide(&finding(Place::At(at(90, 9)))), Verdict::InStep);
    }

    #[test]
    fn nothing_sealed_and_nothing_there_is_in_step() {
        for place in [Place::Missing, Place::At(Position::START)] {
            let empty = Finding { sealed: Position::START, confirmed: 0, ..finding(place) };
            assert_eq!(decide(&empty), Verdict::InStep);
        }
    }

    #[test]
    fn behind_with_nothing_confirmed_beyond_is_backlog() {
        let backlog = Finding { confirmed: 5, ..finding(Place::At(at(50, 5))) };
        assert_eq!(decide(&backlog), Verdict::Replay { after: at(50, 5), lost: None });
    }

    #[test]
    fn behind_what_was_confirmed_is_a_loss_of_exactly_that_range() {
        let tail = decide(&finding(Place::At(at(50, 5))));
        assert_eq!(tail, Verdict::Replay { after: at(50, 5), lost: Some(6..=9) });
    }

    #[test]
    fn a_missing_stream_begins_again() {
        for place in [Place::Missing, Place::At(Position::START)] {
            let all = decide(&finding(place));
            assert_eq!(all, Verdict::Replay { after: Position::START, lost: Some(1..=9) });
        }
    }

    #[test]
    fn a_missing_stream_that_never_arrived_is_backlog() {
        let new = Finding { confirmed: 0, ..finding(Place::Missing) };
        assert_eq!(decide(&new), Verdict::Replay { after: Position::START, lost: None });
    }

    #[test]
    fn a_missing_stream_begins_behind_its_floor() {
        let lost = Finding { floor: at(30, 3), ..finding(Place::Missing) };
        let expected = Verdict::Bootstrap { floor: at(30, 3), lost: Some(4..=9) };
        assert_eq!(decide(&lost), expected);
        // All of it acknowledged: nothing to append, but the chain must go on at the floor.
        let done = Finding { floor: at(90, 9), ..finding(Place::Missing) };
        assert_eq!(decide(&done), Verdict::Bootstrap { floor: at(90, 9), lost: None });
    }

    #[test]
    fn an_old_state_below_the_floor_moves_on_to_the_floor() {
        let old = Finding { floor: at(70, 7), ..finding(Place::At(at(50, 5))) };
        assert_eq!(decide(&old), Verdict::Forward { floor: at(70, 7), lost: Some(8..=9) });
    }

    #[test]
    fn an_old_state_that_the_log_has_been_purged_of_is_ours() {
        let old = Finding {
            in_log: false,
            floor: at(70, 7),
            purged: at(60, 6),
            ..finding(Place::At(at(50, 5)))
        };
        assert_eq!(decide(&old), Verdict::Forward { floor: at(70, 7), lost: Some(8..=9) });
        for foreign in [at(50, 7), at(61, 2)] {
            let foreign = Finding { place: Place::At(foreign), ..old.clone() };
            assert!(matches!(decide(&foreign), Verdict::Foreign { .. }), "{foreign:?}");
        }
    }

    #[test]
    fn beyond_the_log_is_ahead_whatever_its_number() {
        for place in [at(95, 10), at(99, 0), at(90, 10)] {
            let ahead = Finding { in_log: false, ..finding(Place::At(place)) };
            assert_eq!(decide(&ahead), Verdict::Ahead { at: place });
        }
    }

    #[test]
    fn a_position_that_the_log_does_not_have_is_foreign() {
        for place in [at(51, 5), at(50, 77), at(1, 0)] {
            let foreign = Finding { in_log: false, ..finding(Place::At(place)) };
            assert_eq!(decide(&foreign), Verdict::Foreign { at: place });
        }
    }

    #[test]
    fn another_type_waits_for_a_person() {
        let wrong = finding(Place::WrongType("string".to_owned()));
        assert_eq!(decide(&wrong), Verdict::WrongType { kind: "string".to_owned() });
    }
}
