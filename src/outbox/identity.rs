//! Which outbox this is, and whether this Postgres can be a source.

use super::connect::{Connection, Database, answer};
use super::migrate::check_version;
use crate::error::{Kind, Result, Target};

/// Names an outbox and the cluster it was made in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The outbox, made by `migrate`.
    pub outbox: uuid::Uuid,
    /// The cluster it lives in, made by `initdb`.
    pub system: String,
    /// Clusters it lived in before.
    pub former: Vec<String>,
}

impl Database {
    /// Opens a connection and makes sure that this Postgres can be a source. That holds for as long
    /// as the connection is open: a primary becomes a standby, or another cluster, only by a restart.
    ///
    /// # Errors
    /// `Refused` for a standby, a schema of another version, an outbox of another cluster, a pooler that
    /// shares sessions.
    pub async fn connect_checked(&self, purpose: &str) -> Result<(Connection, Identity)> {
        let connection = self.connect(purpose).await?;
        let other = self.connect("look").await?;
        if connection.is_shared_with(&other).await? {
            let context = format!(
                "a pooler before Postgres at {} gives one session to several connections, and neither \
                 LISTEN nor what was read lasts there; DATABASE_URL must name Postgres itself, or a pool \
                 with pool_mode = session",
                self.name()
            );
            return Err(Target::Postgres.error(Kind::Refused, context));
        }
        let identity = check(&connection, &self.name()).await?;
        Ok((connection, identity))
    }

    /// As [`Database::connect_checked`], but an outbox of another cluster is no error: returns also
    /// which cluster this is.
    ///
    /// # Errors
    /// `Refused` for a standby or a schema of another version.
    pub async fn connect_anywhere(&self, purpose: &str) -> Result<(Connection, Identity, String)> {
        let connection = self.connect(purpose).await?;
        let (identity, here) = read_identity(&connection, &self.name()).await?;
        Ok((connection, identity, here))
    }
}

async fn check(connection: &Connection, name: &str) -> Result<Identity> {
    let (identity, here) = read_identity(connection, name).await?;
    if identity.system != here {
        let context = format!(
            "the outbox in {name} was made in cluster {}, this is cluster {here}: it was restored, \
             copied or upgraded in place, and transaction ids of one cluster mean nothing in another; \
             if this is where it lives from now on, `outbox-relay adopt` says so",
            identity.system
        );
        return Err(Target::Postgres.error(Kind::Refused, context));
    }
    Ok(identity)
}

/// The identity of the outbox, and the cluster that this is.
async fn read_identity(connection: &Connection, name: &str) -> Result<(Identity, String)> {
    let sql =
        "select pg_is_in_recovery(), (select system_identifier::text from pg_control_system())";
    let row = answer(connection.client().query_one(sql, &[])).await?;
    if row.get::<_, bool>(0) {
        let context = format!(
            "Postgres at {name} is a standby, whose snapshots hide open transactions; \
             DATABASE_URL must name the primary"
        );
        return Err(Target::Postgres.error(Kind::Refused, context));
    }
    let here: String = row.get(1);
    check_version(connection, name).await?;
    let sql = "select id, system_identifier, former_systems from outbox.identity";
    let row = answer(connection.client().query_one(sql, &[])).await?;
    let identity = Identity { outbox: row.get(0), system: row.get(1), former: row.get(2) };
    Ok((identity, here))
}
