//! What a consumer group has done, and what it gave up: written in the transactions of its handlers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio_postgres::types::ToSql;
use tokio_postgres::{Statement, Transaction};
use uuid::Uuid;

use super::connect::{Connection, Database, answer, statement_error};
use super::dead_letter::Buried;
use crate::error::{Kind, Result, Target};

/// A server ends a transaction in which nothing was asked for so long after its handler should have ended.
const GRACE: Duration = Duration::from_secs(60);

/// A connection on which a handler works, one event at a time.
#[derive(Debug)]
pub struct WorkLog {
    connection: Connection,
    group: String,
    /// Notes an event as done.
    note: Statement,
    /// Takes a dead letter away.
    raise: Statement,
    /// Which transaction this is.
    own: Statement,
    /// A statement of ours that waits for another worker is waited for as long.
    patience: Duration,
}

/// The transaction of a handler, which holds the note.
pub struct Work<'a> {
    transaction: Transaction<'a>,
    id: String,
    own: &'a Statement,
    patience: Duration,
    warned: Arc<AtomicBool>,
}

impl WorkLog {
    /// Opens a connection with the settings of its role, on which `group` works for at most `limit` at a
    /// time, and looks whether the role may do that.
    ///
    /// # Errors
    /// As [`Database::connect`]; `Refused` if the schema is older, or the role lacks a right.
    pub async fn open(database: &Database, group: &str, limit: Duration) -> Result<Self> {
        let connection = database.connect_to_work("worker").await?;
        let patience = limit + GRACE;
        let set = "select set_config('statement_timeout', $1, false), \
                          set_config('idle_in_transaction_session_timeout', $2, false)";
        let (limit, idle) = (limit.as_millis().to_string(), patience.as_millis().to_string());
        answer(connection.client().execute(set, &[&limit, &idle])).await?;
        // What is noted as done is acknowledged next, so it must last.
        connection.commit_durably().await?;
        check_rights(&connection, &database.name()).await?;
        let note = connection.prepare(include_str!("../../sql/queries/note_done.sql")).await?;
        let raise = connection.prepare(include_str!("../../sql/queries/raise_dead.sql")).await?;
        let own = connection.prepare("select pg_current_xact_id_if_assigned()::text").await?;
        Ok(Self { connection, group: group.to_owned(), note, raise, own, patience })
    }

    /// Refuses to work where somebody in between shares sessions among others: what a session has set would
    /// be theirs, and ours another one's.
    ///
    /// # Errors
    /// `Refused` behind such a pooler.
    pub async fn refuse_pooler(&self, database: &Database) -> Result<()> {
        let other = database.connect_to_work("worker").await?;
        if !self.connection.is_shared_with(&other).await? {
            return Ok(());
        }
        let context = format!(
            "something between this worker and Postgres at {} shares sessions, as PgBouncer does with \
             pool_mode = transaction; let it use pool_mode = session, or connect to Postgres itself",
            database.name()
        );
        Err(Target::Postgres.error(Kind::Refused, context))
    }

    /// Begins a transaction in which `event` is noted as done; None if it was done before. Where another
    /// worker has just begun the same, waits for the end of its transaction.
    ///
    /// # Errors
    /// As any statement.
    pub async fn begin(&mut self, event: Uuid) -> Result<Option<Work<'_>>> {
        let Self { connection, group, note, own, patience, .. } = self;
        begin(connection, note, own, group, event, *patience).await
    }

    /// Begins a transaction in which `event` is no dead letter any more; None if it is none.
    ///
    /// # Errors
    /// As any statement.
    pub async fn begin_again(&mut self, event: Uuid) -> Result<Option<Work<'_>>> {
        let Self { connection, group, raise, own, patience, .. } = self;
        begin(connection, raise, own, group, event, *patience).await
    }

    /// Gives an event up: notes it as done, and why it is not. False if it was done before.
    ///
    /// # Errors
    /// As any statement.
    pub async fn bury(&mut self, dead: &Buried, why: &str) -> Result<bool> {
        let group = self.group.clone();
        let Some(work) = self.begin(dead.event).await? else { return Ok(false) };
        let deliveries = i64::try_from(dead.deliveries).unwrap_or(i64::MAX);
        // Postgres stores no NUL.
        let why = why.replace('\0', "\u{fffd}");
        let bury = include_str!("../../sql/queries/bury.sql");
        let values: [&(dyn ToSql + Sync); 11] = [
            &group,
            &dead.event,
            &dead.stream,
            &dead.entry_id,
            &dead.key,
            &dead.kind,
            &dead.payload,
            &dead.headers,
            &dead.created_at,
            &deliveries,
            &why,
        ];
        answer(work.transaction.execute(bury, &values)).await?;
        match work.commit().await? {
            Ok(()) => Ok(true),
            Err(refused) => Err(Target::Postgres.error(Kind::Unavailable, refused)),
        }
    }

    /// Says why one more attempt with a dead letter has failed.
    ///
    /// # Errors
    /// As any statement.
    pub async fn dead_again(&self, event: Uuid, why: &str) -> Result<()> {
        let why = why.replace('\0', "\u{fffd}");
        let again = include_str!("../../sql/queries/dead_again.sql");
        let client = self.connection.client();
        answer(client.execute(again, &[&self.group, &event, &why])).await.map(drop)
    }

    /// Takes a dead letter for one more attempt. Returns how often it was given to a worker, with this
    /// time; None if another worker has it, or it is gone.
    ///
    /// # Errors
    /// As any statement.
    pub async fn take_retry(&self, event: Uuid) -> Result<Option<u64>> {
        let take = include_str!("../../sql/queries/take_retry.sql");
        let client = self.connection.client();
        let row = answer(client.query_opt(take, &[&self.group, &event])).await?;
        Ok(row.map(|row| row.get::<_, i64>(0).unsigned_abs()))
    }

    /// Dead letters of `stream`, or of any partition of it, that somebody wants tried once more, at most
    /// `most`.
    ///
    /// # Errors
    /// As any statement.
    pub async fn retries(&self, stream: &str, most: usize) -> Result<Vec<Buried>> {
        let sql = include_str!("../../sql/queries/retries.sql");
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let client = self.connection.client();
        let rows = answer(client.query(sql, &[&self.group, &stream, &most])).await?;
        Ok(rows.iter().map(Buried::read).collect())
    }

    /// The connection has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }
}

