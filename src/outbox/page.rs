//! How many rows to ask for at a time.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Asked for at first: 19 MiB at most.
const FIRST: usize = 256;
/// Streams that are remembered; beyond it all begin anew.
const STREAMS: usize = 10_000;

/// Rows to ask for, so that about as many bytes come back as may be held: what is beyond them is read by
/// Postgres, sent, and thrown away. It grows while rows are small and shrinks when they are large.
#[derive(Clone, Copy, Debug)]
pub(super) struct Page(usize);

impl Page {
    pub(super) fn new() -> Self {
        Self(FIRST)
    }

    /// Rows to ask for, of `most`.
    pub(super) fn rows(self, most: usize) -> usize {
        self.0.min(most)
    }

    /// Of `asked` rows so many were taken; `cut` if more came than may be held.
    pub(super) fn took(&mut self, taken: usize, asked: usize, cut: bool) {
        if cut {
            // A quarter more, so that it grows again when rows become smaller.
            self.0 = taken + taken / 4 + 1;
        } else if taken >= asked {
            self.0 = self.0.max(asked.saturating_mul(2));
        }
    }
}

/// A page per stream, for one may have large rows and the others small ones. Cloning is cheap; all clones
/// are the same.
#[derive(Clone, Debug, Default)]
pub(super) struct Pages(Arc<Mutex<HashMap<Box<str>, Page>>>);

impl Pages {
    pub(super) fn of(&self, stream: &str) -> Page {
        let pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.get(stream).copied().unwrap_or_else(Page::new)
    }

    pub(super) fn set(&self, stream: &str, page: Page) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if pages.len() >= STREAMS && !pages.contains_key(stream) {
            pages.clear();
        }
        pages.insert(stream.into(), page);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is asked for until it stays the same, where so many rows may be held.
    fn asked(fit: usize) -> Vec<usize> {
        let mut page = Page::new();
        let ask = |_| {
            let asked = page.rows(5_000);
            page.took(asked.min(fit), asked, asked > fit);
            asked
        };
        (0..8).map(ask).collect()
    }

    #[test]
    fn grows_while_rows_are_small_and_shrinks_to_little_more_than_may_be_held() {
        assert_eq!(asked(10_000), [256, 512, 1_024, 2_048, 4_096, 5_000, 5_000, 5_000]);
        assert_eq!(asked(17), [256, 22, 22, 22, 22, 22, 22, 22]);
        assert_eq!(asked(1), [256, 2, 2, 2, 2, 2, 2, 2]);
    }

    #[test]
    fn neither_the_end_of_a_backlog_nor_a_small_request_changes_it() {
        let mut page = Page::new();
        page.took(3, 256, false);
        page.took(1, 1, false);
        assert_eq!(page.rows(5_000), 256);
    }
}
