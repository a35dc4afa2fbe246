//! What is wrong with Postgres, Redis and the configuration, why it matters, and what mends it.
//!
//! Nothing is changed, but for a key in Redis that is made to see whether it may be, and removed.
//!
//! | file | noun |
//! |---|---|
//! | `finding` | what is wrong, and what mends it |
//! | `postgres`, `schema` | the server; the schema in it |
//! | `redis`, `keys` | the server and its user; the keys in it |
//! | `configuration` | the relay's own settings |

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use self::configuration::check_configuration;
use self::finding::Report;
use self::postgres::check_postgres;
use self::redis::check_redis;
use crate::relay::Settings;

mod configuration;
mod finding;
mod keys;
mod postgres;
mod redis;
mod schema;

pub use finding::{Area, Finding};

/// What a doctor says.
#[derive(Debug, Serialize)]
pub struct Diagnosis {
    /// Nothing is wrong, and all could be checked that matters.
    pub ok: bool,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// What could not be checked, and why.
    pub unchecked: Vec<String>,
    /// One of them is a server, or a part of one that matters.
    #[serde(skip)]
    pub incomplete: bool,
}

/// What Postgres knows of the outbox and Redis does not.
#[derive(Clone, Debug, Default)]
struct Known {
    outbox: String,
    streams: Vec<Arc<str>>,
}

/// Looks at everything. A server that does not answer does not keep the other from being looked at. A
/// transaction that is open for `long` is worth a word.
pub async fn doctor(settings: &Settings, long: Duration) -> Diagnosis {
    let ((postgres, cluster, known), connected) =
        tokio::join!(check_postgres(settings, long), settings.server.connect());
    let redis = check_redis(settings, connected, known.as_ref()).await;
    let mut report = Report::default();
    report.take(postgres);
    report.take(redis);
    check_configuration(settings, cluster.as_ref(), &mut report);
    report.diagnosis()
}
