//! So many in a time, and no more.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::expiry::Expiry;
use super::link::{Link, Patience, Question, odd};
use crate::error::{Error, Kind, Result};

/// Parts that the time is counted in: a part is what an attempt may have to wait longer than it had to.
const PARTS: u128 = 10;

/// Lets through so many attempts in any time of this length, whoever makes them.
///
/// It holds for as long as Redis does: one that comes back empty has counted nothing. All that use a key
/// should use the same limit and time. Time is that of Redis.
#[derive(Clone)]
pub struct RateLimit {
    pub(super) link: Arc<Link>,
    pub(super) patience: Duration,
    pub(super) key: Arc<str>,
    pub(super) limit: u32,
    pub(super) per: Expiry,
}

/// Whether an attempt is let through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// It is, and it was counted.
    Allowed {
        /// How many more are let through now.
        left: u32,
    },
    /// It is not, and it was not counted.
    Denied {
        /// After this time there is room for it, if nobody else takes it.
        retry_after: Duration,
    },
}

impl Allowance {
    /// Whether it is let through.
    pub fn is_allowed(self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

impl RateLimit {
    /// Makes an attempt that counts as one.
    ///
    /// # Errors
    /// `Unavailable`, `Busy` or `Refused` if Redis cannot be asked: whether to let it through then is for the
    /// caller to say. An attempt whose answer was lost on the way may be counted, or counted twice.
    pub async fn allow(&self) -> Result<Allowance> {
        self.allow_cost(1).await
    }

    /// Makes an attempt that counts as `cost`, all of it or nothing.
    ///
    /// # Errors
    /// `Usage` if the cost is 0, or more than the limit, which would never be let through; and as
    /// [`RateLimit::allow`].
    pub async fn allow_cost(&self, cost: u32) -> Result<Allowance> {
        if cost == 0 || cost > self.limit {
            let context = format!(
                "an attempt at {} costs {cost}; it must be from 1 to the limit, {}",
                self.key, self.limit
            );
            return Err(Error::new(Kind::Usage, context));
        }
        let micros = self.per.time().as_micros();
        let numbers = [self.limit.into(), cost.into(), micros, micros / PARTS];
        let texts = numbers.map(|number: u128| number.to_string());
        let arguments = texts.each_ref().map(String::as_str);
        let asked =
            Question { script: &self.link.scripts.allow, key: &self.key, arguments: &arguments };
        let answer = self.link.ask(&asked, Patience::of(self.patience)).await?;
        let said = answer.words.iter().map(String::as_str).collect::<Vec<_>>();
        let allowance = match said[..] {
            ["allowed", left] => left.parse().ok().map(|left| Allowance::Allowed { left }),
            ["denied", millis] => {
                let wait = millis.parse().ok().map(Duration::from_millis);
                wait.map(|retry_after| Allowance::Denied { retry_after })
            }
            _ => None,
        };
        debug!(key = &*self.key, ?allowance, "asked for room");
        allowance.ok_or_else(|| odd(&self.key))
    }

    /// Its key in Redis, without the prefix.
    pub fn key(&self) -> &str {
        &self.key
    }
}
