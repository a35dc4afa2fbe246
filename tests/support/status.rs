//! What an operator sees and does: states of streams, backends, leases, reported losses.

use std::time::Duration;

use super::eventually;
use super::relay::Relay;
use super::world::World;

/// Waits here are for the relay's back-off and for slow machines; few take a second.
const BOUND: Duration = Duration::from_secs(60);

impl World {
    /// State and reason of a stream, as `outbox.stream_status` tells them.
    pub(crate) async fn status(&self, stream: &str) -> Option<(String, Option<String>)> {
        let sql = "select state, reason from outbox.stream_status where stream = $1";
        let row = self.owner().await.query_opt(sql, &[&stream]).await.unwrap();
        row.map(|row| (row.get(0), row.get(1)))
    }

    /// Waits until a stream is in `state`, and returns the reason.
    pub(crate) async fn becomes(&self, stream: &str, state: &str) -> Option<String> {
        eventually(&format!("{stream} is {state}"), BOUND, || async {
            self.status(stream).await.is_some_and(|status| status.0 == state)
        })
        .await;
        self.status(stream).await.and_then(|status| status.1)
    }

    /// The number of the last sealed entry of a stream.
    pub(crate) async fn sealed(&self, stream: &str) -> u64 {
        let sql = "select coalesce(max(last_n), 0) from outbox.batch where stream = $1";
        let row = self.owner().await.query_one(sql, &[&stream]).await.unwrap();
        row.get::<_, i64>(0).unsigned_abs()
    }

    /// The number of the last entry of a stream that is marked dispatched.
    pub(crate) async fn dispatched(&self, stream: &str) -> u64 {
        let sql = "select coalesce(max(last_n), 0) from outbox.batch \
                   where stream = $1 and dispatched_at is not null";
        let row = self.owner().await.query_one(sql, &[&stream]).await.unwrap();
        row.get::<_, i64>(0).unsigned_abs()
    }

    /// Waits until nothing committed is left unsealed.
    pub(crate) async fn all_sealed(&self) {
        eventually("every committed row is sealed", BOUND, || async {
            let sql = "select count(*) from outbox.pending";
            self.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
    }

    /// Waits until Redis holds `entries` entries of a stream.
    pub(crate) async fn holds(&self, stream: &str, entries: u64) {
        eventually(&format!("{stream} holds {entries} entries"), BOUND, || async {
            self.redis::<u64>(&["XLEN", stream]).await == entries
        })
        .await;
    }

    /// Lets the lease of a relay that is dead run out now, so that a test need not wait for it.
    pub(crate) async fn end_lease(&self) {
        self.sql("select setval('outbox.lease_until', 1)").await;
    }

    /// What `outbox-relay status` prints.
    pub(crate) fn status_text(&self) -> String {
        let urls = self.urls();
        let variables = [("DATABASE_URL", urls.0.as_str()), ("REDIS_URL", urls.1.as_str())];
        // In one line, so that a sentence can be looked for.
        let told = super::command::command(&["status", "--all"], &variables);
        told.out.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    /// The backend of the relay's connection for `purpose`, if there is one.
    pub(crate) async fn backend(&self, purpose: &str) -> Option<i32> {
        let sql = "select pid from pg_stat_activity where application_name = 'outbox-relay ' || $1";
        let row = self.owner().await.query_opt(sql, &[&purpose]).await.unwrap();
        row.map(|row| row.get(0))
    }

    /// Ends the relay's connection for `purpose` and waits until it has another one.
    pub(crate) async fn terminate(&self, purpose: &str) {
        let what = format!("the relay has a connection for {purpose}");
        eventually(&what, BOUND, || async { self.backend(purpose).await.is_some() }).await;
        let Some(old) = self.backend(purpose).await else { return };
        self.sql(&format!("select pg_terminate_backend({old})")).await;
        eventually(&format!("{what} again"), BOUND, || async {
            self.backend(purpose).await.is_some_and(|new| new != old)
        })
        .await;
    }
}

impl Relay {
    /// The ranges of a stream that it reported lost, in order.
    pub(crate) fn lost(&self, stream: &str) -> Vec<(u64, u64)> {
        let log = self.log();
        let lines = log.lines().filter(|line| line.contains(&format!("of stream {stream};")));
        lines
            .filter_map(|line| {
                let (_, range) = line.split_once("Redis lost entries ")?;
                let (first, rest) = range.split_once(" to ")?;
                Some((first.parse().ok()?, rest.split_once(' ')?.0.parse().ok()?))
            })
            .collect()
    }

    /// Fails if it reported any loss.
    #[track_caller]
    pub(crate) fn lost_nothing(&self) {
        let log = self.log();
        let losses: Vec<&str> = log.lines().filter(|line| line.contains("Redis lost")).collect();
        assert!(losses.is_empty(), "losses where nothing was lost:\n{}", losses.join("\n"));
    }
}
