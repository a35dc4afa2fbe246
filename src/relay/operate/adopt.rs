//! Consent to another cluster, in both servers.

use crate::error::Result;
use crate::outbox::{Adopted, Connection, Database, Identity, adopt};
use crate::relay::session::owner;
use crate::stream::{Redis, Server};

/// What was found before consenting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The outbox.
    pub outbox: String,
    /// The cluster that Postgres says the outbox lives in.
    pub system: String,
    /// The cluster that this is.
    pub here: String,
    /// The cluster that Redis was last filled from; None if it has no identity yet.
    pub redis: Option<String>,
}

impl Found {
    /// Postgres says that the outbox lives elsewhere.
    pub fn moved(&self) -> bool {
        self.system != self.here
    }

    /// Redis was last filled from elsewhere.
    pub fn redis_is_elsewhere(&self) -> bool {
        self.redis.as_ref().is_some_and(|redis| *redis != self.here)
    }
}

/// Both servers, looked at.
pub struct Adoption {
    connection: Connection,
    identity: Identity,
    redis: Redis,
    found: Found,
}

impl Adoption {
    /// Looks at both servers and changes nothing.
    ///
    /// # Errors
    /// `Refused` for a Redis of another outbox, a standby, a schema of another version.
    pub async fn look(database: &Database, server: &Server) -> Result<Self> {
        let (connection, identity, here) = database.connect_anywhere("adopt").await?;
        let redis = server.connect().await?;
        let outbox = identity.outbox.to_string();
        let claimed = redis.refuse_other(&outbox).await?;
        let mut systems: Vec<_> =
            claimed.into_iter().filter_map(|claimed| claimed.system).collect();
        // Of several primaries, one that says something else matters most.
        systems.sort_by_key(|system| *system == here);
        let (system, redis_is_of) = (identity.system.clone(), systems.into_iter().next());
        let found = Found { outbox, system, here, redis: redis_is_of };
        Ok(Self { connection, identity, redis, found })
    }

    /// What was found.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// Consents: Postgres first, and only then Redis. None if Postgres had nothing to consent to.
    ///
    /// # Errors
    /// As any statement or command; it can be run again.
    pub async fn consent(self) -> Result<Option<Adopted>> {
        let adopted = match self.found.moved() {
            true => Some(adopt(&self.connection).await?),
            false => None,
        };
        let mut owner = owner(&self.identity);
        owner.system.clone_from(&self.found.here);
        if self.found.redis.is_some() {
            self.redis.adopt(&owner).await?;
        }
        Ok(adopted)
    }
}
