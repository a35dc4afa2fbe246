//! The table of failures.

mod postgres;
mod redis;
mod relay;

/// A way to fail.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) number: u32,
    pub(super) what: &'static str,
    /// Full names of the tests that show what happens.
    pub(super) tests: &'static [&'static str],
    /// Why there is none, or what they leave open.
    pub(super) note: &'static str,
}

/// Failure `number`, shown by `tests`.
const fn shown(number: u32, what: &'static str, tests: &'static [&'static str]) -> Failure {
    Failure { number, what, tests, note: "" }
}

impl Failure {
    const fn but(self, note: &'static str) -> Self {
        Self { note, ..self }
    }
}

/// All of them, by the numbers under which the design speaks of them.
pub(super) fn failures() -> impl Iterator<Item = &'static Failure> {
    relay::FAILURES.iter().chain(redis::FAILURES).chain(postgres::FAILURES)
}
