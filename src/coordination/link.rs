//! The way to Redis: connected when it is first needed, and anew after each failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::debug;

use crate::error::{Error, Kind, Result, Target};
use crate::retry::Waits;
use crate::stream::{Call, Redis, Server};

/// The scripts.
pub(super) struct Scripts {
    pub(super) acquire: Call,
    pub(super) renew: Call,
    pub(super) release: Call,
    pub(super) allow: Call,
    pub(super) mark: Call,
    pub(super) forget: Call,
}

impl Scripts {
    fn new() -> Self {
        Self {
            acquire: Call::new(include_str!("acquire.lua")),
            renew: Call::new(include_str!("renew.lua")),
            release: Call::new(include_str!("release.lua")),
            allow: Call::new(include_str!("allow.lua")),
            mark: Call::new(include_str!("mark.lua")),
            forget: Call::new(include_str!("forget.lua")),
        }
    }
}

/// Connections to one Redis, shared by everything that was made from it.
pub(super) struct Link {
    server: Server,
    pub(super) scripts: Scripts,
    /// The connections, and which they are.
    current: Mutex<Option<(u64, Redis)>>,
    made: AtomicU64,
}

/// A script to be run, again if its answer is lost: it must tolerate that.
pub(super) struct Question<'a> {
    pub(super) script: &'a Call,
    pub(super) key: &'a str,
    pub(super) arguments: &'a [&'a str],
}

/// How long to ask.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// No longer than until then.
    pub(super) until: Instant,
    /// So long each time, before the connection is taken for dead.
    pub(super) each: Duration,
}

/// What a script answered.
pub(super) struct Answer {
    pub(super) words: Vec<String>,
    /// Just before it was sent, the last time.
    pub(super) sent: Instant,
    /// It was asked more than once, so that what it found may be its own doing.
    pub(super) again: bool,
}

impl Patience {
    pub(super) fn of(time: Duration) -> Self {
        Self { until: Instant::now() + time, each: time }
    }
}

impl Link {
    pub(super) fn new(server: Server) -> Arc<Self> {
        let (scripts, current) = (Scripts::new(), Mutex::default());
        Arc::new(Self { server, scripts, current, made: AtomicU64::new(0) })
    }

    /// Runs a script, and runs it again after each failure that can pass, on a new connection, while there is
    /// patience.
    ///
    /// # Errors
    /// The last one: `Unavailable` or `Busy` when there is no patience any more, others at once.
    pub(super) async fn ask(&self, question: &Question<'_>, patience: Patience) -> Result<Answer> {
        let (mut waits, mut again) = (Waits::new(), false);
        loop {
            let mut used = 0;
            let bound = patience.until.min(Instant::now() + patience.each);
            let asked = timeout_at(bound, self.ask_once(question, &mut used)).await;
            let failed = match asked {
                Ok(Ok((words, sent))) => return Ok(Answer { words, sent, again }),
                Ok(Err(error)) => error,
                Err(_) => {
                    let context = format!("Redis at {} did not answer in time", self.server.name());
                    Target::Redis.error(Kind::Unavailable, context)
                }
            };
            if failed.kind() != Kind::Busy {
                self.drop_connection(used).await;
            }
            let wait = waits.next_wait().min(patience.each);
            let passes = matches!(failed.kind(), Kind::Unavailable | Kind::Busy);
            if !passes || Instant::now() + wait >= patience.until {
                return Err(failed);
            }
            debug!(key = question.key, error = %failed, "asking Redis again");
            sleep(wait).await;
            again = true;
        }
    }

    async fn ask_once(
        &self,
        question: &Question<'_>,
        used: &mut u64,
    ) -> Result<(Vec<String>, Instant)> {
        let (number, redis) = self.connection().await?;
        *used = number;
        let sent = Instant::now();
        let words = redis.call(question.script, question.key, question.arguments).await?;
        if !redis.is_in_place() {
            self.drop_connection(number).await;
        }
        Ok((words, sent))
    }

    async fn connection(&self) -> Result<(u64, Redis)> {
        let mut current = self.current.lock().await;
        if let Some((number, redis)) = &*current {
            return Ok((*number, redis.clone()));
        }
        let redis = self.server.connect().await?;
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        *current = Some((number, redis.clone()));
        Ok((number, redis))
    }

    /// Lets go of connections, unless there are others by now.
    async fn drop_connection(&self, number: u64) {
        let mut current = self.current.lock().await;
        if current.as_ref().is_some_and(|(other, _)| *other == number) {
            *current = None;
        }
    }
}

/// An answer that no script of ours gives.
pub(super) fn odd(key: &str) -> Error {
    Target::Redis.error(Kind::Internal, format!("Redis answers oddly about {key}"))
}
