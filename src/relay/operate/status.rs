//! What flows, what waits, who leads, and what is wrong.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use crate::error::{Kind, Result};
use crate::group::Group;
use crate::outbox::{Database, Leadership, OldestTransaction, Phantoms, StreamStatus, Survey};
use crate::relay::report;
use crate::stream::{Place, Redis, Server, View};
use crate::text::{age, counted};

/// A transaction that is open for longer than this is worth a word.
const LONG: Duration = Duration::from_secs(300);
/// A group with entries to read that has not asked for this long is worth a word.
const ABANDONED: Duration = Duration::from_secs(3_600);

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
    /// Events that workers have given up.
    pub dead_letters: u64,
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
    /// Rows and log have been purged up to here.
    pub purged: u64,
    /// Entries in Redis; None if that is not known.
    pub entries: Option<u64>,
    /// Its consumer groups, by name.
    pub groups: Vec<GroupLine>,
    /// Rows that are not known to be in Redis.
    pub undispatched: u64,
    /// When the oldest of them was inserted.
    pub oldest_undispatched_at: Option<String>,
    /// Its age.
    pub oldest_undispatched_age_seconds: Option<f64>,
}

/// One consumer group.
#[derive(Debug, Serialize)]
pub struct GroupLine {
    /// Its name.
    pub group: String,
    /// Entries that it has not acknowledged, given to it or not.
    pub lag: u64,
    /// Entries that it was given and has not acknowledged.
    pub pending: u64,
    /// Seconds since one of its consumers last asked for entries; None if it has no consumer, or nothing to
    /// do.
    pub idle_seconds: Option<f64>,
}

/// Looks at both servers. One that does not answer is part of the state, not an error.
pub async fn status(database: &Database, server: &Server) -> Status {
    let (asked, connected) = tokio::join!(ask(database), server.connect());
    let redis = match (&asked, connected) {
        // Whose it is can be told only while Postgres answers.
        (Ok(answer), Ok(redis)) => look(&redis, answer).await,
        (_, connected) => connected.map(|_| Vec::new()),
    };
    let postgres = server_status(database.name(), asked.as_ref().map(drop));
    let redis_status = server_status(server.name(), redis.as_ref().map(drop));
    let answer = asked.unwrap_or_default();
    let mut problems = Vec::new();
    problems.extend([&postgres, &redis_status].into_iter().filter_map(|s| s.problem.clone()));
    let mut views = redis.unwrap_or_default().into_iter();
    let mut streams: Vec<StreamLine> = Vec::with_capacity(answer.streams.len());
    let mut of_groups = Vec::new();
    for status in answer.streams {
        let floor = status.floor;
        let mut line = StreamLine::from(status);
        if let Some((key, view)) = views.next() {
            of_groups.extend(group_problems(&line.stream, &key, floor, &view));
            line.see(&view);
        }
        streams.push(line);
    }
    let leader = answer.leadership.filter(|term| !term.holder.is_empty()).map(LeaderStatus::from);
    if postgres.problem.is_none() {
        problems.extend(leader_problem(leader.as_ref()));
        problems.extend(answer.phantoms.iter().map(phantom_problem));
        problems.extend(transaction_problem(&answer.transaction));
        problems.extend(answer.ahead.iter().map(|(stream, ahead)| clock_problem(stream, *ahead)));
        problems.extend(of_groups);
    }
    let flows = streams.iter().all(|line| line.state == "active");
    let oldest = streams.iter().filter_map(|line| line.oldest_undispatched_age_seconds);
    Status {
        ok: problems.is_empty() && flows,
        postgres,
        redis: redis_status,
        leader,
        undispatched: streams.iter().map(|line| line.undispatched).sum(),
        oldest_undispatched_age_seconds: oldest.max_by(f64::total_cmp),
        oldest_transaction_age_seconds: answer.transaction.age,
        dead_letters: answer.dead_letters,
        problems,
        streams,
    }
}

/// The streams in Redis with their keys, if it is this outbox's.
async fn look(redis: &Redis, answer: &Answer) -> Result<Vec<(String, View)>> {
    redis.refuse_other(&answer.outbox).await?;
    let names: Vec<Arc<str>> = answer.streams.iter().map(|s| s.stream.as_str().into()).collect();
    let views = redis.views(&names).await?;
    Ok(names.iter().map(|name| redis.key(name)).zip(views).collect())
}

/// What is wrong with the groups of one stream.
fn group_problems(stream: &str, key: &str, floor: u64, view: &View) -> Vec<String> {
    let Place::At(last) = view.place else { return Vec::new() };
    let (mut problems, trimmed) = (Vec::new(), view.trimmed());
    let misses = |group: &Group| group.delivered.n < trimmed || group.dangling > 0;
    if trimmed > floor && view.groups.iter().any(misses) {
        problems.push(report::removed_sentence(stream, &(floor + 1..=trimmed)));
    }
    for group in &view.groups {
        let (name, lag) = (&group.name, group.lag(last.n));
        if group.dangling > 0 {
            problems.push(format!(
                "stream {stream}: {} that consumer group {name} has not acknowledged are no longer in the \
                 stream, for somebody removed them; XAUTOCLAIM {key} {name} CONSUMER 0 0 clears its list",
                counted(group.dangling, "entry", "entries"),
            ));
        }
        let idle = group.idle_ms.map(Duration::from_millis);
        if lag > 0 && idle.is_none_or(|idle| idle > ABANDONED) {
            let since = match idle {
                Some(idle) => format!("has not asked for entries for {}", age(idle)),
                None => "has no consumer".to_owned(),
            };
            problems.push(format!(
                "stream {stream}: consumer group {name} {since}, {} for it and stay in Redis; if nobody \
                 uses it any more: XGROUP DESTROY {key} {name}",
                counted(lag, "entry waits", "entries wait"),
            ));
        }
    }
    problems
}

#[derive(Default)]
struct Answer {
    outbox: String,
    streams: Vec<StreamStatus>,
    leadership: Option<Leadership>,
    transaction: OldestTransaction,
    phantoms: Vec<Phantoms>,
    ahead: Vec<(String, f64)>,
    dead_letters: u64,
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
        dead_letters: survey.dead_letters().await?,
    })
}

fn server_status(address: String, answer: Result<(), &crate::error::Error>) -> ServerStatus {
    let error = answer.err();
    let answers = error.is_none_or(|error| error.kind() != Kind::Unavailable);
    ServerStatus { address, answers, problem: error.map(ToString::to_string) }
}

pub(super) fn leader_problem(leader: Option<&LeaderStatus>) -> Option<String> {
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
            purged: status.purged,
            entries: None,
            groups: Vec::new(),
            undispatched: status.undispatched,
            oldest_undispatched_at: status.oldest_at.map(time),
            oldest_undispatched_age_seconds: status.oldest_age,
        }
    }
}

impl StreamLine {
    fn see(&mut self, view: &View) {
        let Place::At(last) = view.place else { return };
        self.entries = Some(view.entries);
        self.groups = view
            .groups
            .iter()
            .map(|group| GroupLine {
                group: group.name.clone(),
                lag: group.lag(last.n),
                pending: group.waiting,
                idle_seconds: group.idle_ms.map(|idle| idle as f64 / 1_000.0),
            })
            .collect();
        self.groups.sort_by(|a, b| a.group.cmp(&b.group));
    }
}

/// As in the field `at` of an entry.
pub(super) fn time(time: Timestamp) -> String {
    format!("{time:.6}")
}
