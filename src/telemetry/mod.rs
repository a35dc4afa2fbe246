//! What people and machines see of a running relay: logs, metrics, health.
//!
//! | file | noun |
//! |---|---|
//! | `log` | lines on standard error |
//! | `metrics` | every name, label and help text of `/metrics` |
//! | `http` | `/metrics`, `/livez`, `/readyz` |
//!
//! Knows nothing of the relay: it is told.

mod http;
mod log;
mod metrics;

pub use http::{Endpoint, Probes};
pub use log::{LogArgs, begin};
pub use metrics::{Backlog, Cause, Loss, Metrics};
