//! The Postgres end: entries that applications wrote, and the log that fixes their positions.
//!
//! The only part of the relay that names tokio-postgres. It knows nothing of Redis.
//!
//! | file | noun |
//! |---|---|
//! | `address` | what a URL says |
//! | `connect` | connections: settings, checks, errors in words |
//! | `cursor` | how far rows have been found: a pure value |
//! | `find` | the next committed rows that are not sealed |
//! | `page` | how many rows to ask for at a time |
//! | `pooler` | whether somebody in between shares sessions |
//! | `log`, `log_reader` | sealed batches: written and marked; read again |
//! | `checkpoint` | consumer groups and floors, stored |
//! | `identity` | which outbox this is, and whether this Postgres can be a source |
//! | `lease` | who may seal |
//! | `wake` | LISTEN and the flag that asks for NOTIFY |
//! | `streams` | the table of streams: heads and states |
//! | `survey`, `trace` | what waits and who leads; the rows of one event: for people and metrics |
//! | `hold`, `adopt` | what people ask for: streams held, another cluster consented to |
//! | `scrub` | proof that nothing was missed, and leaves made ahead of need |
//! | `purge` | leaves emptied whose rows nobody needs any more |
//! | `work_log`, `dead_letter` | what a consumer group has done; what it gave up |
//! | `migrate` | the schema |
//! | `cluster`, `schema` | what a doctor asks: of the server, and of the schema in it |

mod address;
mod adopt;
mod checkpoint;
mod cluster;
mod connect;
mod cursor;
mod dead_letter;
mod find;
mod hold;
mod identity;
mod lease;
mod log;
mod log_reader;
mod migrate;
mod page;
mod pooler;
mod purge;
mod schema;
mod scrub;
mod streams;
mod survey;
mod trace;
mod wake;
mod work_log;

pub use adopt::{Adopted, adopt};
pub use checkpoint::{Checkpoint, Checkpoints, Saved};
pub use cluster::{Checkup, Cluster, Holder, Slot};
pub use connect::{Connection, Database};
pub use cursor::{Cursor, Search, Snapshot};
pub use dead_letter::{Buried, Dead, DeadLetter};
pub use find::{Clock, Finder, Found};
pub use hold::{Hold, Holds};
pub use identity::Identity;
pub use lease::{Lease, Term};
pub use log::{Log, Phantom, Reached, Seal};
pub use log_reader::{LogReader, Logged};
pub use migrate::{Grants, Migrated, OLDEST_SERVER, migrate};
pub use purge::{Purge, Purged};
pub use schema::{IdleTrigger, SchemaVersion};
pub use scrub::{Missed, Upkeep};
pub use streams::{Head, State, StateChange};
pub use survey::{Leadership, OldestTransaction, Phantoms, StreamStatus, Survey};
pub use trace::{TracedRow, trace};
pub use wake::{Armed, Wake};
pub use work_log::{Work, WorkLog, is_outage};

/// The client library, for handlers: their statements run in transactions of this one.
pub use tokio_postgres as postgres;
