//! `outbox-relay migrate`: the schema, and rights on it.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;

use crate::config::DatabaseArgs;
use crate::error::Result;
use crate::outbox::{Grants, migrate};

#[derive(Args, Debug)]
pub(super) struct MigrateArgs {
    #[command(flatten)]
    pub(super) database: DatabaseArgs,
    /// Let this role insert entries; may be repeated
    #[arg(long, value_name = "ROLE")]
    app_role: Vec<String>,
    /// Let this role run the relay; may be repeated
    #[arg(long, value_name = "ROLE")]
    relay_role: Vec<String>,
    /// Let this role's workers note what they have done, and what they gave up; may be repeated
    #[arg(long, value_name = "ROLE")]
    worker_role: Vec<String>,
}

pub(super) async fn run(args: MigrateArgs) -> Result<ExitCode> {
    let database = args.database.database()?;
    let grants =
        Grants { applications: args.app_role, relays: args.relay_role, workers: args.worker_role };
    let migrated = migrate(&database, &grants).await?;
    let mut out = std::io::stdout().lock();
    let name = database.name();
    let _ = match (migrated.from, migrated.to) {
        (0, to) => writeln!(out, "{name}: created the schema outbox, version {to}"),
        (from, to) if from == to => {
            writeln!(out, "{name}: the schema outbox is at version {to}, as it should be")
        }
        (from, to) => {
            writeln!(out, "{name}: upgraded the schema outbox from version {from} to {to}")
        }
    };
    for (what, roles) in [
        ("insert entries", &grants.applications),
        ("run the relay", &grants.relays),
        ("note what workers have done", &grants.workers),
    ] {
        for role in roles {
            let _ = writeln!(out, "{name}: role {role} may {what}");
        }
    }
    Ok(ExitCode::SUCCESS)
}
