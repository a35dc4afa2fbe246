//! What people ask of an outbox, while a relay runs or not. Each opens connections of its own.
//!
//! | file | noun |
//! |---|---|
//! | `status` | what flows, what waits, who leads |
//! | `trace` | one event: rows, positions, stream entries, groups |
//! | `verify` | Redis compared with the log |
//! | `doctor` | what is wrong, why it matters, what mends it |
//! | `review` | what Redis holds, judged by rules |
//! | `hold` | pause and resume |
//! | `rebuild` | a stream filled anew from the log |
//! | `replay` | a part of the log copied into a stream of its own |
//! | `dead` | what workers have given up |
//! | `drill` | Redis emptied on purpose, and the rebuild watched |
//! | `adopt` | consent to another cluster |

mod adopt;
mod dead;
mod doctor;
mod drill;
mod hold;
mod rebuild;
mod replay;
mod review;
mod status;
mod trace;
mod verify;

pub use adopt::{Adoption, Found};
pub use dead::{DeadLetters, Letter, dead_letters};
pub use doctor::{Area, Diagnosis, Finding, doctor};
pub use drill::{ConsumerDrilled, Drill, Drilled, GroupDrilled, StreamDrilled};
pub use hold::{pause, resume};
pub use rebuild::{Rebuild, Rebuilt, Stranger};
pub use replay::{Edge, Replay, Wish, check_name};
pub use review::review;
pub use status::{GroupLine, LeaderStatus, ServerStatus, Status, StreamLine, status};
pub use trace::{GroupTrace, Trace, TracedEntry, trace};
pub use verify::{StreamVerified, Verified, verify};
