//! Redis emptied on purpose under the running relay, and the rebuild watched.
//!
//! | file | noun |
//! |---|---|
//! | `ends` | both servers, and who leads |
//! | `look` | what is there before, and whether all of it would come back |
//! | `watch` | streams, groups and consumers until they are back |
//! | `seen` | a group and its consumers, as they come back: pure |
//! | `report` | what was lost, how long it took, who stumbled |

mod ends;
mod look;
mod report;
mod seen;
mod watch;

pub use look::Drill;
pub use report::{ConsumerDrilled, Drilled, GroupDrilled, StreamDrilled};
