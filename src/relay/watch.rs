//! Looks at both servers from outside of the sessions: whether they answer, what waits, how old it
//! is. It goes on while a session cannot begin, for that is when people look.

use std::time::Duration;

use tokio::time::Instant;
use tracing::debug;

use super::Settings;
use super::health::Health;
use crate::error::{Error, Kind, Result, Target};
use crate::outbox::{OldestTransaction, StreamStatus, Survey};
use crate::stream::Redis;
use crate::telemetry::Backlog;

/// How often the servers are asked for an answer.
const EVERY: Duration = Duration::from_secs(1);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often it is asked what waits, at most; and the share of the time that asking may take, for
/// it takes the longer the more waits.
const SAMPLE: Duration = Duration::from_secs(5);
const SHARE: u32 = 20;

/// Watches until it is dropped.
pub(super) async fn watch(settings: &Settings, health: &Health) {
    tokio::join!(watch_postgres(settings, health), watch_redis(settings, health), upkeep(health));
}

async fn upkeep(health: &Health) {
    loop {
        tokio::time::sleep(EVERY).await;
        health.metrics().upkeep();
    }
}

async fn watch_redis(settings: &Settings, health: &Health) {
    let mut connection: Option<Redis> = None;
    loop {
        let asked = in_time(Target::Redis, async {
            let redis = match connection.take() {
                Some(redis) => redis,
                None => settings.server.connect().await?,
            };
            redis.ping().await?;
            Ok(redis)
        });
        let answer = asked.await.map(|redis| connection = Some(redis));
        health.answered(Target::Redis, answer.map_err(|error| error.to_string()));
        tokio::time::sleep(EVERY).await;
    }
}

async fn watch_postgres(settings: &Settings, health: &Health) {
    let mut survey: Option<Survey> = None;
    let mut sampler = Sampler::default();
    loop {
        let asked = in_time(Target::Postgres, async {
            let survey = match survey.take() {
                Some(survey) => survey,
                None => Survey::new(settings.database.connect_checked("watch").await?.0),
            };
            survey.ping().await?;
            Ok(survey)
        });
        let answer = asked.await.map(|connected| survey = Some(connected));
        health.answered(Target::Postgres, answer.map_err(|error| error.to_string()));
        if let Some(connected) = &survey
            && sampler.is_due()
            && let Err(error) = sampler.sample(connected, health).await
        {
            // The session meets the same error and logs it.
            debug!("cannot sample what waits: {error}");
            survey = None;
        }
        sampler.tell(health);
        tokio::time::sleep(EVERY).await;
    }
}

async fn in_time<T>(target: Target, asked: impl Future<Output = Result<T>>) -> Result<T> {
    let silent = |_| {
        let context = format!("no answer within {} s", PATIENCE.as_secs());
        target.error(Kind::Unavailable, context)
    };
    tokio::time::timeout(PATIENCE, asked)
        .await
        .map_err(silent)
        .and_then(|asked: Result<T, Error>| asked)
}

/// What was last seen to wait.
#[derive(Default)]
struct Sampler {
    due: Option<Instant>,
    backlog: Vec<Backlog>,
    /// The oldest row that waits: its age, and when that was seen.
    oldest: Option<(Duration, Instant)>,
    /// The oldest transaction in progress: its age as seen, its id, and when the id was first the
    /// oldest.
    transaction: Duration,
    xid: Option<(String, Instant)>,
}

impl Sampler {
    fn is_due(&self) -> bool {
        self.due.is_none_or(|due| due <= Instant::now())
    }

    async fn sample(&mut self, survey: &Survey, health: &Health) -> Result<()> {
        let begun = Instant::now();
        let transaction = survey.oldest_transaction().await?;
        self.see_transaction(transaction);
        // On a standby the same rows would be counted twice.
        let (streams, dead) = match health.is_standing_by() {
            true => (Vec::new(), 0),
            false => (survey.streams().await?, survey.dead_letters().await?),
        };
        health.metrics().given_up(dead);
        self.see_streams(&streams);
        self.due = Some(Instant::now() + SAMPLE.max(begun.elapsed() * SHARE));
        Ok(())
    }

    fn see_streams(&mut self, streams: &[StreamStatus]) {
        let oldest = streams.iter().filter_map(|status| status.oldest_age).fold(0.0, f64::max);
        self.oldest = (oldest > 0.0).then(|| (Duration::from_secs_f64(oldest), Instant::now()));
        self.backlog = streams
            .iter()
            .map(|status| Backlog {
                stream: status.stream.clone(),
                undispatched: status.undispatched,
                state: status.state.clone(),
            })
            .collect();
    }

    fn see_transaction(&mut self, transaction: OldestTransaction) {
        let now = Instant::now();
        self.transaction = Duration::from_secs_f64(transaction.age.unwrap_or_default());
        self.xid = match (self.xid.take(), transaction.xid) {
            (Some((old, since)), Some(xid)) if old == xid => Some((old, since)),
            (_, Some(xid)) => Some((xid, now)),
            (_, None) => None,
        };
    }

    /// Ages grow while nobody can be asked.
    fn tell(&self, health: &Health) {
        let oldest = self.oldest.map_or(Duration::ZERO, |(age, seen)| age + seen.elapsed());
        let stuck = self.xid.as_ref().map_or(Duration::ZERO, |(_, since)| since.elapsed());
        health.metrics().sampled(&self.backlog, oldest, self.transaction.max(stuck));
    }
}
