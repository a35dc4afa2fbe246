//! What a consumer group has done, and what it gave up: written in the transactions of its handlers.

use std::time::Duration;

use tokio_postgres::Transaction;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::connect::{Connection, Database, answer, statement_error};
use crate::error::{Kind, Result, Target};

/// A server ends a transaction in which nothing was asked for so long after its handler should have ended.
const GRACE: Duration = Duration::from_secs(60);

/// A connection on which a handler works, one event at a time.
#[derive(Debug)]
pub struct WorkLog {
    connection: Connection,
    group: String,
}

/// An event that a group gives up, or has given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buried {
    /// The event.
    pub event: Uuid,
    /// Its stream.
    pub stream: String,
    /// Its ID in the stream.
    pub entry_id: String,
    /// Its key.
    pub key: Option<String>,
    /// Its type.
    pub kind: Option<String>,
    /// Its payload, JSON.
    pub payload: String,
    /// Its headers, JSON.
    pub headers: Option<String>,
    /// When it was written, RFC 3339.
    pub created_at: String,
    /// How often it was given to a worker.
    pub deliveries: u64,
}

impl WorkLog {
    /// Opens a connection with the settings of its role, on which `group` works for at most `limit` at a
    /// time, and looks whether the role may do that.
    ///
    /// # Errors
    /// As [`Database::connect`]; `Refused` if the schema is older, or the role lacks a right.
    pub async fn open(database: &Database, group: &str, limit: Duration) -> Result<Self> {
        let connection = database.connect_to_work("worker").await?;
        let (limit, patience) = (limit.as_millis(), (limit + GRACE).as_millis());
        let set = "select set_config('statement_timeout', $1, false), \
                          set_config('idle_in_transaction_session_timeout', $2, false)";
        let values: [&(dyn ToSql + Sync); 2] = [&limit.to_string(), &patience.to_string()];
        answer(connection.client().execute(set, &values)).await?;
        // What is noted as done is acknowledged next, so it must last.
        connection.commit_durably().await?;
        let may = include_str!("../../sql/queries/worker_rights.sql");
        let may: bool = answer(connection.client().query_one(may, &[])).await?.get(0);
        if !may {
            let context = "the role of this worker may not write outbox.done and outbox.dead_letter; \
                           the owner of the schema lets it with `outbox-relay migrate --worker-role ROLE`";
            return Err(Target::Postgres.error(Kind::Refused, context));
        }
        Ok(Self { connection, group: group.to_owned() })
    }

    /// Begins a transaction in which `event` is noted as done; None if it was done before. Where another
    /// worker has just begun the same, waits for the end of its transaction.
    ///
    /// # Errors
    /// As any statement.
    pub async fn begin(&mut self, event: Uuid) -> Result<Option<Transaction<'_>>> {
        let note = include_str!("../../sql/queries/note_done.sql");
        self.begin_with(note, event).await
    }

    /// Begins a transaction in which `event` is no dead letter any more; None if it is none.
    ///
    /// # Errors
    /// As any statement.
    pub async fn begin_again(&mut self, event: Uuid) -> Result<Option<Transaction<'_>>> {
        let raise = include_str!("../../sql/queries/raise_dead.sql");
        self.begin_with(raise, event).await
    }

    async fn begin_with(&mut self, first: &str, event: Uuid) -> Result<Option<Transaction<'_>>> {
        let transaction = answer(self.connection.client_mut().transaction()).await?;
        let rows = answer(transaction.execute(first, &[&self.group, &event])).await?;
        match rows {
            0 => answer(transaction.rollback()).await.map(|()| None),
            _ => Ok(Some(transaction)),
        }
    }

    /// Gives an event up: notes it as done, and why it is not. False if it was done before.
    ///
    /// # Errors
    /// As any statement.
    pub async fn bury(&mut self, dead: &Buried, why: &str) -> Result<bool> {
        let group = self.group.clone();
        let Some(transaction) = self.begin(dead.event).await? else { return Ok(false) };
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
        answer(transaction.execute(bury, &values)).await?;
        answer(transaction.commit()).await.map(|()| true)
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

    /// Dead letters of `stream` that somebody wants tried once more, at most `most`.
    ///
    /// # Errors
    /// As any statement.
    pub async fn retries(&self, stream: &str, most: usize) -> Result<Vec<Buried>> {
        let sql = include_str!("../../sql/queries/retries.sql");
        let most = i64::try_from(most).unwrap_or(i64::MAX);
        let client = self.connection.client();
        let rows = answer(client.query(sql, &[&self.group, &stream, &most])).await?;
        let buried = |row: &tokio_postgres::Row| Buried {
            event: row.get(0),
            stream: stream.to_owned(),
            entry_id: row.get(1),
            key: row.get(2),
            kind: row.get(3),
            payload: row.get(4),
            headers: row.get(5),
            created_at: row.get(6),
            deliveries: row.get::<_, i64>(7).unsigned_abs(),
        };
        Ok(rows.iter().map(buried).collect())
    }

    /// The connection has ended.
    pub fn is_closed(&self) -> bool {
        self.connection.is_closed()
    }
}

/// Ends a transaction well: `Err` with what Postgres says if it refused it, as for a constraint that is
/// looked at last.
///
/// # Errors
/// If the connection was lost: then it may have been committed or not.
pub async fn commit(transaction: Transaction<'_>) -> Result<Result<(), String>> {
    match transaction.commit().await {
        Ok(()) => Ok(Ok(())),
        Err(error) => match error.as_db_error() {
            // Ended by an operator, or by a server that stops.
            Some(said) if !said.code().code().starts_with("57") => {
                Ok(Err(format!("{} (SQLSTATE {})", said.message(), said.code().code())))
            }
            _ => Err(statement_error(error)),
        },
    }
}

/// Undoes a transaction.
///
/// # Errors
/// If the connection was lost: then whatever went wrong in the transaction was not its handler's fault.
pub async fn roll_back(transaction: Transaction<'_>) -> Result<()> {
    answer(transaction.rollback()).await
}
