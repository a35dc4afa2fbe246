//! What is wrong, why it matters, and what mends it.

use serde::Serialize;

use super::Diagnosis;
use crate::error::Error;
use crate::text::counted;

/// Names shown in one finding; more are only counted.
pub(super) const SHOWN: usize = 10;

/// How much a finding matters; the order is that of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    /// Entries do not flow, or what is committed can be lost.
    Now,
    /// They flow, and will not for ever.
    Soon,
    /// It is good to know.
    Aside,
}

/// Where something is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Area {
    /// The database.
    Postgres,
    /// The server with the streams.
    Redis,
    /// The relay's own settings.
    Configuration,
}

/// Something that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    #[serde(skip)]
    pub(super) weight: Weight,
    /// Where.
    pub area: Area,
    /// What is wrong.
    pub what: String,
    /// Why it matters.
    pub why: String,
    /// The command, statement or setting that mends it.
    pub fix: String,
}

/// What has been found so far.
#[derive(Debug, Default)]
pub(super) struct Report {
    findings: Vec<Finding>,
    unchecked: Vec<String>,
    incomplete: bool,
}

impl Report {
    pub(super) fn find(
        &mut self,
        area: Area,
        weight: Weight,
        what: impl Into<String>,
        why: impl Into<String>,
        fix: impl Into<String>,
    ) {
        let (what, why, fix) = (what.into(), why.into(), fix.into());
        self.findings.push(Finding { weight, area, what, why, fix });
    }

    /// Something that matters could not be checked.
    pub(super) fn miss(&mut self, what: impl Into<String>) {
        self.incomplete = true;
        self.leave_out(what);
    }

    /// Something that matters less was not looked at.
    pub(super) fn leave_out(&mut self, what: impl Into<String>) {
        let what = what.into();
        if !self.unchecked.contains(&what) {
            self.unchecked.push(what);
        }
    }

    /// The answer to a question about `what`, or None if it could not be had.
    pub(super) fn answer<T>(&mut self, what: &str, answer: Result<T, Error>) -> Option<T> {
        answer.map_err(|error| self.miss(format!("{what}: {error}"))).ok()
    }

    pub(super) fn take(&mut self, other: Self) {
        self.findings.extend(other.findings);
        other.unchecked.into_iter().for_each(|what| self.leave_out(what));
        self.incomplete |= other.incomplete;
    }

    pub(super) fn diagnosis(mut self) -> Diagnosis {
        self.findings.sort_by_key(|finding| finding.weight);
        Diagnosis {
            ok: self.findings.is_empty() && !self.incomplete,
            findings: self.findings,
            unchecked: self.unchecked,
            incomplete: self.incomplete,
        }
    }
}

/// The first of these names, and how many more there are.
pub(super) fn names<T: AsRef<str>>(all: &[T]) -> String {
    let shown: Vec<&str> = all.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = all.len().saturating_sub(SHOWN) as u64;
    match more {
        0 => shown.join(", "),
        _ => format!("{} and {}", shown.join(", "), counted(more, "more", "more")),
    }
}
