//! A lock that is held: renewed while it is, and its loss told.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};
use tracing::debug;

use super::expiry::Expiry;
use super::link::{Patience, odd};
use super::lock::{Claim, Owner, Released};
use crate::error::{Error, Kind, Result};

/// An answer to a renewal is waited for so long at least: making a connection takes a few round trips.
const LEAST_EACH: Duration = Duration::from_millis(50);

/// A lock that is held, from when it was taken until it is released, dropped or lost. A task of its own
/// renews it every third of its expiry; it needs the tokio runtime to have a thread for it, so work that
/// blocks belongs into `spawn_blocking`.
///
/// Dropping it gives the lock back in the background; where the runtime ends meanwhile, it expires.
pub struct Held {
    owner: Owner,
    fence: i64,
    state: watch::Receiver<State>,
    renewal: JoinHandle<()>,
    patience: Duration,
}

/// What is known of a lock that was taken.
#[derive(Clone, Debug)]
struct State {
    /// Held at least until then, by our clock, unless somebody takes it away.
    until: Instant,
    /// Why it is lost, if it is known to be.
    lost: Option<Arc<str>>,
}

/// A lock was lost while it was held, and somebody else may hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    key: Arc<str>,
    why: Arc<str>,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lost {}: {}", self.key, self.why)
    }
}

impl std::error::Error for Lost {}

impl From<Lost> for Error {
    fn from(lost: Lost) -> Self {
        Self::new(Kind::Superseded, lost.to_string())
    }
}

impl State {
    fn lost(&self, key: &Arc<str>, now: Instant) -> Option<Lost> {
        let late = || "it could not be renewed in time".into();
        let why = match &self.lost {
            Some(why) => Some(why.clone()),
            None => (now >= self.until).then(late),
        };
        why.map(|why| Lost { key: key.clone(), why })
    }

    /// What came of a renewal: held until then, or why it is lost. If it comes too late, whoever has looked
    /// meanwhile was told that the lock is lost, and lost it stays.
    fn learn(&mut self, key: &Arc<str>, now: Instant, renewed: Result<Instant, String>) {
        let late = self.lost(key, now).map(|lost| lost.why);
        match renewed {
            Ok(until) => {
                self.lost = late;
                self.until = until;
            }
            Err(why) => self.lost = Some(why.into()),
        }
    }
}

/// Until when a lock that was taken or renewed by what was sent at `sent` is held for sure. Redis counts the
/// expiry from when it had that, which is later. A tenth is left for clocks that do not run alike, and for
/// telling whoever works under the lock.
fn sure_until(sent: Instant, expiry: Expiry) -> Instant {
    sent + expiry.time() * 9 / 10
}

impl Held {
    pub(super) fn new(owner: Owner, fence: i64, sent: Instant, patience: Duration) -> Self {
        let until = sure_until(sent, owner.claim.expiry);
        let (sender, state) = watch::channel(State { until, lost: None });
        let renewal = tokio::spawn(renew(owner.claim.clone(), sender, sent));
        Self { owner, fence, state, renewal, patience }
    }

    /// The fencing number: larger than that of everybody who held this lock before. What is written under the
    /// lock carries it, as the documentation of [this module](super) says.
    pub fn fence(&self) -> i64 {
        self.fence
    }

    /// Whether the lock is not known to be lost, and cannot have expired. It may be lost in the next moment:
    /// only the fencing number keeps a record right.
    pub fn is_held(&self) -> bool {
        self.ensure().is_ok()
    }

    /// As [`Held::is_held`], as an error.
    ///
    /// # Errors
    /// That the lock is lost, and why.
    pub fn ensure(&self) -> Result<(), Lost> {
        self.state.borrow().lost(&self.key(), Instant::now()).map_or(Ok(()), Err)
    }

    /// Waits until the lock is known to be lost: its key is gone, somebody else's token is there, or it
    /// cannot be renewed before it expires. That is known before the expiry has passed since it was last
    /// held for sure. Not where Redis has failed over and the old primary still answers the holder: it is
    /// known when that ends. Never ends while the lock is held; once released, it counts as lost when the
    /// expiry is over.
    pub fn lost(&self) -> impl Future<Output = Lost> + Send + use<> {
        let (mut state, key) = (self.state.clone(), self.key());
        async move {
            loop {
                let (lost, until) = {
                    let seen = state.borrow_and_update();
                    (seen.lost(&key, Instant::now()), seen.until)
                };
                if let Some(lost) = lost {
                    return lost;
                }
                tokio::select! {
                    () = sleep_until(until) => {}
                    changed = state.changed() => {
                        // Nobody renews it any more.
                        if changed.is_err() {
                            sleep_until(until).await;
                        }
                    }
                }
            }
        }
    }

