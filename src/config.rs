//! What the program is told, by flags and environment alike; every error at once.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use self::review::ReviewArgs;
use crate::error::{Error, Kind, Result};
use crate::outbox::Database;
use crate::relay::{Bounds, Settings};
use crate::secret::Secret;
use crate::setting::{count, duration, shown, size, switch};
use crate::stream::{Durability, Limits, Server};
use crate::tls::Tls;

mod review;

/// Where Postgres is.
#[derive(Args, Clone, Debug, Default)]
pub struct DatabaseArgs {
    /// Postgres with the outbox, like postgres://user:password@host:5432/database
    #[arg(long, env = "DATABASE_URL", value_name = "URL", hide_env_values = true)]
    pub database_url: Option<String>,
    /// File that holds the Postgres URL, instead of the URL itself
    #[arg(long, env = "DATABASE_URL_FILE", value_name = "FILE")]
    pub database_url_file: Option<PathBuf>,
    /// Authorities that Postgres's certificate may be signed by, as PEM; the system's if not set
    #[arg(long, env = "DATABASE_TLS_CA", value_name = "FILE")]
    pub database_tls_ca: Option<PathBuf>,
    /// Certificate to show to Postgres, as PEM
    #[arg(long, env = "DATABASE_TLS_CERT", value_name = "FILE")]
    pub database_tls_cert: Option<PathBuf>,
    /// Key of that certificate, as PEM
    #[arg(long, env = "DATABASE_TLS_KEY", value_name = "FILE")]
    pub database_tls_key: Option<PathBuf>,
    /// Accept a trusted certificate of Postgres whatever host it is for [on, off]
    #[arg(
        long,
        env = "DATABASE_TLS_ACCEPT_ANY_NAME",
        value_name = "SWITCH",
        default_value = "off"
    )]
    pub database_tls_accept_any_name: String,
}

/// Where Redis is.
#[derive(Args, Clone, Debug, Default)]
pub struct RedisArgs {
    /// Redis with the streams, like redis://user:password@host:6379/0
    #[arg(long, env = "REDIS_URL", value_name = "URL", hide_env_values = true)]
    pub redis_url: Option<String>,
    /// File that holds the Redis URL, instead of the URL itself
    #[arg(long, env = "REDIS_URL_FILE", value_name = "FILE")]
    pub redis_url_file: Option<PathBuf>,
    /// Authorities that Redis's certificate may be signed by, as PEM; the system's if not set
    #[arg(long, env = "REDIS_TLS_CA", value_name = "FILE")]
    pub redis_tls_ca: Option<PathBuf>,
    /// Certificate to show to Redis, as PEM
    #[arg(long, env = "REDIS_TLS_CERT", value_name = "FILE")]
    pub redis_tls_cert: Option<PathBuf>,
    /// Key of that certificate, as PEM
    #[arg(long, env = "REDIS_TLS_KEY", value_name = "FILE")]
    pub redis_tls_key: Option<PathBuf>,
    /// Accept a trusted certificate of Redis whatever host it is for [on, off]
    #[arg(long, env = "REDIS_TLS_ACCEPT_ANY_NAME", value_name = "SWITCH", default_value = "off")]
    pub redis_tls_accept_any_name: String,
    /// Begins every key in Redis
    #[arg(long, env = "OUTBOX_PREFIX", value_name = "TEXT", default_value = "")]
    pub prefix: String,
}

/// Where both servers are.
#[derive(Args, Clone, Debug, Default)]
pub struct ServerArgs {
    /// Where Postgres is.
    #[command(flatten)]
    pub database: DatabaseArgs,
    /// Where Redis is.
    #[command(flatten)]
    pub redis: RedisArgs,
}