impl<'a> Work<'a> {
    /// Where the handler works.
    pub fn transaction(&mut self) -> &mut Transaction<'a> {
        &mut self.transaction
    }

    /// Ends the transaction well: `Err` with what is wrong if that cannot be, and then nothing of it is
    /// there.
    ///
    /// Postgres answers COMMIT with a success also where it rolls back, for a statement had failed and nobody
    /// told it; and where the handler has ended the transaction itself, the note is not in this one. So it is
    /// asked first which transaction this is.
    ///
    /// # Errors
    /// If the connection was lost, or the commit may not last: then it may have been committed or not.
    pub async fn commit(self) -> Result<Result<(), String>> {
        let Self { transaction, id, own, patience, warned } = self;
        match within(patience, transaction.query_one(own, &[])).await? {
            Err(error) => return refused(error),
            Ok(row) if row.get::<_, Option<&str>>(0) != Some(&id) => {
                let told = "the handler has ended its transaction itself; nothing it did is known to be done";
                return Ok(Err(told.to_owned()));
            }
            Ok(_) => {}
        }
        warned.store(false, Ordering::Release);
        if let Err(error) = within(patience, transaction.commit()).await? {
            return refused(error);
        }
        match warned.load(Ordering::Acquire) {
            false => Ok(Ok(())),
            true => {
                let context = "Postgres has committed with a warning: a standby may not have it";
                Err(Target::Postgres.error(Kind::Unavailable, context))
            }
        }
    }

    /// Undoes it.
    ///
    /// # Errors
    /// If the connection was lost: then whatever went wrong was not the handler's fault.
    pub async fn roll_back(self) -> Result<()> {
        answer(self.transaction.rollback()).await
    }
}

async fn begin<'a>(
    connection: &'a mut Connection,
    first: &Statement,
    own: &'a Statement,
    group: &str,
    event: Uuid,
    patience: Duration,
) -> Result<Option<Work<'a>>> {
    let warned = connection.warnings();
    let transaction = answer(connection.client_mut().transaction()).await?;
    let noted = within(patience, transaction.query_opt(first, &[&group, &event])).await?;
    match noted.map_err(statement_error)? {
        None => answer(transaction.rollback()).await.map(|()| None),
        Some(row) => Ok(Some(Work { transaction, id: row.get(0), own, patience, warned })),
    }
}

async fn check_rights(connection: &Connection, name: &str) -> Result<()> {
    let may = include_str!("../../sql/queries/worker_rights.sql");
    let row = answer(connection.client().query_one(may, &[])).await?;
    let context = match (row.get::<_, Option<bool>>(0), row.get::<_, Option<bool>>(1)) {
        (Some(true), Some(true)) => return Ok(()),
        (None, _) | (Some(_), None) => format!(
            "there is no outbox with workers in {name}; its owner makes it with `outbox-relay migrate`"
        ),
        _ => format!(
            "the role of this worker may not write outbox.done and outbox.dead_letter in {name}; the owner \
             of the schema lets it with `outbox-relay migrate --worker-role ROLE`"
        ),
    };
    Err(Target::Postgres.error(Kind::Refused, context))
}

/// Waits for an answer for as long as `patience`.
async fn within<T>(
    patience: Duration,
    asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<Result<T, tokio_postgres::Error>> {
    tokio::time::timeout(patience, asked).await.map_err(|_| {
        let context = format!("Postgres did not answer within {} s", patience.as_secs());
        Target::Postgres.error(Kind::Unavailable, context)
    })
}

/// What a statement that fails at the end of a handler means: its own fault, or that a server is lost.
fn refused(error: tokio_postgres::Error) -> Result<Result<(), String>> {
    match error.as_db_error() {
        Some(said) if !is_outage(&error) => {
            Ok(Err(format!("{} (SQLSTATE {})", said.message(), said.code().code())))
        }
        _ => Err(statement_error(error)),
    }
}

/// Whether an error, or one that caused it, says that Postgres cannot serve: no fault of who has asked.
pub fn is_outage(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<tokio_postgres::Error>() {
            // Connections, resources, an operator, the system.
            let outage = ["08", "53", "57P", "58"];
            return match error.code() {
                Some(code) => outage.iter().any(|class| code.code().starts_with(class)),
                None => error.is_closed() || std::error::Error::source(error).is_some_and(is_io),
            };
        }
        next = error.source();
    }
    false
}

fn is_io(error: &(dyn std::error::Error + 'static)) -> bool {
    error.is::<std::io::Error>()
}
