//! Which outbox this is, and whether this Postgres can be a source.

use super::connect::{Connection, Database, answer};
use super::migrate::check_version;
use crate::error::{Kind, Result, Target};

/// Names an outbox and the cluster it was made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The outbox, made by `migrate`.
    pub outbox: uuid::Uuid,
    /// The cluster, made by `initdb`.
    pub system: String,
}

impl Database {
    /// Opens a connection and makes sure that this Postgres can be a source. That holds for as long
    /// as the connection is open: a primary becomes a standby, or another cluster, only by a restart.
    ///
    /// # Errors
    /// `Refused` for a standby, a schema of another version, an outbox of another cluster.
    pub async fn connect_checked(&self, purpose: &str) -> Result<(Connection, Identity)> {
        let connection = self.connect(purpose).await?;
        let identity = check(&connection, &self.name()).await?;
        Ok((connection, identity))
    }
}

async fn read_identity(connection: &Connection) -> Result<Identity> {
    let sql = "select id, system_identifier from outbox.identity";
    let row = answer(connection.client().query_one(sql, &[])).await?;
    Ok(Identity { outbox: row.get(0), system: row.get(1) })
}

async fn check(connection: &Connection, name: &str) -> Result<Identity> {
    let refuse = |context: String| Err(Target::Postgres.error(Kind::Refused, context));
    let sql =
        "select pg_is_in_recovery(), (select system_identifier::text from pg_control_system())";
    let row = answer(connection.client().query_one(sql, &[])).await?;
    if row.get::<_, bool>(0) {
        return refuse(format!(
            "Postgres at {name} is a standby, whose snapshots hide open transactions; \
             DATABASE_URL must name the primary"
        ));
    }
    let system: String = row.get(1);
    check_version(connection, name).await?;
    let identity = read_identity(connection).await?;
    if identity.system != system {
        return refuse(format!(
            "the outbox in {name} was made in cluster {}, this is cluster {system}: it was restored \
             or copied, and transaction ids of one cluster mean nothing in another; \
             point DATABASE_URL at cluster {}",
            identity.system, identity.system
        ));
    }
    Ok(identity)
}
