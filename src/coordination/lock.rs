//! Locks: how they are taken and given back.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::debug;
use uuid::Uuid;

use super::expiry::Expiry;
use super::held::Held;
use super::link::{Answer, Link, Patience, Question, odd};
use crate::error::Result;

/// The last fencing number is remembered for so long after a lock has ended. A clock of Redis that goes back
/// by less gives out no number again; and a lock that is not taken again takes up memory for no longer.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Between two attempts at a lock that somebody else holds: milliseconds, at least and at most.
const POLL: (u64, u64) = (10, 100);
/// Redis is asked so long, at most, to take back a lock whose guard was dropped.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

/// A lock that can be taken. Clones are the same lock, and may be taken at the same time by one of them only.
#[derive(Clone)]
pub struct Lock {
    pub(super) link: Arc<Link>,
    pub(super) patience: Duration,
    pub(super) key: Arc<str>,
    pub(super) holder: Arc<str>,
    pub(super) expiry: Expiry,
}

impl Lock {
    /// Takes the lock if nobody holds it; None if somebody does.
    ///
    /// # Errors
    /// `Unavailable`, `Busy` or `Refused` if Redis cannot be asked. If the answer was lost on the way, nobody
    /// holds the lock, and it may take as long as its expiry until somebody can.
    pub async fn acquire(&self) -> Result<Option<Held>> {
        Ok(self.attempt(Patience::of(self.patience)).await?.ok())
    }

    /// Takes the lock, waiting for it for as long as `time`; None if somebody else has held it all the time.
    /// Of those who wait, anyone may be next. Asks Redis about twenty times a second.
    ///
    /// # Errors
    /// As [`Lock::acquire`], when Redis could not be asked at the end of that time.
    pub async fn acquire_within(&self, time: Duration) -> Result<Option<Held>> {
        let until = Instant::now() + time;
        loop {
            let each = self.patience;
            // Even with no time at all it is tried once.
            let bound = until.max(Instant::now() + Duration::from_millis(POLL.1));
            let left = match self.attempt(Patience { until: bound, each }).await? {
                Ok(held) => return Ok(Some(held)),
                Err(left) => left,
            };
            let wait = poll_wait().min(left + Duration::from_millis(1));
            if Instant::now() + wait > until {
                return Ok(None);
            }
            sleep(wait).await;
        }
    }

    /// Tries once: the lock, or for how long it still is somebody else's, if that is not made longer.
    async fn attempt(&self, patience: Patience) -> Result<Result<Held, Duration>> {
        let claim = Claim {
            link: self.link.clone(),
            key: self.key.clone(),
            token: Uuid::new_v4().to_string().into(),
            expiry: self.expiry,
        };
        // Whatever comes of it, what may have been taken is given back.
        let mut owner = Owner { claim, owns: true };
        let answer = owner.claim.acquire(&self.holder, patience).await?;
        match &answer.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            ["held", fence] => {
                let fence = fence.parse().map_err(|_| odd(&self.key))?;
                debug!(key = &*self.key, fence, "took a lock");
                Ok(Ok(Held::new(owner, fence, answer.sent, self.patience)))
            }
            ["taken", holder, millis] => {
                owner.owns = false;
                debug!(key = &*self.key, holder, millis, "somebody else holds a lock");
                let left = millis.parse().map_err(|_| odd(&self.key))?;
                Ok(Err(Duration::from_millis(left)))
            }
            _ => Err(odd(&self.key)),
        }
    }

    /// Its key in Redis, without the prefix.
    pub fn key(&self) -> &str {
        &self.key
    }
}

/// Between two attempts, each time another, so that those who wait do not come in step.
fn poll_wait() -> Duration {
    let random = Uuid::new_v4().as_u64_pair().1 % (POLL.1 - POLL.0);
    Duration::from_millis(POLL.0 + random)
}

/// What came of giving a lock back.
#[derive(Clone, Copy, Debug)]
pub(super) enum Released {
    /// It was held until then.
    Here,
    /// It was not held any more.
    Gone,
    /// It is gone, and an earlier try, whose answer was lost, may have given it back.
    Unclear,
}

/// A lock with the token of one attempt at it.
#[derive(Clone)]
pub(super) struct Claim {
    link: Arc<Link>,
    pub(super) key: Arc<str>,
    token: Arc<str>,
    pub(super) expiry: Expiry,
}

impl Claim {
    async fn acquire(&self, holder: &str, patience: Patience) -> Result<Answer> {
        let (expiry, remembered) = (self.expiry.millis(), REMEMBERED.as_millis().to_string());
        let arguments = [&*self.token, holder, &expiry, &remembered];
        let script = &self.link.scripts.acquire;
        self.link.ask(&Question { script, key: &self.key, arguments: &arguments }, patience).await
    }

    pub(super) async fn renew(&self, patience: Patience) -> Result<Answer> {
        let (expiry, remembered) = (self.expiry.millis(), REMEMBERED.as_millis().to_string());
        let arguments = [&*self.token, &expiry, &remembered];
        let script = &self.link.scripts.renew;
        self.link.ask(&Question { script, key: &self.key, arguments: &arguments }, patience).await
    }

    /// Gives it back, if it is there to be given.
    pub(super) async fn release(&self, patience: Patience) -> Result<Released> {
        let remembered = REMEMBERED.as_millis().to_string();
        let arguments = [&*self.token, &remembered];
        let asked =
            Question { script: &self.link.scripts.release, key: &self.key, arguments: &arguments };
        let answer = self.link.ask(&asked, patience).await?;
        match answer.words.first().map(String::as_str) {
            Some("released") => Ok(Released::Here),
            Some("gone") if answer.again => Ok(Released::Unclear),
            Some("gone") => Ok(Released::Gone),
            _ => Err(odd(&self.key)),
        }
    }
}

/// Gives a lock back when it is dropped, in the background, if that can be; otherwise it expires.
pub(super) struct Owner {
    pub(super) claim: Claim,
    pub(super) owns: bool,
}

impl Drop for Owner {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        if let (true, Ok(runtime)) = (self.owns, runtime) {
            let claim = self.claim.clone();
            let patience = Patience::of(claim.expiry.time().min(LAST_PATIENCE));
            runtime.spawn(async move {
                let released = claim.release(patience).await;
                debug!(key = &*claim.key, ?released, "gave back a lock that was dropped");
            });
        }
    }
}