/// How the relay works.
#[derive(Args, Clone, Debug)]
pub struct RunArgs {
    /// Where both servers are.
    #[command(flatten)]
    pub servers: ServerArgs,
    /// The lease holds this long without a heartbeat; a standby takes over after it [1s to 10m]
    #[arg(long, env = "OUTBOX_LEASE", value_name = "TIME", default_value = "10s")]
    pub lease: String,
    /// All streams in Redis are compared with what they should hold this often [100ms to 10m]
    #[arg(long, env = "OUTBOX_AUDIT", value_name = "TIME", default_value = "5s")]
    pub audit: String,
    /// Consumer groups are looked at, stored and trimmed by this often [100ms to 1m]
    #[arg(long, env = "OUTBOX_CHECKPOINT", value_name = "TIME", default_value = "1s")]
    pub checkpoint: String,
    /// Rows and log are kept this long at least, and until every group has acknowledged [1s to 3650d]
    #[arg(long, env = "OUTBOX_RETENTION", value_name = "TIME", default_value = "7d")]
    pub retention: String,
    /// Entries that a stream holds at most; more wait in Postgres [1 to 1000000000]
    #[arg(long, env = "OUTBOX_STREAM_LIMIT", value_name = "COUNT", default_value = "1000000")]
    pub stream_limit: String,
    /// Memory of Redis, about, at which a stream takes no more entries [64KiB to 1024GiB]
    #[arg(long, env = "OUTBOX_STREAM_BYTES", value_name = "SIZE", default_value = "256MiB")]
    pub stream_bytes: String,
    /// A stream without a consumer group is held at its limit, or trimmed by age and length [hold, trim]
    #[arg(long, env = "OUTBOX_UNGROUPED", value_name = "HOW", default_value = "hold")]
    pub ungrouped: String,
    /// What must have happened to an entry in Redis before it is marked dispatched: nothing more, so many
    /// replicas have it, it is on the disk [memory, replica(1) to replica(9), aof]
    #[arg(long, env = "OUTBOX_DURABILITY", value_name = "WHAT", default_value = "memory")]
    pub durability: String,
    /// Rows are searched for at least this often [10ms to 1s]
    #[arg(long, env = "OUTBOX_POLL", value_name = "TIME", default_value = "1s")]
    pub poll: String,
    /// Ask writers for NOTIFY while idle; off polls only [on, off]
    #[arg(long, env = "OUTBOX_WAKE", value_name = "SWITCH", default_value = "on")]
    pub wake: String,
    /// Entries in flight may take this long to arrive after SIGTERM [0s to 10m]
    #[arg(long, env = "OUTBOX_DRAIN", value_name = "TIME", default_value = "20s")]
    pub drain: String,
    /// A server that cannot be reached at start is waited for this long [0s to 1h]
    #[arg(long, env = "OUTBOX_START", value_name = "TIME", default_value = "30s")]
    pub start: String,
    /// Rows sealed together at most [1 to 20000]
    #[arg(long, env = "OUTBOX_BATCH_ROWS", value_name = "COUNT", default_value = "5000")]
    pub batch_rows: String,
    /// Bytes sealed together at most, unless one row alone is larger [64KiB to 4MiB]
    #[arg(long, env = "OUTBOX_BATCH_BYTES", value_name = "SIZE", default_value = "1MiB")]
    pub batch_bytes: String,
    /// Where /metrics, /livez and /readyz are served; port 0 takes a free one and logs it
    #[arg(long, env = "OUTBOX_HTTP", value_name = "ADDRESS", default_value = "127.0.0.1:9464")]
    pub http: String,
    /// Streams with a label of their own in metrics; the rest are counted as "other" [0 to 10000]
    #[arg(long, env = "OUTBOX_METRIC_STREAMS", value_name = "COUNT", default_value = "100")]
    pub metric_streams: String,
    /// How Redis is reviewed.
    #[command(flatten)]
    pub review: ReviewArgs,
}

/// Collects what is wrong, so that all of it is told at once.
#[derive(Debug, Default)]
pub struct Problems(Vec<String>);

