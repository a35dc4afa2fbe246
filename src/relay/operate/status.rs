//! What flows, what waits, who leads, and what is wrong.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Kind, Result};
use crate::outbox::{Database, Leadership, OldestTransaction, Phantoms, StreamStatus, Survey};
use crate::stream::Server;
use crate::text::{age, counted};

/// A transaction that is open for longer than this is worth a word.
const LONG: Duration = Duration::from_secs(300);

/// The state of an outbox.
#[derive(Debug, Serialize)]
pub struct Status {
    /// Both servers answer, a relay leads, and every stream flows.
    pub ok: bool,
    /// Whether Postgres answers.
    pub postgres: ServerStatus,
    /// Whether Redis answers.
    pub redis: ServerStatus,
    /// Who leads; None if that is not known or nobody has ever led.
    pub leader: Option<LeaderStatus>,
    /// Rows that are not known to be in Redis.
    pub undispatched: u64,
    /// Age of the oldest of them.
    pub oldest_undispatched_age_seconds: Option<f64>,
    /// Age of the oldest open transaction, as far as this role may see it.
    pub oldest_transaction_age_seconds: Option<f64>,
    /// One sentence per thing that is wrong, each with what to do.
    pub problems: Vec<String>,
    /// All streams, by name.
    pub streams: Vec<StreamLine>,
}

/// Whether a server answers.
#[derive(Debug, Serialize)]
pub struct ServerStatus {
    /// Host and port, and the database.
    pub address: String,
    /// It answers.
    pub answers: bool,
    /// Why it does not, or why it cannot be used although it does.
    pub problem: Option<String>,
}

/// Who leads.
#[derive(Debug, Serialize)]
pub struct LeaderStatus {
    /// Host, process and a random part.
    pub holder: String,
    /// Number of the term.
    pub token: i64,
    /// Since when.
    pub since: String,
    /// Its lease holds.
    pub holds: bool,
    /// Seconds until its lease ends; negative once it has ended.
    pub lease_remaining_seconds: f64,
}

/// One stream.
#[derive(Debug, Serialize)]
pub struct StreamLine {
    /// Its name.
    pub stream: String,
    /// `active`, `rebuilding`, `full`, `paused` or `halted`.
    pub state: String,
    /// Why, and what to do.
    pub reason: Option<String>,
    /// Number of the last sealed entry.
    pub sealed: u64,
    /// Number of the last entry known to be in Redis.
    pub dispatched: u64,
    /// Every group has acknowledged up to here, where that is known.
    pub acked: Option<u64>,
    /// Rows that are not known to be in Redis.
    pub undispatched: u64,
    /// When the oldest of them was inserted.
    pub oldest_undispatched_at: Option<String>,
    /// Its age.
    pub oldest_undispatched_age_seconds: Option<f64>,
}

/// Looks at both servers. One that does not answer is part of the state, not an error.
pub async fn status(database: &Database, server: &Server) -> Status {
    let (asked, connected) = tokio::join!(ask(database), server.connect());
    let redis = match (&asked, connected) {
        // Whose it is can be told only while Postgres answers.
        (Ok(answer), Ok(redis)) => redis.refuse_other(&answer.outbox).await.map(drop),
        (_, connected) => connected.map(drop),
    };
    let postgres = server_status(database.name(), asked.as_ref().map(drop));
    let redis = server_status(server.name(), redis.as_ref().map(drop));
    let answer = asked.unwrap_or_default();
    let streams: Vec<StreamLine> = answer.streams.into_iter().map(StreamLine::from).collect();
    let leader = answer.leadership.filter(|term| !term.holder.is_empty()).map(LeaderStatus::from);
    let mut problems = Vec::new();
    problems.extend([&postgres, &redis].into_iter().filter_map(|server| server.problem.clone()));
    if postgres.problem.is_none() {
        problems.extend(leader_problem(leader.as_ref()));
        problems.extend(answer.phantoms.iter().map(phantom_problem));
        problems.extend(transaction_problem(&answer.transaction));
        problems.extend(answer.ahead.iter().map(|(stream, ahead)| clock_problem(stream, *ahead)));
    }
    let flows = streams.iter().all(|line| line.state == "active");
    let oldest = streams.iter().filter_map(|line| line.oldest_undispatched_age_seconds);
    Status {
        ok: problems.is_empty() && flows,
        postgres,
        redis,
        leader,
        undispatched: streams.iter().map(|line| line.undispatched).sum(),
        oldest_undispatched_age_seconds: oldest.max_by(f64::total_cmp),
        oldest_transaction_age_seconds: answer.transaction.age,
        problems,
        streams,
    }
}

