//! Whether the relay is alive, whether it is ready, and who it is: what `/livez`, `/readyz` and the
//! metrics `leader` and `last_loop` tell.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::error::Target;
use crate::telemetry::{Metrics, Probes};

/// The loop moves at least every second, also while a server is away; a machine that stalls for
/// longer than this is better off with a new process.
const STALLED: Duration = Duration::from_secs(30);
/// A loop that waits for servers shows every so often that it is not stuck.
const BEAT: Duration = Duration::from_secs(1);
/// A server whose last answer is older than this does not answer.
const SILENT: Duration = Duration::from_secs(10);

/// The health of one relay. Cloning is cheap; all clones are the same.
#[derive(Clone, Debug)]
pub struct Health(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    metrics: Metrics,
    begun: Instant,
    /// Milliseconds from `begun` to the last beat.
    beat: AtomicU64,
    /// A loop shows its own pace; nobody beats for it.
    own_pace: AtomicBool,
    standing_by: AtomicBool,
    leading: AtomicBool,
    answers: Mutex<[Answer; Target::ALL.len()]>,
}

/// What a server last did when it was asked.
#[derive(Clone, Debug)]
enum Answer {
    Unasked,
    Answered(Instant),
    Failed(String),
}

impl Health {
    /// Of a relay that has just begun.
    pub fn new(metrics: Metrics) -> Self {
        let answers = Mutex::new([const { Answer::Unasked }; Target::ALL.len()]);
        let health = Self(Arc::new(Inner {
            metrics,
            begun: Instant::now(),
            beat: AtomicU64::new(0),
            own_pace: AtomicBool::new(false),
            standing_by: AtomicBool::new(false),
            leading: AtomicBool::new(false),
            answers,
        }));
        health.beat();
        health
    }

    /// The metrics of this relay.
    pub fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    /// The loop moved.
    pub(super) fn beat(&self) {
        let since = self.0.begun.elapsed().as_millis();
        self.0.beat.store(u64::try_from(since).unwrap_or(u64::MAX), Ordering::Relaxed);
        self.0.metrics.looped();
    }

    /// Runs `work`, which may wait for servers as long as it likes, and beats meanwhile. That shows
    /// that this task still gets its turn; while a loop has its own pace, only that loop beats.
    pub(super) async fn beating<T>(&self, work: impl Future<Output = T>) -> T {
        let mut work = std::pin::pin!(work);
        let mut ticks = tokio::time::interval(BEAT);
        loop {
            tokio::select! {
                biased;
                _ = ticks.tick() => if !self.0.own_pace.load(Ordering::Relaxed) {
                    self.beat();
                },
                done = &mut work => return done,
            }
        }
    }

    /// Until the guard is dropped only the caller beats.
    pub(super) fn own_pace(&self) -> OwnPace {
        self.0.own_pace.store(true, Ordering::Relaxed);
        OwnPace(self.clone())
    }

    /// This relay holds the lease, or waits for it, or neither.
    pub(super) fn role(&self, role: Role) {
        self.0.standing_by.store(role == Role::Standby, Ordering::Relaxed);
        self.0.leading.store(role == Role::Leader, Ordering::Relaxed);
        self.0.metrics.leads(role == Role::Leader);
        if role == Role::Standby {
            self.0.metrics.stands_by();
        }
    }

    pub(super) fn is_standing_by(&self) -> bool {
        self.0.standing_by.load(Ordering::Relaxed)
    }

    pub(super) fn is_leading(&self) -> bool {
        self.0.leading.load(Ordering::Relaxed)
    }

    /// A server answered, or failed to.
    pub(super) fn answered(&self, target: Target, answer: Result<(), String>) {
        let mut answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner);
        answers[target as usize] = match answer {
            Ok(()) => Answer::Answered(Instant::now()),
            Err(why) => Answer::Failed(why),
        };
    }
}

/// What a relay is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// It carries entries.
    Leader,
    /// Another one does.
    Standby,
    /// It cannot reach what it needs.
    Neither,
}

/// Gives the beat back when it is dropped.
pub(super) struct OwnPace(Health);

impl Drop for OwnPace {
    fn drop(&mut self) {
        self.0.0.own_pace.store(false, Ordering::Relaxed);
    }
}

impl Probes for Health {
    fn live(&self) -> Result<String, String> {
        let beat = Duration::from_millis(self.0.beat.load(Ordering::Relaxed));
        let since = self.0.begun.elapsed().saturating_sub(beat);
        match since > STALLED {
            true => Err(format!("the loop has not moved for {} s", since.as_secs())),
            false => Ok("alive".to_owned()),
        }
    }

    fn ready(&self) -> Result<String, String> {
        let answers = self.0.answers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let wrong: Vec<String> = Target::ALL
            .into_iter()
            .zip(answers)
            .filter_map(|(target, answer)| match answer {
                Answer::Unasked => Some(format!("{}: not asked yet", target.as_str())),
                Answer::Failed(why) => Some(format!("{}: {why}", target.as_str())),
                Answer::Answered(at) if at.elapsed() > SILENT => {
                    Some(format!("{}: no answer for {} s", target.as_str(), at.elapsed().as_secs()))
                }
                Answer::Answered(_) => None,
            })
            .collect();
        match (wrong.is_empty(), self.is_standing_by()) {
            (true, true) => Ok("ready; standing by".to_owned()),
            (true, false) => Ok("ready".to_owned()),
            (false, _) => Err(wrong.join("\n")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Health {
        Health::new(Metrics::new(1))
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_for_a_server_is_life_and_a_loop_that_stands_still_is_not() {
        let health = health();
        health.beating(tokio::time::sleep(10 * STALLED)).await;
        assert!(health.live().is_ok());
        let pace = health.own_pace();
        health.beating(tokio::time::sleep(STALLED + 2 * BEAT)).await;
        // Which of two that are due at once comes first is chance: a second more or less.
        let told = health.live().expect_err("it stands still");
        assert!(told.starts_with("the loop has not moved for 3"), "{told}");
        drop(pace);
        health.beating(tokio::time::sleep(2 * BEAT)).await;
        assert!(health.live().is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn ready_means_that_both_answer_and_keep_answering() {
        let health = health();
        health.answered(Target::Postgres, Ok(()));
        assert_eq!(health.ready(), Err("redis: not asked yet".to_owned()));
        health.answered(Target::Redis, Err("away".to_owned()));
        assert_eq!(health.ready(), Err("redis: away".to_owned()));
        health.answered(Target::Redis, Ok(()));
        health.role(Role::Standby);
        assert_eq!(health.ready(), Ok("ready; standing by".to_owned()));
        tokio::time::advance(SILENT + BEAT).await;
        assert!(health.ready().is_err_and(|why| why.contains("postgres: no answer for 11 s")));
    }
}
