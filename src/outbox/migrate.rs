//! The schema: creates it, upgrades it, grants rights, and refuses what it does not know.

use tokio_postgres::error::SqlState;

use super::connect::{Connection, Database, answer};
use crate::error::{Error, Kind, Result, Target};

/// Migrations in order; version k is the k-th. Forward only: applied ones are never changed.
const MIGRATIONS: &[(&str, &str)] = &[
    ("outbox", include_str!("../../sql/migrations/0001_outbox.sql")),
    ("operate", include_str!("../../sql/migrations/0002_operate.sql")),
    ("bounds", include_str!("../../sql/migrations/0003_bounds.sql")),
    ("ids", include_str!("../../sql/migrations/0004_ids.sql")),
    ("partitions", include_str!("../../sql/migrations/0005_partitions.sql")),
    ("workers", include_str!("../../sql/migrations/0006_workers.sql")),
];

/// The version of the schema that this program knows.
pub(super) const NEWEST: i32 = MIGRATIONS.len() as i32;

/// PostgreSQL 14 is the oldest server with all that the schema uses.
pub const OLDEST_SERVER: i32 = 140_000;

/// Rights to grant.
#[derive(Clone, Debug, Default)]
pub struct Grants {
    /// Roles of applications: insert entries.
    pub applications: Vec<String>,
    /// Roles of relays: read the schema, write the log.
    pub relays: Vec<String>,
    /// Roles of workers: note what they have done and what they gave up.
    pub workers: Vec<String>,
}

/// What a run of [`migrate`] did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migrated {
    /// Version before; 0 if there was no schema.
    pub from: i32,
    /// Version now.
    pub to: i32,
    /// Leaves attached.
    pub leaves: i32,
}

/// Creates or upgrades the schema, attaches leaves, grants rights. Safe twice and at the same time.
///
/// # Errors
/// `Refused` for a newer schema, a server that is too old, a database that is not UTF8, a role that
/// does not exist; and then nothing was changed.
pub async fn migrate(database: &Database, grants: &Grants) -> Result<Migrated> {
    let connection = database.connect("migrate").await?;
    let name = database.name();
    check_server(&connection, &name).await?;
    // One transaction: all of it or nothing. The lock makes a second `migrate` wait for the first.
    connection
        .batch_for_long(
            "begin; set local lock_timeout = 0; set local statement_timeout = 0; \
             select pg_advisory_xact_lock(hashtext('outbox-relay migrate'))",
        )
        .await?;
    let migrated = upgrade(&connection, &name, grants).await;
    let end = if migrated.is_ok() { "commit" } else { "rollback" };
    let ended = connection.batch(end).await;
    migrated.and_then(|migrated| ended.map(|()| migrated))
}

async fn upgrade(connection: &Connection, name: &str, grants: &Grants) -> Result<Migrated> {
    let from = version(connection).await?;
    if from > NEWEST {
        return Err(newer(name, from));
    }
    for (version, (title, sql)) in (1..).zip(MIGRATIONS).skip(from as usize) {
        connection.batch_for_long(sql).await?;
        let record = "insert into outbox.migration (version, name) values ($1, $2)";
        answer(connection.client().execute(record, &[&version, title])).await?;
    }
    let leaves = answer(connection.client().query_one("select outbox.attach_leaves()", &[]));
    let leaves = leaves.await?.get(0);
    for (function, roles) in [
        ("grant_application", &grants.applications),
        ("grant_relay", &grants.relays),
        ("grant_worker", &grants.workers),
    ] {
        for role in roles {
            grant(connection, function, role).await?;
        }
    }
    Ok(Migrated { from, to: NEWEST, leaves })
}

async fn grant(connection: &Connection, function: &str, role: &str) -> Result<()> {
    let exists = "select exists (select from pg_roles where rolname = $1)";
    if !answer(connection.client().query_one(exists, &[&role])).await?.get::<_, bool>(0) {
        let context = format!(
            "there is no role {role:?} to grant rights to; make it with `create role {role:?} login`"
        );
        return Err(Target::Postgres.error(Kind::Refused, context));
    }
    let sql = format!("select outbox.{function}(quote_ident($1::text)::regrole)");
    answer(connection.client().query_one(&sql, &[&role])).await.map(|_| ())
}

async fn check_server(connection: &Connection, name: &str) -> Result<()> {
    let refuse = |context: String| Err(Target::Postgres.error(Kind::Refused, context));
    let sql = "select pg_is_in_recovery(), current_setting('server_version_num')::int, \
               current_setting('server_encoding'), current_setting('server_version')";
    let row = answer(connection.client().query_one(sql, &[])).await?;
    let (encoding, version): (String, String) = (row.get(2), row.get(3));
    if row.get::<_, bool>(0) {
        refuse(format!("Postgres at {name} is a standby; DATABASE_URL must name the primary"))
    } else if row.get::<_, i32>(1) < OLDEST_SERVER {
        refuse(format!("Postgres at {name} has version {version}; 14 or later is needed"))
    } else if encoding != "UTF8" {
        refuse(format!(
            "the database {name} has encoding {encoding}; streams carry UTF-8, so the outbox needs a \
             database made with `create database … encoding 'UTF8' template template0`"
        ))
    } else {
        Ok(())
    }
}

/// Version of the schema, 0 if there is none.
pub(super) async fn version(connection: &Connection) -> Result<i32> {
    let exists = "select to_regclass('outbox.migration') is not null";
    if !answer(connection.client().query_one(exists, &[])).await?.get::<_, bool>(0) {
        return Ok(0);
    }
    let sql = "select coalesce(max(version), 0) from outbox.migration";
    Ok(answer(connection.client().query_one(sql, &[])).await?.get(0))
}

/// Refuses a schema that this program does not know.
pub(super) async fn check_version(connection: &Connection, name: &str) -> Result<()> {
    let sql = "select coalesce(max(version), 0) from outbox.migration";
    let found: i32 = match connection.client().query_one(sql, &[]).await {
        Ok(row) => row.get(0),
        Err(error)
            if matches!(
                error.code(),
                Some(code) if *code == SqlState::UNDEFINED_TABLE || *code == SqlState::INVALID_SCHEMA_NAME
            ) =>
        {
            return Err(Target::Postgres.error(
                Kind::Refused,
                format!("there is no outbox in {name}; make it with `outbox-relay migrate`"),
            ));
        }
        Err(error) => return Err(super::connect::statement_error(error)),
    };
    if found > NEWEST {
        Err(newer(name, found))
    } else if found < NEWEST {
        let context = format!(
            "the outbox in {name} has schema version {found}, this program needs {NEWEST}; \
             run `outbox-relay migrate`"
        );
        Err(Target::Postgres.error(Kind::Refused, context))
    } else {
        Ok(())
    }
}

fn newer(name: &str, found: i32) -> Error {
    let context = format!(
        "the outbox in {name} has schema version {found}, this program knows {NEWEST} and older ones; \
         use a newer outbox-relay"
    );
    Target::Postgres.error(Kind::Refused, context)
}
