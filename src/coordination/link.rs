//! The way to Redis: connected when it is first needed, and anew after each failure.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::debug;

use crate::error::{Error, Kind, Result, Target};
use crate::retry::Waits;
use crate::stream::{Call, Redis, Server};

/// A cluster that has moved slots is connected to anew at most so often. Until then there is a detour.
const BETWEEN: Duration = Duration::from_secs(1);

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
    current: Mutex<Current>,
}

/// The connections there are. They serve until others are made, also after a failure: in a cluster it may be
/// one primary's.
#[derive(Default)]
struct Current {
    redis: Option<Redis>,
    /// Which they are: 1, 2, 3 …
    number: u64,
    /// Others are being made, or were, with what has come of it.
    connecting: Option<watch::Receiver<Outcome>>,
    /// When that began.
    begun: Option<Instant>,
}

/// None as long as it goes on.
type Outcome = Option<Result<(), (Kind, String)>>;

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
        Arc::new(Self { server, scripts: Scripts::new(), current: Mutex::default() })
    }

    /// Runs a script, and runs it again after each failure that can pass, on a new connection, while there is
    /// patience.
    ///
    /// # Errors
    /// The last one: `Unavailable` or `Busy` when there is no patience any more, others at once.
    pub(super) async fn ask(
        self: &Arc<Self>,
        question: &Question<'_>,
        patience: Patience,
    ) -> Result<Answer> {
        let (mut waits, mut again, mut failed_on) = (Waits::new(), false, 0);
        loop {
            let mut used = failed_on;
            let bound = patience.until.min(Instant::now() + patience.each);
            let asked = timeout_at(bound, self.ask_once(question, &mut used)).await;
            let failed = match asked {
                Ok(Ok((words, sent))) => return Ok(Answer { words, sent, again }),
                Ok(Err(error)) => error,
                Err(_) => self.silent(),
            };
            if failed.kind() != Kind::Busy {
                failed_on = used;
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

    /// Asks on connections that are younger than those with the number `used`, which becomes theirs.
    async fn ask_once(
        self: &Arc<Self>,
        question: &Question<'_>,
        used: &mut u64,
    ) -> Result<(Vec<String>, Instant)> {
        let (redis, number) = self.connections(*used).await?;
        *used = number;
        let sent = Instant::now();
        let words = redis.call(question.script, question.key, question.arguments).await?;
        if !redis.is_in_place() {
            let mut current = self.current.lock().await;
            let lately = current.begun.is_some_and(|begun| begun.elapsed() < BETWEEN);
            if current.number == number && !lately {
                self.connect(&mut current);
            }
        }
        Ok((words, sent))
    }

    /// Connections that are younger than those with this number, with theirs.
    async fn connections(self: &Arc<Self>, beyond: u64) -> Result<(Redis, u64)> {
        loop {
            let mut outcome = {
                let mut current = self.current.lock().await;
                match &current.redis {
                    Some(redis) if current.number > beyond => {
                        return Ok((redis.clone(), current.number));
                    }
                    _ => self.connect(&mut current),
                }
            };
            let ended = outcome.wait_for(Option::is_some).await;
            // Without an outcome, the runtime that it was made in is gone.
            if let Ok(Some(Err((kind, text)))) = ended.as_deref() {
                return Err(Target::Redis.error(*kind, text));
            }
        }
    }

    /// Makes other connections, in a task of its own: whoever waits for them may give up, and they are still
    /// there for the next one.
    fn connect(self: &Arc<Self>, current: &mut Current) -> watch::Receiver<Outcome> {
        let goes_on = |outcome: &&watch::Receiver<Outcome>| {
            outcome.borrow().is_none() && outcome.has_changed().is_ok()
        };
        if let Some(outcome) = current.connecting.as_ref().filter(goes_on) {
            return outcome.clone();
        }
        let (sender, outcome) = watch::channel(None);
        current.connecting = Some(outcome.clone());
        current.begun = Some(Instant::now());
        let link = self.clone();
        tokio::spawn(async move {
            let connected = link.connect_in_time().await;
            let mut current = link.current.lock().await;
            let ended = connected.map(|redis| {
                current.redis = Some(redis);
                current.number += 1;
            });
            sender.send_replace(Some(ended.map_err(|error| (error.kind(), error.to_string()))));
        });
        outcome
    }

    /// Tries again where nothing comes back: at first soon, for the way may be free by now; then with more
    /// patience, for it may be long.
    async fn connect_in_time(&self) -> Result<Redis> {
        for seconds in [1, 2, 4, 8] {
            let connecting = self.server.connect_for_calls();
            if let Ok(connected) = timeout(Duration::from_secs(seconds), connecting).await {
                return connected;
            }
        }
        Err(self.silent())
    }

    fn silent(&self) -> Error {
        let context = format!("Redis at {} did not answer in time", self.server.name());
        Target::Redis.error(Kind::Unavailable, context)
    }
}

/// An answer that no script of ours gives.
pub(super) fn odd(key: &str) -> Error {
    Target::Redis.error(Kind::Internal, format!("Redis answers oddly about {key}"))
}
