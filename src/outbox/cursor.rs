//! How far rows have been found. Pure: no I/O, no clock.

use std::str::FromStr;

/// A `pg_snapshot`: which transactions had ended at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    text: String,
    xmax: String,
    in_progress: Vec<String>,
}

impl Snapshot {
    /// As Postgres prints it, `xmin:xmax:xid,xid,…`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Transactions from here on had not ended.
    pub fn xmax(&self) -> &str {
        &self.xmax
    }

    /// Transactions below `xmax` that had not ended.
    pub fn in_progress(&self) -> &[String] {
        &self.in_progress
    }
}

impl FromStr for Snapshot {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let (Some(_), Some(xmax), Some(list)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(format!("{text:?} is not a snapshot like 10:20:11,15"));
        };
        let in_progress = list.split(',').filter(|xid| !xid.is_empty());
        Ok(Self {
            text: text.to_owned(),
            xmax: xmax.to_owned(),
            in_progress: in_progress.map(str::to_owned).collect(),
        })
    }
}

/// How far rows have been found: every row that `base` shows, and of the rows that `target` shows
/// besides, those with an id up to `through`. A successor goes on exactly there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// All that this snapshot shows has been found.
    pub base: Snapshot,
    /// The snapshot being worked through, with the last id found in it.
    pub window: Option<(Snapshot, i64)>,
    /// Where the search by id begins: above it rows are read in id order, below it they are looked
    /// up by transaction. A hint; any value finds the same rows.
    pub high: i64,
}

/// What one search returned, without the rows themselves.
#[derive(Clone, Debug)]
pub struct Search {
    /// The snapshot that the rows were found in.
    pub snapshot: Snapshot,
    /// The last id that any transaction had drawn.
    pub drawn: i64,
    /// The id of the last row taken, if any was.
    pub last_id: Option<i64>,
    /// More rows of the snapshot may follow.
    pub more: bool,
    /// The lookup of newer transactions below `high` reached its limit.
    pub cut: bool,
}

impl Cursor {
    /// The last id found in the window being worked through; every id is above it otherwise.
    pub fn after(&self) -> i64 {
        self.window.as_ref().map_or(i64::MIN, |(_, through)| *through)
    }

    /// Where the search goes on after `search`.
    pub fn advance(self, search: Search) -> Self {
        if !search.more {
            // The window is done. Ids drawn up to now belong to transactions that are either found
            // or listed in the snapshot, so the next search by id begins behind them.
            return Self { base: search.snapshot, window: None, high: search.drawn.max(self.high) };
        }
        let through = search.last_id.unwrap_or_else(|| self.after());
        let high = if search.cut {
            // Many new rows below `high`, as after a bulk load that overtook others: from here on
            // one ordered scan is cheaper than a lookup per batch.
            through.min(self.high)
        } else {
            self.high
        };
        Self { base: self.base, window: Some((search.snapshot, through)), high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(text: &str) -> Snapshot {
        text.parse().expect("a snapshot")
    }

    fn cursor() -> Cursor {
        Cursor { base: snapshot("5:5:"), window: None, high: 100 }
    }

    fn search(last_id: Option<i64>, more: bool) -> Search {
        Search { snapshot: snapshot("5:9:5,7"), drawn: 140, last_id, more, cut: false }
    }

    #[test]
    fn reads_a_snapshot() {
        let parsed = snapshot("5:9:5,7");
        assert_eq!((parsed.xmax(), parsed.in_progress().len()), ("9", 2));
        assert!(snapshot("5:5:").in_progress().is_empty());
        assert!("5:5".parse::<Snapshot>().is_err());
    }

    #[test]
    fn a_window_done_becomes_the_base() {
        let next = cursor().advance(search(Some(120), false));
        assert_eq!(next, Cursor { base: snapshot("5:9:5,7"), window: None, high: 140 });
    }

    #[test]
    fn a_window_in_parts_keeps_its_base_and_its_snapshot() {
        let next = cursor().advance(search(Some(120), true));
        assert_eq!(next.base, snapshot("5:5:"));
        assert_eq!(next.after(), 120);
        assert_eq!(next.high, 100);
        let done = next.advance(search(None, false));
        assert_eq!((done.base, done.window), (snapshot("5:9:5,7"), None));
    }

    #[test]
    fn many_rows_below_the_mark_are_scanned_in_order() {
        let next = cursor().advance(Search { cut: true, ..search(Some(40), true) });
        assert_eq!((next.after(), next.high), (40, 40));
    }
}
