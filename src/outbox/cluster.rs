//! What the server says of itself, and who keeps it from working well: for a doctor.

use std::time::Duration;

use tokio_postgres::Row;

use super::connect::{Connection, answer};
use crate::error::Result;

/// The server and the session that asks.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// The version as a number: 150004 for 15.4.
    pub version_number: i32,
    /// The version as text.
    pub version: String,
    /// It follows another server.
    pub standby: bool,
    /// Encoding of the database.
    pub encoding: String,
    /// Commits reach the disk.
    pub fsync: bool,
    /// A page half written can be repaired.
    pub full_page_writes: bool,
    /// Dead rows are cleaned up.
    pub autovacuum: bool,
    /// Commits do not wait for the disk, by the server's own setting.
    pub hasty: bool,
    /// Standbys that commits wait for; empty if for none.
    pub standby_names: String,
    /// One of them is connected, as far as this role may see it.
    pub has_synchronous_standby: bool,
    /// A transaction may do nothing for ever.
    pub idle_unbounded: bool,
    /// Connections in use.
    pub connections: i64,
    /// Connections there may be.
    pub max_connections: i64,
    /// Who asks.
    pub role: String,
    /// Of which database.
    pub database: String,
    /// The role is a superuser.
    pub superuser: bool,
    /// The role owns the schema, or is a member of the role that does.
    pub owner: bool,
}

/// A transaction that has not ended for long.
#[derive(Clone, Debug)]
pub struct Holder {
    /// Process id of its session, or its name in quotes if it is prepared.
    pub name: String,
    /// It was prepared and waits for its second phase.
    pub prepared: bool,
    /// Which application and role.
    pub who: String,
    /// For how long; None if this role may not see it.
    pub age: Option<Duration>,
    /// The statement that ends it.
    pub remedy: String,
}

/// A replication slot that nobody uses.
#[derive(Clone, Debug)]
pub struct Slot {
    /// Its name.
    pub name: String,
    /// Bytes of WAL kept for it.
    pub kept: u64,
    /// The statement that drops it.
    pub remedy: String,
}

/// Asks, on a connection of its own; one that is lost, or a right that is missing, fails one question
/// and not the others.
#[derive(Debug)]
pub struct Checkup(pub(super) Connection);

impl Checkup {
    /// Asks on `connection`.
    pub fn new(connection: Connection) -> Self {
        Self(connection)
    }

    /// Whether somebody between here and the server gives one session of it to several connections, this
    /// one and `other`.
    ///
    /// # Errors
    /// As any statement.
    pub async fn is_shared_with(&self, other: &Connection) -> Result<bool> {
        self.0.is_shared_with(other).await
    }

    /// What the server says of itself.
    ///
    /// # Errors
    /// As any statement.
    pub async fn cluster(&self) -> Result<Cluster> {
        let sql = include_str!("../../sql/queries/cluster.sql");
        let row = answer(self.0.client().query_one(sql, &[])).await?;
        Ok(Cluster {
            version_number: row.get("version_number"),
            version: row.get("version"),
            standby: row.get("standby"),
            encoding: row.get("encoding"),
            fsync: row.get("fsync"),
            full_page_writes: row.get("full_page_writes"),
            autovacuum: row.get("autovacuum"),
            hasty: row.get("hasty"),
            standby_names: row.get("standby_names"),
            has_synchronous_standby: row.get("has_synchronous_standby"),
            idle_unbounded: row.get("idle_unbounded"),
            connections: row.get("connections"),
            max_connections: row.get("max_connections"),
            role: row.get("role"),
            database: row.get("database"),
            superuser: row.get("superuser"),
            owner: row.get("owner"),
        })
    }

    /// Transactions that have not ended for at least this long; the oldest first.
    ///
    /// # Errors
    /// As any statement.
    pub async fn holders(&self, least: Duration) -> Result<Vec<Holder>> {
        let sql = include_str!("../../sql/queries/holders.sql");
        let rows = answer(self.0.client().query(sql, &[&least.as_secs_f64()])).await?;
        let read = |row: &Row| Holder {
            name: row.get("name"),
            prepared: row.get("prepared"),
            who: row.get("who"),
            age: Some(Duration::from_secs_f64(row.get::<_, f64>("age").max(0.0))),
            remedy: row.get("remedy"),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// Replication slots that nobody uses and that keep Postgres from cleaning up.
    ///
    /// # Errors
    /// As any statement.
    pub async fn slots(&self) -> Result<Vec<Slot>> {
        let rows = self.ask(include_str!("../../sql/queries/slots.sql")).await?;
        let read = |row: &Row| Slot {
            name: row.get("name"),
            kept: row.get::<_, i64>("kept").unsigned_abs(),
            remedy: row.get("remedy"),
        };
        Ok(rows.iter().map(read).collect())
    }

    /// For whom commits are set not to wait for the disk, and the statement that makes them wait again.
    ///
    /// # Errors
    /// As any statement.
    pub async fn hasty_roles(&self) -> Result<Vec<(String, String)>> {
        let rows = self.ask(include_str!("../../sql/queries/hasty_roles.sql")).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    pub(super) async fn ask(&self, sql: &str) -> Result<Vec<Row>> {
        answer(self.0.client().query(sql, &[])).await
    }
}
