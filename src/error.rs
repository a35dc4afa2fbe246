//! One error type: what happened, what caused it, and whether trying again can help.

use std::error::Error as StdError;
use std::fmt;

use crate::text::line;

/// Characters of an error about a server: enough for what servers say, and a line that can be read.
const LONGEST: usize = 1_000;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an error means for the one who gets it. Policy depends on this and on nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The command line or the environment is wrong: exit 64.
    Usage,
    /// A server answered, and its answer needs a person: a wrong password, a missing schema, a
    /// Redis that belongs to another outbox. At start it ends the program.
    Refused,
    /// A server cannot be reached, or failed in a way that passes: try again later.
    Unavailable,
    /// A server is well but does not do this now, for want of memory or time: ask again on the same
    /// connection.
    Busy,
    /// Another relay has taken the lease over, or a lock was lost: what this one holds in memory is no longer
    /// true.
    Superseded,
    /// The program met something that it believes to be impossible.
    Internal,
}

impl Kind {
    /// One word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Refused => "refused",
            Self::Unavailable => "unavailable",
            Self::Busy => "busy",
            Self::Superseded => "superseded",
            Self::Internal => "internal",
        }
    }
}

/// The server that an error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// PostgreSQL.
    Postgres,
    /// Redis.
    Redis,
}

impl Target {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Postgres, Self::Redis];

    /// One word for metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Postgres => "postgres",
            Self::Redis => "redis",
        }
    }

    /// An error about this server, without a cause of its own.
    pub fn error(self, kind: Kind, context: impl Into<String>) -> Error {
        Error { target: Some(self), ..Error::new(kind, context) }
    }

    /// An error about this server that another one caused.
    pub fn error_by(
        self,
        kind: Kind,
        context: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Error {
        Error { target: Some(self), ..Error::caused_by(kind, context, source) }
    }
}

/// An error with its kind, a sentence for people, and its cause. Never contains a secret.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    target: Option<Target>,
    context: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error without a cause of its own.
    pub fn new(kind: Kind, context: impl Into<String>) -> Self {
        Self { kind, target: None, context: context.into(), source: None }
    }

    /// An error that another one caused.
    pub fn caused_by(
        kind: Kind,
        context: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self { kind, target: None, context: context.into(), source: Some(source.into()) }
    }

    /// What it means for the caller.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The server that it is about, if it is about one.
    pub fn target(&self) -> Option<Target> {
        self.target
    }

    /// Context and causes, each after a colon.
    fn chain(&self) -> String {
        let mut chain = self.context.clone();
        let mut shown = self.context.clone();
        let mut cause: Option<&(dyn StdError + 'static)> =
            self.source.as_deref().map(|source| source as &(dyn StdError + 'static));
        while let Some(error) = cause {
            let text = error.to_string();
            // Some libraries repeat their source in their own text.
            if !shown.ends_with(&text) {
                chain.push_str(": ");
                chain.push_str(&text);
            }
            shown = text;
            cause = error.source();
        }
        chain
    }
}

/// The whole chain in one line, each cause after a colon. What a server said is cut and escaped.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = self.chain();
        match self.target {
            Some(_) => f.write_str(&line(&chain, LONGEST)),
            None => f.write_str(&chain),
        }
    }
}

impl StdError for Error {}
