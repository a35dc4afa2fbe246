//! The private servers and the folder of the demo.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::error::DemoError;
use crate::sandbox::{Postgres, PostgresOptions, Redis, RedisOptions};

/// The shop's role in Postgres: owns the shop's tables and has what `migrate --app-role` and `--worker-role`
/// grant.
pub(super) const APP_ROLE: &str = "shop";

/// The relay's role: has what `migrate --relay-role` grants, and nothing else.
pub(super) const RELAY_ROLE: &str = "relay";

/// Where everything is.
pub(super) const DATABASE: &str = "postgres";
const SUPERUSER: &str = "postgres";

/// Stopped and removed in this order when dropped.
pub(super) struct Stage {
    pub(super) redis: Redis,
    pub(super) postgres: Postgres,
    folder: TempDir,
}

impl Stage {
    /// Makes the folder and starts both servers. Blocks for a second or two.
    pub(super) fn set_up() -> Result<Self, DemoError> {
        let folder = tempfile::Builder::new()
            .prefix("outbox-demo-")
            .tempdir()
            .map_err(DemoError::io("cannot make a temporary folder"))?;
        Ok(Self {
            postgres: Postgres::start(PostgresOptions::default())
                .map_err(not_started("PostgreSQL"))?,
            redis: Redis::start(RedisOptions::default()).map_err(not_started("Redis"))?,
            folder,
        })
    }

    /// Where the journal and the logs are.
    pub(super) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn journal(&self) -> PathBuf {
        self.folder.path().join("journal.tsv")
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    pub(super) fn owner_url(&self) -> String {
        self.postgres.url_of(DATABASE, SUPERUSER)
    }

    pub(super) fn shop_url(&self) -> String {
        self.postgres.url_of(DATABASE, APP_ROLE)
    }

    pub(super) fn relay_url(&self) -> String {
        self.postgres.url_of(DATABASE, RELAY_ROLE)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (postgres, redis) = (self.postgres.port(), self.redis.port());
        let folder = self.folder.path().display();
        write!(f, "PostgreSQL on port {postgres}, Redis on port {redis}, files in {folder}")
    }
}

fn not_started(name: &str) -> impl FnOnce(io::Error) -> DemoError {
    DemoError::io(format!("the private {name} server did not start"))
}
