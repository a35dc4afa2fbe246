//! Both servers, and who leads.

use crate::error::{Error, Kind, Result, Target};
use crate::outbox::{Database, LogReader, Survey};
use crate::relay::operate::status::{LeaderStatus, leader_problem};
use crate::stream::{Owner, Redis, Server};

/// Connections of a drill.
pub(super) struct Ends {
    pub(super) database: Database,
    pub(super) server: Server,
    pub(super) owner: Owner,
    pub(super) log: LogReader,
    pub(super) survey: Survey,
    pub(super) redis: Redis,
}

impl Ends {
    /// Connects to both.
    ///
    /// # Errors
    /// `Refused` if this Redis is another outbox's; any error of a connection.
    pub(super) async fn open(database: &Database, server: &Server) -> Result<Self> {
        let (connection, identity) = database.connect_checked("drill").await?;
        database.settle_on(&connection);
        let redis = server.connect().await?;
        let owner = Owner {
            id: identity.outbox.to_string(),
            system: identity.system,
            former: identity.former,
        };
        redis.refuse_other(&owner.id).await?;
        Ok(Self {
            database: database.clone(),
            server: server.clone(),
            owner,
            log: LogReader::new(database.pool(2)?),
            survey: Survey::new(connection),
            redis,
        })
    }

    /// Refuses to begin while no relay leads or a stream does not flow.
    ///
    /// # Errors
    /// `Refused` with what to do first.
    pub(super) async fn refuse_unready(&self) -> Result<()> {
        if let Some(problem) = self.leaderless().await? {
            return Err(unready(problem));
        }
        let streams = self.survey.streams().await?;
        match streams.iter().find(|stream| stream.state != "active") {
            None => Ok(()),
            Some(one) => {
                let reason = one.reason.as_ref().map_or(String::new(), |why| format!(" ({why})"));
                let (stream, state) = (&one.stream, &one.state);
                Err(unready(format!(
                    "stream {stream} is {state}{reason}; a drill begins when all are active"
                )))
            }
        }
    }

    /// What is wrong if no relay leads.
    ///
    /// # Errors
    /// As any statement.
    pub(super) async fn leaderless(&self) -> Result<Option<String>> {
        let leader = self.survey.leadership().await?.filter(|term| !term.holder.is_empty());
        Ok(leader_problem(leader.map(LeaderStatus::from).as_ref()))
    }

    /// Every primary says that it belongs to this outbox, in this Postgres cluster.
    ///
    /// # Errors
    /// `Refused` if one is another outbox's by now; any error of the connection.
    pub(super) async fn is_claimed(&self) -> Result<bool> {
        let claimed = self.redis.refuse_other(&self.owner.id).await?;
        let system = Some(&self.owner.system);
        Ok(claimed.iter().all(|claimed| claimed.id.is_some() && claimed.system.as_ref() == system))
    }

    /// Connects to Redis anew.
    ///
    /// # Errors
    /// Any error of the connection.
    pub(super) async fn reconnect(&mut self) -> Result<()> {
        self.redis = self.server.connect().await?;
        Ok(())
    }
}

/// Why nothing was emptied.
pub(super) fn unready(why: impl std::fmt::Display) -> Error {
    Target::Redis.error(Kind::Refused, format!("nothing was emptied: {why}"))
}
