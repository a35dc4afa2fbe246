//! Two relays: one leads, the other is its hot standby.

use std::sync::Arc;
use std::time::Duration;

use super::error::DemoError;
use super::relay_log::{RelayLog, Role};
use super::relay_process::{RelayProcess, tail};
use super::stage::Stage;

/// What the story calls them.
pub(super) const NAMES: [&str; 2] = ["relay-1", "relay-2"];

/// How long a leader that was killed still holds the lease, at most.
pub(super) const LEASE: Duration = Duration::from_secs(3);

const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// The logs of both, in the order of [`NAMES`].
pub(super) type Logs = [Arc<RelayLog>; NAMES.len()];

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Which(usize);

impl Which {
    pub(super) const FIRST: Self = Self(0);
    pub(super) const SECOND: Self = Self(1);

    pub(super) fn other(self) -> Self {
        Self(1 - self.0)
    }

    pub(super) fn name(self) -> &'static str {
        NAMES[self.0]
    }
}

/// Both relays. Killed when dropped.
pub(super) struct Relays {
    processes: [RelayProcess; NAMES.len()],
    logs: Logs,
}

impl Relays {
    /// Two relays with the same settings, of which none runs yet.
    pub(super) fn new(stage: &Stage) -> Result<Self, DemoError> {
        let logs = NAMES.map(|name| Arc::new(RelayLog::new(name, stage.log(name))));
        let lease = format!("{}s", LEASE.as_secs());
        let settings = [
            ("DATABASE_URL", &*stage.relay_url()),
            ("REDIS_URL", &*stage.redis.url()),
            ("OUTBOX_HTTP", "127.0.0.1:0"),
            ("OUTBOX_AUDIT", "1s"),
            ("OUTBOX_LEASE", &*lease),
        ];
        let process = |log: &Arc<RelayLog>| RelayProcess::new(&settings, Arc::clone(log));
        let processes = [process(&logs[0])?, process(&logs[1])?];
        Ok(Self { processes, logs })
    }

    pub(super) fn logs(&self) -> Logs {
        self.logs.clone()
    }

    pub(super) fn role(&self, which: Which) -> Role {
        self.logs[which.0].role()
    }

    /// The one with the highest token, as long as it lives.
    pub(super) fn leader(&self) -> Option<Which> {
        leader([Which::FIRST, Which::SECOND].map(|which| (which, self.role(which))))
    }

    /// Starts the one that does not run.
    pub(super) fn start(&mut self, which: Which) -> Result<(), DemoError> {
        self.processes[which.0].start()
    }

    /// SIGKILL; returns when the process is gone.
    pub(super) fn kill(&mut self, which: Which) -> Result<(), DemoError> {
        self.processes[which.0].kill()
    }

    /// Fails when one has ended by itself.
    pub(super) fn ensure_running(&mut self) -> Result<(), DemoError> {
        self.processes.iter_mut().try_for_each(RelayProcess::ensure_running)
    }

    /// SIGTERM for both; returns how long the leader took to drain and exit with 0.
    pub(super) async fn terminate(&mut self) -> Result<Duration, DemoError> {
        let leader = self.leader().unwrap_or(Which::FIRST);
        // The standby first, or it would lead for a moment.
        self.processes[leader.other().0].terminate(DRAIN_LIMIT).await?;
        self.processes[leader.0].terminate(DRAIN_LIMIT).await
    }

    /// Where the leader's HTTP server listens.
    pub(super) fn http_address(&self) -> Option<String> {
        self.leader().and_then(|leader| self.logs[leader.0].http_address())
    }

    /// The relays did `what`, and their logs end with …
    pub(super) fn error(&self, what: String) -> DemoError {
        DemoError::Relay { what, log: self.log_tails() }
    }

    /// The last lines of both logs, indented.
    pub(super) fn log_tails(&self) -> String {
        let part = |log: &Arc<RelayLog>| format!("    {}\n{}", log.name(), tail(log.path()));
        self.logs.each_ref().map(part).join("\n")
    }
}

fn leader(roles: [(Which, Role); NAMES.len()]) -> Option<Which> {
    let token = |(which, role)| match role {
        Role::Leads(token) => Some((token, which)),
        _ => None,
    };
    let leader = roles.into_iter().filter_map(token).max_by_key(|(token, _)| *token);
    leader.map(|(_, which)| which)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_that_say_they_lead_the_later_token_does() {
        let of = |one, two| leader([(Which::FIRST, one), (Which::SECOND, two)]);
        assert_eq!(of(Role::Leads(10), Role::Leads(9)), Some(Which::FIRST));
        assert_eq!(of(Role::Leads(9), Role::Leads(10)), Some(Which::SECOND));
        assert_eq!(of(Role::Killed, Role::Leads(1)), Some(Which::SECOND));
        assert_eq!(of(Role::Killed, Role::StandsBy), None);
    }
}
