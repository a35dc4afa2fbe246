//! Who may seal.
//!
//! A row of `outbox.lease` names the holder; a sequence holds the end of the lease, so that
//! heartbeats leave no dead rows. The row, not the clock, is the fence: each seal locks it and
//! names its token, and whoever takes over ends that row first.

use std::time::Duration;

use tokio_postgres::Statement;

use super::connect::{Connection, answer};
use crate::error::{Error, Kind, Result, Target};

/// Asks for the lease and keeps it, on a connection of its own.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    take: Statement,
    keep: Statement,
    holder: String,
    length: Duration,
}

/// One leadership: the token that seals must name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Grows with each term.
    pub token: i64,
}

impl Lease {
    /// Prepares to ask for the lease as `holder`, for `length` at a time.
    ///
    /// # Errors
    /// As any statement.
    pub async fn new(connection: Connection, holder: String, length: Duration) -> Result<Self> {
        connection.commit_durably().await?;
        let take = connection.prepare(include_str!("../../sql/queries/take_lease.sql")).await?;
        let keep = connection.prepare(include_str!("../../sql/queries/keep_lease.sql")).await?;
        Ok(Self { connection, take, keep, holder, length })
    }

    /// Begins a term, or returns None while somebody else holds the lease.
    ///
    /// # Errors
    /// As any statement.
    pub async fn take(&self) -> Result<Option<Term>> {
        let row = answer(
            self.connection.client().query_opt(&self.take, &[&self.holder, &self.milliseconds()]),
        )
        .await?;
        let term = row.map(|row| Term { token: row.get("token") });
        if term.is_some() && self.connection.take_warning() {
            return Err(Target::Postgres.error(
                Kind::Unavailable,
                "Postgres committed a lease with a warning, so it may not be on its standbys yet",
            ));
        }
        Ok(term)
    }

    /// Holds the lease for its length from now.
    ///
    /// # Errors
    /// `Superseded` if another relay has taken it over.
    pub async fn keep(&self, term: Term) -> Result<()> {
        self.hold(term, self.milliseconds()).await
    }

    /// Gives the lease up, so that a standby need not wait for its end.
    ///
    /// # Errors
    /// `Superseded` if another relay has taken it over.
    pub async fn release(&self, term: Term) -> Result<()> {
        self.hold(term, 0).await
    }

    async fn hold(&self, term: Term, milliseconds: i64) -> Result<()> {
        let client = self.connection.client();
        let row = answer(client.query_opt(&self.keep, &[&term.token, &milliseconds])).await?;
        row.map(|_| ()).ok_or_else(superseded)
    }

    fn milliseconds(&self) -> i64 {
        i64::try_from(self.length.as_millis()).unwrap_or(i64::MAX)
    }
}

/// The error of whoever seals without the lease.
pub(super) fn superseded() -> Error {
    Target::Postgres.error(Kind::Superseded, "another relay has taken the lease over")
}
