//! What people ask of an outbox, while a relay runs or not. Each opens connections of its own.
//!
//! | file | noun |
//! |---|---|
//! | `verify` | Redis compared with the log |

mod verify;

pub use verify::{StreamVerified, Verified, verify};
