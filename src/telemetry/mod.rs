//! What people and machines see of a running relay: logs, metrics, health.
//!
//! | file | noun |
//! |---|---|
//! | `log` | lines on standard error |
//! | `metrics`, `names` | every metric: labels, and when it changes; name and help text |
//! | `http` | `/metrics`, `/livez`, `/readyz` |
//! | `troubles` | errors that last, told without filling the log |
//!
//! Knows nothing of the relay: it is told.

mod http;
mod log;
mod metrics;
mod names;
mod troubles;

pub use http::{Endpoint, Probes};
pub use log::{LogArgs, begin, begin_in};
pub use metrics::{Backlog, Cause, Loss, Metrics, StreamLag};
pub use troubles::Troubles;