impl Problems {
    /// Keeps a value, or remembers what is wrong with `setting`.
    pub(crate) fn keep<T>(&mut self, setting: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|problem| self.0.push(format!("{setting}: {problem}"))).ok()
    }

    /// What TLS to `server` is told, as far as it is right.
    fn tls(
        &mut self,
        server: &str,
        ca: &Option<PathBuf>,
        client: (&Option<PathBuf>, &Option<PathBuf>),
        any_name: &str,
    ) -> Tls {
        let client = both(client, &format!("{server}_TLS_KEY"));
        let client = self.keep(&format!("{server}_TLS_CERT"), client);
        let any_name = self.keep(&format!("{server}_TLS_ACCEPT_ANY_NAME"), switch(any_name));
        Tls { ca: ca.clone(), client: client.flatten(), any_name: any_name.unwrap_or_default() }
    }

    /// `value` if nothing is wrong.
    ///
    /// # Errors
    /// `Usage` with every problem on a line of its own.
    pub(crate) fn end<T>(self, value: Option<T>) -> Result<T> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => {
                let lines: String = self.0.iter().map(|line| format!("\n  {line}")).collect();
                Err(Error::new(Kind::Usage, format!("the configuration is wrong:{lines}")))
            }
        }
    }
}

impl DatabaseArgs {
    fn read(&self, problems: &mut Problems) -> Option<Database> {
        let url = one_of("DATABASE_URL_FILE", &self.database_url, &self.database_url_file);
        let url = problems.keep("DATABASE_URL", url);
        let client = (&self.database_tls_cert, &self.database_tls_key);
        let any_name = &self.database_tls_accept_any_name;
        let tls = problems.tls("DATABASE", &self.database_tls_ca, client, any_name);
        problems.keep("DATABASE_URL", Database::new(url?, tls).map_err(|e| e.to_string()))
    }

    /// The database, or the inner None if nothing names one.
    pub(crate) fn read_if_given(&self, problems: &mut Problems) -> Option<Option<Database>> {
        match (&self.database_url, &self.database_url_file) {
            (None, None) => Some(None),
            _ => self.read(problems).map(Some),
        }
    }

    /// The database alone.
    ///
    /// # Errors
    /// `Usage`.
    pub fn database(&self) -> Result<Database> {
        let mut problems = Problems::default();
        let database = self.read(&mut problems);
        problems.end(database)
    }
}

impl RedisArgs {
    pub(crate) fn read(&self, problems: &mut Problems) -> Option<Server> {
        let server = self.server(problems);
        let prefix = match self.prefix.chars().all(|c| c.is_ascii_graphic())
            && self.prefix.len() <= 128
        {
            true => Ok(()),
            false => {
                Err(format!("{} is not up to 128 printable ASCII characters", shown(&self.prefix)))
            }
        };
        problems.keep("OUTBOX_PREFIX", prefix).and(server)
    }

    fn server(&self, problems: &mut Problems) -> Option<Server> {
        let url = one_of("REDIS_URL_FILE", &self.redis_url, &self.redis_url_file);
        let url = problems.keep("REDIS_URL", url);
        let client = (&self.redis_tls_cert, &self.redis_tls_key);
        let any_name = &self.redis_tls_accept_any_name;
        let tls = problems.tls("REDIS", &self.redis_tls_ca, client, any_name);
        problems.keep("REDIS_URL", Server::new(url?, tls, &self.prefix).map_err(|e| e.to_string()))
    }
}

impl ServerArgs {
    pub(crate) fn read(&self, problems: &mut Problems) -> (Option<Database>, Option<Server>) {
        (self.database.read(problems), self.redis.read(problems))
    }

    /// Both servers.
    ///
    /// # Errors
    /// `Usage` with every problem.
    pub fn servers(&self) -> Result<(Database, Server)> {
        let mut problems = Problems::default();
        let (database, server) = self.read(&mut problems);
        problems.end(database.zip(server))
    }
}

