//! The Redis end: streams as materialised views of the log.
//!
//! The only part of the relay that names the redis crate. It knows nothing of Postgres.
//!
//! | file | noun |
//! |---|---|
//! | `address`, `sentinel` | what a URL says; who of several servers is the primary |
//! | `connect` | connections: settings, checks, errors in words |
//! | `classify` | what an error reply means, by its code |
//! | `append` | the next entries of a stream, if it is where we think it is |
//! | `positions` | where streams are |
//! | `durability` | what must have happened to an entry before it counts as there |
//! | `identity` | which outbox a Redis belongs to, and whether it is still the same life |
//! | `view`, `name` | a stream with its consumer groups, at one moment; names as text |
//! | `restore` | consumer groups put back where they were |
//! | `rebuild` | a stream filled anew beside the old one, then put in its place |
//! | `expiring` | a stream that is somebody's for a while, and then gone |
//! | `instance`, `rights`, `keys` | what a doctor asks: of the server, of its user, of the keys in it |
//! | `scan` | entries of a stream, read back |

mod address;
mod append;
mod classify;
mod connect;
mod durability;
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
mod sentinel;
mod view;

pub use append::{Append, Appended, Full, Limits};
pub use classify::{Class, classify};
pub use connect::{Redis, Server};
pub use durability::Durability;
pub use identity::{Canary, Claim, Claimed, Life, Owner};
pub use instance::Instance;
pub use keys::{KeyState, Scanned, quoted};
pub use positions::Place;
pub use rebuild::{OldEnd, Replaced};
pub use restore::Restored;
pub use rights::{Denied, rights};
pub use scan::StreamEntry;
pub use view::View;