    /// Does some work while the lock is held. If it is lost, the work is dropped where it waits.
    ///
    /// # Errors
    /// That the lock was lost before the work was done, as far as is known when it is.
    pub async fn while_held<T>(&self, work: impl Future<Output = T>) -> Result<T, Lost> {
        tokio::select! {
            biased;
            lost = self.lost() => Err(lost),
            // It may have blocked the thread, and nobody else could look.
            done = work => self.ensure().map(|()| done),
        }
    }

    /// Gives the lock back, so that the next one need not wait for its expiry. Where the answer is lost and
    /// the lock is gone when Redis is asked again, it counts as given back by what was asked first, unless it
    /// was known to be lost before: a loss in just that moment is not told.
    ///
    /// # Errors
    /// `Superseded` if it was lost before; `Unavailable`, `Busy` or `Refused` if Redis cannot be told, and
    /// then it expires.
    pub async fn release(mut self) -> Result<()> {
        self.renewal.abort();
        let before = self.ensure().err();
        let released = self.owner.claim.release(Patience::of(self.patience)).await?;
        self.owner.owns = false;
        let key = self.key();
        debug!(key = &*key, ?released, "gave back a lock");
        match (released, before) {
            (Released::Here, _) | (Released::Unclear, None) => Ok(()),
            (_, Some(lost)) => Err(lost.into()),
            (Released::Gone, None) => {
                let why = "somebody has removed it, or it expired".into();
                Err(Lost { key, why }.into())
            }
        }
    }

    fn key(&self) -> Arc<str> {
        self.owner.claim.key.clone()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.renewal.abort();
    }
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Held({}, {})", self.key(), self.fence)
    }
}

/// Renews a lock every third of its expiry, until it is lost or this is aborted.
async fn renew(claim: Claim, state: watch::Sender<State>, mut sent: Instant) {
    let expiry = claim.expiry.time();
    loop {
        sleep_until(sent + expiry / 3).await;
        let until = sure_until(sent, claim.expiry);
        // A connection that is silent is given up early enough to try another one.
        let each = (expiry / 3).max(LEAST_EACH);
        let renewed = match claim.renew(Patience { until, each }).await {
            Ok(answer) => match &answer.words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
                ["renewed"] => {
                    sent = answer.sent;
                    Ok(sure_until(sent, claim.expiry))
                }
                ["gone", ""] => Err("somebody has removed it, or it expired".to_owned()),
                ["gone", holder] => Err(format!("{holder} holds it")),
                _ => Err(odd(&claim.key).to_string()),
            },
            Err(error) => Err(format!("it could not be renewed: {error}")),
        };
        let mut ended = true;
        // The time is taken while nobody can look.
        state.send_modify(|state| {
            state.learn(&claim.key, Instant::now(), renewed);
            ended = state.lost.is_some();
        });
        if ended {
            debug!(key = &*claim.key, why = ?state.borrow().lost, "lost a lock");
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> Arc<str> {
        "lock:order:42".into()
    }

    #[test]
    fn a_lock_is_sure_for_less_than_its_expiry_since_it_was_asked_for() {
        let (sent, expiry) = (Instant::now(), Expiry::seconds(10).expect("in bounds"));
        let state = State { until: sure_until(sent, expiry), lost: None };
        assert_eq!(state.lost(&key(), sent + Duration::from_millis(8_999)), None);
        let lost = state.lost(&key(), sent + Duration::from_secs(9)).expect("it may expire");
        assert_eq!(lost.to_string(), "lost lock:order:42: it could not be renewed in time");
        assert_eq!(Error::from(lost).kind(), Kind::Superseded);
    }

    #[test]
    fn an_answer_that_comes_too_late_does_not_bring_a_lock_back() {
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let mut state = State { until: now + second, lost: None };
        state.learn(&key(), now, Ok(now + second * 2));
        assert_eq!(state.lost(&key(), now + second), None);
        state.learn(&key(), now + second * 2, Ok(now + second * 4));
        assert!(state.lost(&key(), now + second * 3).is_some());
        state.learn(&key(), now + second * 3, Err("it is gone".to_owned()));
        assert_eq!(state.lost(&key(), now).map(|lost| lost.why), Some("it is gone".into()));
    }
}
