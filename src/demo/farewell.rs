//! The last words: how to connect to what is kept, and what to try next.

use std::env;
use std::fmt;

use super::scene::Scene;

/// What to type next, and how to reach what is still there.
pub(super) struct Farewell {
    kept: Option<Kept>,
    /// Arguments for this program, each with a reason.
    next: [(String, &'static str); 3],
}

/// What stays up.
struct Kept {
    database_url: String,
    shop_url: String,
    redis_url: String,
    redis_port: u16,
    http_address: Option<String>,
    folder: String,
}

impl Farewell {
    /// When nothing is left.
    pub(super) fn removed() -> Self {
        let next = [
            ("demo --keep", "the same, and the servers stay up for you to look into"),
            (
                "migrate --app-role shop --worker-role shop --relay-role relay",
                "makes the schema in a database of yours (DATABASE_URL) and grants the roles \
                 what they need",
            ),
            ("run", "carries its outbox to your Redis (REDIS_URL)"),
        ];
        Self { kept: None, next: next.map(|(words, why)| (words.to_owned(), why)) }
    }

    /// When all but the shop stays up; `event` is one that Redis had lost.
    pub(super) fn kept(scene: &Scene, event: Option<&str>) -> Self {
        let stage = &scene.stage;
        let kept = Kept {
            database_url: stage.relay_url(),
            shop_url: stage.shop_url(),
            redis_url: stage.redis.url(),
            redis_port: stage.redis.port(),
            http_address: scene.relays.http_address(),
            folder: stage.folder().display().to_string(),
        };
        let trace = event.map_or_else(|| "trace".to_owned(), |event| format!("trace {event}"));
        let next = [
            ("status".to_owned(), "how far each stream is, and who leads"),
            (trace, "the way of one event that Redis lost, got again, and is rid of"),
            ("verify".to_owned(), "compares Redis with the log, entry by entry"),
        ];
        Self { kept: Some(kept), next }
    }
}

impl fmt::Display for Farewell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(kept) = &self.kept {
            writeln!(f, "{kept}")?;
        }
        write!(f, "Next:")?;
        let program = program();
        for (words, why) in &self.next {
            write!(f, "\n  {program} {words}\n      {why}")?;
        }
        match self.kept {
            Some(_) => write!(f, "\n\nCtrl-C stops and removes everything."),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { database_url, shop_url, redis_url, redis_port, folder, .. } = self;
        writeln!(f, "Servers, relays and workers stay up. To connect, in another terminal:")?;
        writeln!(f, "  export DATABASE_URL={database_url}")?;
        writeln!(f, "  export REDIS_URL={redis_url}")?;
        writeln!(f, "  psql {shop_url}")?;
        writeln!(f, "  redis-cli -p {redis_port}")?;
        if let Some(address) = &self.http_address {
            writeln!(f, "  curl {address}/metrics")?;
        }
        writeln!(f, "The logs of relays and workers and the shop's journal are in {folder}")
    }
}

/// This program as it was called, so that a line can be copied; its name if it was found in PATH.
fn program() -> String {
    let called = env::args().next().filter(|called| called.contains('/'));
    called.unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned())
}
