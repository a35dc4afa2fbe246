//! Named steps at which a test build can be stopped dead. Empty without the feature `failpoints`.

/// Kills this process at the step `name` if `OUTBOX_FAILPOINT` is `name`, or `name:k` to let the
/// first k - 1 visits pass. Like SIGKILL from outside: nothing is flushed, dropped or told.
#[cfg(feature = "failpoints")]
pub fn failpoint(name: &str) {
    use std::sync::atomic::{AtomicU32, Ordering};
    static VISITS: AtomicU32 = AtomicU32::new(0);
    let Ok(wanted) = std::env::var("OUTBOX_FAILPOINT") else { return };
    let (wanted, visit) = wanted.split_once(':').unwrap_or((&wanted, "1"));
    if wanted == name && VISITS.fetch_add(1, Ordering::Relaxed) + 1 >= visit.parse().unwrap_or(1) {
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    }
}

/// Does nothing in this build.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn failpoint(_name: &str) {}