#[derive(Default)]
struct Answer {
    outbox: String,
    streams: Vec<StreamStatus>,
    leadership: Option<Leadership>,
    transaction: OldestTransaction,
    phantoms: Vec<Phantoms>,
    ahead: Vec<(String, f64)>,
}

async fn ask(database: &Database) -> Result<Answer> {
    let (connection, identity) = database.connect_checked("status").await?;
    let survey = Survey::new(connection);
    Ok(Answer {
        outbox: identity.outbox.to_string(),
        streams: survey.streams().await?,
        leadership: survey.leadership().await?,
        transaction: survey.oldest_transaction().await?,
        phantoms: survey.phantoms().await?,
        ahead: survey.ahead_of_clock().await?,
    })
}

fn server_status(address: String, answer: Result<(), &crate::error::Error>) -> ServerStatus {
    let error = answer.err();
    let answers = error.is_none_or(|error| error.kind() != Kind::Unavailable);
    ServerStatus { address, answers, problem: error.map(ToString::to_string) }
}

fn leader_problem(leader: Option<&LeaderStatus>) -> Option<String> {
    match leader {
        None => Some("no relay has ever led here; start one with `outbox-relay run`".to_owned()),
        Some(leader) if leader.holds => None,
        Some(leader) => Some(format!(
            "no relay leads: the lease of {} ended {} ago; start one with `outbox-relay run`, or look \
             at its log",
            leader.holder,
            age(Duration::from_secs_f64(-leader.lease_remaining_seconds)),
        )),
    }
}

fn phantom_problem(phantoms: &Phantoms) -> String {
    format!(
        "stream {}: {} in Redis without a row, for Postgres lost it; listed in outbox.phantom, the \
         stream goes on behind them",
        phantoms.stream,
        counted(phantoms.entries, "entry", "entries"),
    )
}

fn transaction_problem(transaction: &OldestTransaction) -> Option<String> {
    let open = Duration::from_secs_f64(transaction.age.unwrap_or_default());
    (open > LONG).then(|| {
        format!(
            "a transaction has been open for {}; its rows come when it ends, and it keeps Postgres from \
             cleaning up: look for it in pg_stat_activity and pg_prepared_xacts",
            age(open)
        )
    })
}

fn clock_problem(stream: &str, ahead: f64) -> String {
    format!(
        "stream {stream}: its last ID is {} ahead of the clock of Postgres, which had been wrong or has \
         gone back; new IDs keep that time until the clock gets there, their order is right",
        age(Duration::from_secs_f64(ahead))
    )
}

impl From<Leadership> for LeaderStatus {
    fn from(term: Leadership) -> Self {
        Self {
            holder: term.holder,
            token: term.token,
            since: time(term.since),
            holds: term.remaining > 0.0,
            lease_remaining_seconds: term.remaining,
        }
    }
}

impl From<StreamStatus> for StreamLine {
    fn from(status: StreamStatus) -> Self {
        Self {
            stream: status.stream,
            state: status.state,
            reason: status.reason,
            sealed: status.sealed,
            dispatched: status.dispatched,
            acked: status.acked,
            undispatched: status.undispatched,
            oldest_undispatched_at: status.oldest_at.map(time),
            oldest_undispatched_age_seconds: status.oldest_age,
        }
    }
}

/// As in the field `at` of an entry.
pub(super) fn time(time: Timestamp) -> String {
    format!("{time:.6}")
}