impl RunArgs {
    /// The settings of the relay.
    ///
    /// # Errors
    /// `Usage` with every problem.
    pub fn settings(&self) -> Result<Settings> {
        let mut problems = Problems::default();
        let settings = self.read(&mut problems);
        problems.end(settings)
    }

    /// The settings of the relay, if none of them is wrong.
    pub(crate) fn read(&self, problems: &mut Problems) -> Option<Settings> {
        const MS: Duration = Duration::from_millis(1);
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        let (database, server) = self.servers.read(problems);
        let mut time = |setting: &str, text: &str, least: Duration, most: Duration| {
            problems.keep(setting, duration(text, least, most))
        };
        let lease = time("OUTBOX_LEASE", &self.lease, 1_000 * MS, minutes(10));
        let audit = time("OUTBOX_AUDIT", &self.audit, 100 * MS, minutes(10));
        let checkpoint = time("OUTBOX_CHECKPOINT", &self.checkpoint, 100 * MS, minutes(1));
        let years = Duration::from_secs(3_650 * 86_400);
        let retention = time("OUTBOX_RETENTION", &self.retention, 1_000 * MS, years);
        let poll = time("OUTBOX_POLL", &self.poll, 10 * MS, 1_000 * MS);
        let drain = time("OUTBOX_DRAIN", &self.drain, Duration::ZERO, minutes(10));
        let start = time("OUTBOX_START", &self.start, Duration::ZERO, minutes(60));
        let wake = problems.keep("OUTBOX_WAKE", switch(&self.wake));
        let entries = count(&self.stream_limit, 1, 1_000_000_000);
        let entries = problems.keep("OUTBOX_STREAM_LIMIT", entries);
        let held = size(&self.stream_bytes, 64 << 10, 1 << 40);
        let held = problems.keep("OUTBOX_STREAM_BYTES", held);
        let trim_ungrouped = problems.keep("OUTBOX_UNGROUPED", ungrouped(&self.ungrouped));
        let durability = problems.keep("OUTBOX_DURABILITY", durability(&self.durability));
        let rows = problems.keep("OUTBOX_BATCH_ROWS", count(&self.batch_rows, 1, 20_000));
        let bytes = problems.keep("OUTBOX_BATCH_BYTES", size(&self.batch_bytes, 64 << 10, 4 << 20));
        let http = problems.keep("OUTBOX_HTTP", address(&self.http));
        let metric_streams = count(&self.metric_streams, 0, 10_000);
        let metric_streams = problems.keep("OUTBOX_METRIC_STREAMS", metric_streams);
        let reviews = self.review.read(problems);
        Some(Settings {
            database: database?,
            server: server?.durable(durability?),
            lease: lease?,
            audit: audit?,
            checkpoint: checkpoint?,
            retention: retention?,
            limits: Limits {
                entries: entries? as u64,
                bytes: held? as u64,
                trim_ungrouped: trim_ungrouped?,
            },
            poll: poll?,
            wake: wake?,
            drain: drain?,
            start: start?,
            bounds: Bounds { rows: rows?, bytes: bytes? },
            http: http?,
            metric_streams: metric_streams?,
            reviews: reviews?,
        })
    }
}

/// A URL given as it is or in a file.
fn one_of(
    file_name: &'static str,
    value: &Option<String>,
    file: &Option<PathBuf>,
) -> Result<Secret, String> {
    match (value, file) {
        (Some(_), Some(_)) => Err(format!("is set, and so is {file_name}; set one of them")),
        (Some(value), None) if !value.trim().is_empty() => Ok(value.as_str().into()),
        (None, Some(file)) => Ok(Secret::File(file.clone(), file_name)),
        _ => Err(format!("is not set; set it or {file_name}")),
    }
}

