//! Marks that say: somebody was here.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;
use uuid::Uuid;

use super::expiry::Expiry;
use super::link::{Link, Patience, Question, odd};
use crate::error::Result;

/// Tells whether something was seen before, as a webhook that is delivered again.
///
/// It is a filter, not a promise. Whoever was told that it is the first may die before it has done anything,
/// and then nobody does it until the mark expires; and Redis may lose the mark, and then there is a second
/// first. Use it to save work. What must be done exactly once is noted in Postgres, in the transaction of its
/// effect.
#[derive(Clone)]
pub struct OnceMarker {
    pub(super) link: Arc<Link>,
    pub(super) patience: Duration,
    pub(super) key: Arc<str>,
    pub(super) holder: Arc<str>,
    pub(super) expiry: Expiry,
    /// What was left when this one was the first.
    pub(super) mark: Option<String>,
}

impl OnceMarker {
    /// Leaves a mark, and returns whether there was none. It expires, whether or not it is asked for again.
    ///
    /// # Errors
    /// `Unavailable`, `Busy` or `Refused` if Redis cannot be asked: then it is not known, and it may have
    /// been marked by this call.
    pub async fn first(&mut self) -> Result<bool> {
        let mark = format!("{} {}", Uuid::new_v4(), self.holder);
        let arguments = [mark.as_str(), &self.expiry.millis()];
        let asked =
            Question { script: &self.link.scripts.mark, key: &self.key, arguments: &arguments };
        // Even if the answer is lost, it can be taken back.
        let before = self.mark.replace(mark.clone());
        let answer = self.link.ask(&asked, Patience::of(self.patience)).await?;
        let first = match answer.words.first().map(String::as_str) {
            Some("first") => true,
            Some("seen") => false,
            _ => return Err(odd(&self.key)),
        };
        if !first {
            self.mark = before;
        }
        debug!(key = &*self.key, first, "marked");
        Ok(first)
    }

    /// Takes back the mark that this one has left, so that the next one is the first: after a failure. Does
    /// nothing if it left none, or if there is another one by now.
    ///
    /// # Errors
    /// `Unavailable`, `Busy` or `Refused` if Redis cannot be asked: then the mark may stay until it expires.
    pub async fn forget(&mut self) -> Result<()> {
        let Some(mark) = self.mark.clone() else { return Ok(()) };
        let arguments = [mark.as_str()];
        let asked =
            Question { script: &self.link.scripts.forget, key: &self.key, arguments: &arguments };
        self.link.ask(&asked, Patience::of(self.patience)).await?;
        self.mark = None;
        debug!(key = &*self.key, "forgotten");
        Ok(())
    }

    /// Its key in Redis, without the prefix.
    pub fn key(&self) -> &str {
        &self.key
    }
}
