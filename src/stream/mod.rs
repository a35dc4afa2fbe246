//! The Redis end: streams as materialised views of the log.
//!
//! The only part of the relay that names the redis crate. It knows nothing of Postgres.
//!
//! | file | noun |
//! |---|---|
//! | `address`, `sentinel` | what a URL says; who of several servers is the primary |
//! | `connect` | connections: settings, checks, errors in words |
//! | `shard` | a Redis as one: each command goes to the primary that has its key |
//! | `cluster`, `topology`, `slot` | a Redis Cluster: its primaries, who has which slot, the slot of a key |
//! | `script` | the texts of scripts, and how they are run |
//! | `classify` | what an error reply means, by its code |
//! | `append` | the next entries of a stream, if it is where we think it is |
//! | `positions` | where streams are |
//! | `durability` | what must have happened to an entry before it counts as there |
//! | `identity` | which outbox a Redis belongs to, and whether it is still the same life |
//! | `view`, `name` | a stream with its consumer groups, at one moment; names as text |
//! | `restore` | consumer groups put back where they were |
//! | `rebuild` | a stream filled anew beside the old one, then put in its place |
//! | `census`, `empty` | what a drill asks: who reads; all keys removed |
//! | `expiring` | a stream that is somebody's for a while, and then gone |
//! | `instance`, `rights`, `keys` | what a doctor asks: of the server, of its user, of the keys in it |
//! | `survey` | what a review asks: of every key, of streams, and whether what is stale still is |
//! | `scan` | entries of a stream, read back |
//! | `consumer` | a consumer of a group: what it is given, keeps and acknowledges |
//! | `call` | scripts of others |

mod address;
mod append;
mod call;
mod census;
mod classify;
mod cluster;
mod connect;
mod consumer;
mod durability;
mod empty;
mod expiring;
mod identity;
mod instance;
mod keys;
mod name;
mod positions;
mod rebuild;
mod restore;
mod rights;
mod scan;
mod script;
mod sentinel;
mod shard;
mod slot;
mod survey;
mod topology;
mod view;

pub(crate) use call::Call;

pub use append::{Append, Appended, Full, Limits};
pub use census::ConsumerSeen;
pub use classify::{Class, classify};
pub use connect::Server;
pub use consumer::{Consumer, Delivery, worker_rights};
pub use durability::Durability;
pub use identity::{Canary, Claim, Claimed, Life, Owner};
pub use instance::Instance;
pub use keys::{KeyState, Scanned, quoted};
pub use positions::Place;
pub use rebuild::{OldEnd, Replaced};
pub use restore::Restored;
pub use rights::{Denied, rights, rights_in_cluster, rights_of_review};
pub use scan::StreamEntry;
pub use shard::{Redis, Shard};
pub use survey::{GroupSurvey, KeySurvey, Page, StreamSurvey};
pub use view::View;
