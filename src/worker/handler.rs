//! What an application does with events.

use std::error::Error;

use super::event::Event;
use crate::outbox::postgres::Transaction;

/// What an application does with events. Both steps of an event run in one transaction, whose first statement
/// has noted it as done; it commits when the second one ends well, and only then the event is acknowledged.
/// So what is written in it happens once, however often the event is given.
///
/// A handler must not end the transaction itself, nor go on after a statement of it has failed but by a
/// savepoint: such an attempt has failed. What it sets in the session stays for later events; `set local`
/// does not.
///
/// What is done outside of it (a mail, a call of another service) can happen again: give the other side the
/// event's `id` to tell, or send it by an outbox of its own.
pub trait Handler: Send + Sync + 'static {
    /// What is true by now of what the event is about.
    type Record: Send;

    /// Reads the current record, best with `for update`: an event may be old when it comes, or come again
    /// after Redis was lost, so it only says what to look at. `None` if there is nothing to do any more:
    /// the event is done.
    ///
    /// # Errors
    /// Whatever has failed: the transaction is rolled back, and the event tried again later.
    fn read(
        &self,
        event: &Event,
        transaction: &mut Transaction<'_>,
    ) -> impl Future<Output = Result<Option<Self::Record>, Failure>> + Send;

    /// Does what is to be done.
    ///
    /// # Errors
    /// As [`Handler::read`].
    fn act(
        &self,
        event: &Event,
        record: Self::Record,
        transaction: &mut Transaction<'_>,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Is told how each attempt has ended, for metrics and logs of the application.
    fn ended(&self, event: &Event, outcome: &Outcome) {
        let _ = (event, outcome);
    }
}

/// Why a handler has failed. Any error becomes one.
#[derive(Debug)]
pub struct Failure {
    pub(super) error: Box<dyn Error + Send + Sync>,
    pub(super) for_good: bool,
}

impl Failure {
    /// Trying again cannot help: the event becomes a dead letter at once.
    pub fn for_good(error: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self { error: error.into(), for_good: true }
    }

    /// The error with its causes, each after a colon.
    pub(super) fn text(&self) -> String {
        let (mut text, mut cause) = (self.error.to_string(), self.error.source());
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.ends_with(&said) {
                text = format!("{text}: {said}");
            }
            cause = error.source();
        }
        text
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: error.into(), for_good: false }
    }
}

/// How an attempt has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is done, by this attempt.
    Done,
    /// It had been done before: it was given again, as after a loss of Redis, and acknowledged again.
    DoneBefore,
    /// The handler has failed; the next attempt is after this long.
    Failed {
        /// Why.
        error: String,
        /// Until the next attempt.
        again_in: std::time::Duration,
    },
    /// It was given up, and is a dead letter.
    Dead {
        /// Why the last attempt has failed.
        error: String,
    },
    /// A server was lost meanwhile: tried again, and not counted.
    Interrupted {
        /// Which, and how.
        error: String,
    },
}