/// A certificate and its key, or neither.
fn both(
    files: (&Option<PathBuf>, &Option<PathBuf>),
    key: &str,
) -> Result<Option<(PathBuf, PathBuf)>, String> {
    match files {
        (Some(certificate), Some(key)) => Ok(Some((certificate.clone(), key.clone()))),
        (None, None) => Ok(None),
        _ => Err(format!("goes with {key}; set both or neither")),
    }
}

/// An address like `127.0.0.1:9464`, or `0.0.0.0:9464` for all of this host's.
fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!(
            "{} is not an address with a port like 127.0.0.1:9464, 0.0.0.0:9464 or [::]:9464",
            shown(text)
        )
    })
}

/// Whether a stream without groups is trimmed.
fn ungrouped(text: &str) -> Result<bool, String> {
    match text {
        "trim" => Ok(true),
        "hold" => Ok(false),
        _ => Err(format!("{} is neither hold nor trim", shown(text))),
    }
}

/// What must have happened to an entry.
fn durability(text: &str) -> Result<Durability, String> {
    let replicas = text.strip_prefix("replica(").and_then(|rest| rest.strip_suffix(')'));
    match (text, replicas.and_then(|count| count.parse().ok())) {
        ("memory", _) => Ok(Durability::Memory),
        ("aof", _) => Ok(Durability::Disk),
        (_, Some(count @ 1..=9)) => Ok(Durability::Replicas(count)),
        _ => Err(format!("{} is neither memory, replica(1) to replica(9), nor aof", shown(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_everything_that_is_wrong_at_once_and_no_secret() {
        let args = RunArgs {
            servers: ServerArgs {
                database: DatabaseArgs {
                    database_tls_cert: Some("cert".into()),
                    database_url: Some("postgres://u:secret@h:port/d".into()),
                    ..Default::default()
                },
                redis: RedisArgs {
                    redis_url: Some("http://:secret@h".into()),
                    ..Default::default()
                },
            },
            lease: "never".into(),
            audit: "5s".into(),
            checkpoint: "1h".into(),
            retention: "0s".into(),
            stream_limit: "0".into(),
            stream_bytes: "1".into(),
            ungrouped: "drop".into(),
            durability: "replica(0)".into(),
            poll: "2s".into(),
            wake: "maybe".into(),
            drain: "20s".into(),
            start: "30s".into(),
            batch_rows: "0".into(),
            batch_bytes: "1TiB".into(),
            http: "9464".into(),
            metric_streams: "many".into(),
            review: ReviewArgs {
                review_rules: Some("/no/such/file".into()),
                review_every: "1s".into(),
                review_remove: "yes".into(),
            },
        };
        let error = args.settings().expect_err("all of it is wrong");
        let text = error.to_string();
        assert_eq!(error.kind(), Kind::Usage);
        for setting in [
            "DATABASE_URL",
            "DATABASE_TLS_CERT: goes with DATABASE_TLS_KEY",
            "DATABASE_TLS_ACCEPT_ANY_NAME",
            "REDIS_URL",
            "OUTBOX_LEASE",
            "OUTBOX_CHECKPOINT",
            "OUTBOX_RETENTION",
            "OUTBOX_STREAM_LIMIT",
            "OUTBOX_STREAM_BYTES",
            "OUTBOX_UNGROUPED",
            "OUTBOX_DURABILITY",
            "OUTBOX_POLL",
            "OUTBOX_WAKE",
            "OUTBOX_BATCH_ROWS",
            "OUTBOX_BATCH_BYTES",
            "OUTBOX_HTTP",
            "OUTBOX_METRIC_STREAMS",
            "OUTBOX_REVIEW_RULES: cannot read /no/such/file",
            "OUTBOX_REVIEW_EVERY",
            "OUTBOX_REVIEW_REMOVE",
        ] {
            assert!(text.contains(setting), "{setting} in {text}");
        }
        assert!(!text.contains("secret"), "{text}");
    }
}
