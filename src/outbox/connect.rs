//! Connections to Postgres: how they are made, what is checked first, and errors in words.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{AsyncMessage, Client, NoTls, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::address::{Address, CONNECT_TIMEOUT};
use crate::error::{Error, Kind, Result, Target};
use crate::secret::Secret;
use crate::tls::{self, Tls};

/// A host that accepts and then does not let us in is given up after this long.
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);
/// A statement that the server does not finish is cancelled by the server after this long.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// A lock that others do not release is given up after this long, so that the relay never stands
/// in the queue before somebody's DDL for longer.
const LOCK_TIMEOUT: Duration = Duration::from_secs(5);
/// Waited for an answer before the connection is dropped: a little longer than the server's own
/// bound, so that the server's clearer error wins where it can.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(65);
/// Said of a connection that does not lead to the server that the session works with.
const ELSEWHERE: &str = "it is another server than a moment ago";

/// Where Postgres is. Cloning is cheap; no connection is made before it is asked for.
#[derive(Clone, Debug)]
pub struct Database {
    url: Secret,
    tls: Tls,
    /// As it was at first, for messages.
    known: Arc<Address>,
    /// The host that last let us in, by its name; None before the first.
    answering: Arc<Mutex<Option<String>>>,
    /// The server that a session works with; None before the first.
    primary: Arc<Mutex<Option<String>>>,
}

impl Database {
    /// Reads a URL like `postgres://user:password@host:5432/database`, or `host=… dbname=…`, with one host or
    /// several; one in a file again at each connection, as the files of `tls`.
    ///
    /// # Errors
    /// `Usage` if it cannot be read. The text never repeats the URL: it may hold a password.
    pub fn new(url: Secret, tls: Tls) -> Result<Self> {
        let usage = |text: String| Error::new(Kind::Usage, text);
        let known = Address::read(&url.read().map_err(usage)?, &tls)?;
        if let Some(tls) = &known.tls {
            tls.read().map_err(usage)?;
        }
        let (known, answering, primary) = (Arc::new(known), Arc::default(), Arc::default());
        Ok(Self { url, tls, known, answering, primary })
    }

    /// Reads a URL as it is, without further settings.
    ///
    /// # Errors
    /// As [`Database::new`].
    pub fn from_url(url: &str) -> Result<Self> {
        Self::new(url.into(), Tls::default())
    }

    /// Host, port and database, for messages: of the host that last let us in, or of all. Never the password.
    pub fn name(&self) -> String {
        lock(&self.answering).clone().unwrap_or_else(|| self.known.name())
    }

    /// Where it is now.
    fn address(&self) -> Result<Address> {
        let url = self.url.read().map_err(|why| self.unreachable(&why))?;
        Address::read(&url, &self.tls)
            .map_err(|error| self.unreachable(&format!("the URL {error}")))
    }

    /// Its hosts, first the one that last let us in: one that is silent costs its time-out once, and a
    /// primary of old that comes back is not asked while the new one answers.
    fn hosts(&self) -> Result<Vec<Address>> {
        let mut hosts = self.address()?.hosts();
        let last = lock(&self.answering).clone();
        let at = hosts.iter().position(|host| last.as_ref() == Some(&host.name()));
        hosts.rotate_left(at.unwrap_or_default());
        Ok(hosts)
    }

    /// Opens one connection, named `outbox-relay <purpose>` in `pg_stat_activity`; of several hosts, to the
    /// first that takes writes.
    ///
    /// # Errors
    /// `Refused` if the server answered and a person must act, `Unavailable` otherwise.
    pub async fn connect(&self, purpose: &str) -> Result<Connection> {
        self.connect_as(purpose, &settings()).await
    }

    /// As [`Database::connect`], with the settings of its role: for statements of applications.
    ///
    /// # Errors
    /// As [`Database::connect`].
    pub(super) async fn connect_to_work(&self, purpose: &str) -> Result<Connection> {
        self.connect_as(purpose, "").await
    }

    async fn connect_as(&self, purpose: &str, settings: &str) -> Result<Connection> {
        let mut failed = Vec::new();
        for mut host in self.hosts()? {
            host.config.application_name(format!("outbox-relay {purpose}"));
            match self.connect_to(&host, settings).await {
                Ok(connection) => {
                    *lock(&self.answering) = Some(host.name());
                    return Ok(connection);
                }
                Err(error) => failed.push(error),
            }
        }
        Err(none_of(failed))
    }

    async fn connect_to(&self, host: &Address, settings: &str) -> Result<Connection> {
        let mut connection = tokio::time::timeout(LOGIN_TIMEOUT, self.open(host))
            .await
            .map_err(|_| unreachable(&host.name(), "it did not answer"))??;
        connection.server = begin(&connection.client, settings).await?;
        Ok(connection)
    }

    /// The server that `connection` leads to is the one that a session works with from now on.
    pub fn settle_on(&self, connection: &Connection) {
        *lock(&self.primary) = Some(connection.server.clone());
    }

    /// As [`Database::connect`], to the server that the session works with: behind one name there may be
    /// several, and rows that one of them shows must not be sealed on another.
    ///
    /// # Errors
    /// As [`Database::connect`]; `Unavailable` for another server.
    pub async fn connect_beside(&self, purpose: &str) -> Result<Connection> {
        let connection = self.connect(purpose).await?;
        match &*lock(&self.primary) {
            Some(primary) if *primary != connection.server => Err(self.unreachable(ELSEWHERE)),
            _ => Ok(connection),
        }
    }

    async fn open(&self, address: &Address) -> Result<Connection> {
        let failed = |error| self.connect_error(address, error);
        match self.connector(address)? {
            None => {
                let (client, connection) = address.config.connect(NoTls).await.map_err(failed)?;
                Ok(Connection::drive(client, connection))
            }
            Some(tls) => {
                let (client, connection) = address.config.connect(tls).await.map_err(failed)?;
                Ok(Connection::drive(client, connection))
            }
        }
    }

    fn connector(&self, address: &Address) -> Result<Option<MakeRustlsConnect>> {
        let config = address.tls.as_ref().map(Tls::client_config).transpose();
        let config = config.map_err(|why| self.unreachable(&why))?;
        Ok(config.map(MakeRustlsConnect::new))
    }

    /// Connections for reading the log, at most `size`, made when they are needed, all with the URL as it is
    /// now, to the host that last let us in.
    ///
    /// # Errors
    /// `Unavailable` if a file cannot be read, `Internal` if the pool cannot be built.
    pub fn pool(&self, size: usize) -> Result<Pool> {
        let mut address = self.hosts()?.swap_remove(0);
        address.config.application_name("outbox-relay log");
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = match self.connector(&address)? {
            None => Manager::from_config(address.config, NoTls, recycling),
            Some(tls) => Manager::from_config(address.config, tls, recycling),
        };
        Pool::builder(manager)
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(ANSWER_TIMEOUT))
            .create_timeout(Some(CONNECT_TIMEOUT))
            .post_create(self.of_this_session())
            .build()
            .map_err(|error| {
                Target::Postgres.error_by(Kind::Internal, "no pool of connections", error)
            })
    }

    /// What each connection of a pool begins with. Not as options of the connection, for poolers drop them.
    fn of_this_session(&self) -> Hook {
        let primary = lock(&self.primary).clone();
        Hook::async_fn(move |client, _| {
            let primary = primary.clone();
            Box::pin(async move {
                let plans = "set enable_seqscan = off; set enable_bitmapscan = off;";
                let begun = begin(client, &format!("{} {plans}", settings())).await;
                let server = begun.map_err(|error| HookError::message(error.to_string()))?;
                match primary {
                    Some(primary) if primary != server => Err(HookError::message(ELSEWHERE)),
                    _ => Ok(()),
                }
            })
        })
    }

    fn unreachable(&self, why: &str) -> Error {
        unreachable(&self.name(), why)
    }

    fn connect_error(&self, address: &Address, error: tokio_postgres::Error) -> Error {
        let (name, user) = (address.name(), address.user());
        if let Some(why) = tls_refused(address, &error) {
            let context = format!("cannot connect to Postgres at {name}: {why}");
            return Target::Postgres.error_by(Kind::Refused, context, error);
        }
        match error.code() {
            Some(code)
                if *code == SqlState::INVALID_PASSWORD
                    || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION =>
            {
                let said = error.as_db_error().map(|said| said.message()).unwrap_or_default();
                // Said wherever no rule fits, be it for another reason.
                let or = match said.ends_with("no encryption") {
                    true => ", or write sslmode=require there if it wants TLS",
                    false => "",
                };
                let context = format!(
                    "Postgres at {name} does not let {user:?} in; check user and password in DATABASE_URL{or}"
                );
                Target::Postgres.error_by(Kind::Refused, context, error)
            }
            Some(code) if *code == SqlState::INVALID_CATALOG_NAME => {
                let context =
                    format!("Postgres at {name} has no such database; check DATABASE_URL");
                Target::Postgres.error_by(Kind::Refused, context, error)
            }
            None if lacks_password(&error) => Target::Postgres.error(
                Kind::Refused,
                format!("Postgres at {name} wants a password for {user:?}; DATABASE_URL has none"),
            ),
            None if takes_no_writes(&error) => Target::Postgres.error(
                Kind::Unavailable,
                format!("Postgres at {name} takes no writes: it is a standby, or read-only"),
            ),
            _ => Target::Postgres.error_by(
                Kind::Unavailable,
                format!("cannot connect to Postgres at {name}"),
                error,
            ),
        }
    }
}

fn lock<T>(held: &Mutex<T>) -> MutexGuard<'_, T> {
    held.lock().unwrap_or_else(PoisonError::into_inner)
}

fn unreachable(name: &str, why: &str) -> Error {
    Target::Postgres.error(Kind::Unavailable, format!("cannot reach Postgres at {name}: {why}"))
}

/// What the errors of all hosts mean together: while one may come back, or be promoted, it is waited for.
fn none_of(mut failed: Vec<Error>) -> Error {
    if failed.len() < 2 {
        return failed.pop().unwrap_or_else(|| unreachable("no host", "DATABASE_URL names none"));
    }
    let kind = match failed.iter().all(|error| error.kind() == Kind::Refused) {
        true => Kind::Refused,
        false => Kind::Unavailable,
    };
    let told: Vec<String> = failed.iter().map(ToString::to_string).collect();
    let context = format!("no host of DATABASE_URL can be worked with: {}", told.join("; "));
    Target::Postgres.error(kind, context)
}

/// What an error says about TLS, if it does.
fn tls_refused(address: &Address, error: &tokio_postgres::Error) -> Option<String> {
    address.tls.as_ref()?;
    let said = error.as_db_error().map(|said| said.message()).unwrap_or_default();
    if said == "connection requires a valid client certificate" {
        return Some(
            "it wants a certificate of ours; set DATABASE_TLS_CERT and DATABASE_TLS_KEY".to_owned(),
        );
    }
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    if cause == "server does not support TLS" {
        return Some(
            "it speaks no TLS; set ssl = on in its postgresql.conf, or write sslmode=disable in \
             DATABASE_URL"
                .to_owned(),
        );
    }
    tls::explain(error, Target::Postgres)
}

/// What every connection of the relay has set.
fn settings() -> String {
    format!(
        "set statement_timeout = {statement}; set lock_timeout = {lock}; \
         set idle_in_transaction_session_timeout = {statement}; set search_path = pg_catalog; set jit = off; \
         set default_transaction_isolation = 'read committed';",
        statement = STATEMENT_TIMEOUT.as_millis(),
        lock = LOCK_TIMEOUT.as_millis(),
    )
}

/// Sets what a connection has set. Returns which server it is, and since when it runs.
async fn begin(client: &Client, settings: &str) -> Result<String> {
    let sql = format!(
        "{settings} select concat_ws(' ', system_identifier, pg_catalog.pg_postmaster_start_time()) \
         from pg_catalog.pg_control_system()"
    );
    let messages = answer(client.simple_query(&sql)).await?;
    let server = messages.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    Ok(server.unwrap_or_default().to_owned())
}

/// The server asked for a password and the URL has none; the library has no code for it.
fn lacks_password(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.to_string() == "password missing")
}

/// The URL wants a server that takes writes, and this one does not; the library has no code for it.
fn takes_no_writes(error: &tokio_postgres::Error) -> bool {
    let cause = std::error::Error::source(error).map(ToString::to_string);
    cause.is_some_and(|cause| cause == "database does not allow writes")
}

/// One connection and the task that drives it. Dropping it closes it; a statement that is still
/// running then is not undone.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    /// Which server it is, and since when it runs.
    server: String,
    woken: Arc<Notify>,
    warned: Arc<AtomicBool>,
    driver: JoinHandle<()>,
}

impl Connection {
    fn drive<S, T>(client: Client, mut connection: tokio_postgres::Connection<S, T>) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
        T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let woken = Arc::new(Notify::new());
        let warned = Arc::new(AtomicBool::new(false));
        let (bell, warning) = (woken.clone(), warned.clone());
        let driver = tokio::spawn(async move {
            let next = |cx: &mut std::task::Context<'_>| connection.poll_message(cx);
            let mut messages = std::pin::pin!(futures_util::stream::poll_fn(next));
            use futures_util::StreamExt as _;
            while let Some(Ok(message)) = messages.next().await {
                match message {
                    AsyncMessage::Notification(_) => bell.notify_one(),
                    // A commit whose wait for a synchronous standby was cancelled succeeds with a
                    // warning: it is not durable where it was promised to be.
                    AsyncMessage::Notice(notice) if notice.code() == &SqlState::WARNING => {
                        warning.store(true, Ordering::Release);
                    }
                    _ => {}
                }
            }
            bell.notify_one();
        });
        Self { client, server: String::new(), woken, warned, driver }
    }

    /// Both lead to one server.
    pub(super) fn leads_where(&self, other: &Self) -> bool {
        self.server == other.server
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn client_mut(&mut self) -> &mut Client {
        &mut self.client
    }

    /// A NOTIFY has come, or the connection has ended.
    pub(super) async fn notified(&self) {
        self.woken.notified().await;
    }

    /// Set when the server sends a warning.
    pub(super) fn warnings(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.warned)
    }

    /// The server sent a warning since the last call.
    pub(super) fn take_warning(&self) -> bool {
        self.warned.swap(false, Ordering::AcqRel)
    }

    /// The connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Runs statements without parameters.
    pub(super) async fn batch(&self, sql: &str) -> Result<()> {
        answer(self.client.batch_execute(sql)).await
    }

    /// As [`Connection::batch`], for as long as it takes: a peer that is gone is noticed by keepalives.
    pub(super) async fn batch_for_long(&self, sql: &str) -> Result<()> {
        self.client.batch_execute(sql).await.map_err(statement_error)
    }

    pub(super) async fn prepare(&self, sql: &str) -> Result<tokio_postgres::Statement> {
        answer(self.client.prepare(sql)).await
    }

    /// A seal must be durable when its commit returns, whatever the server's default says.
    pub(super) async fn commit_durably(&self) -> Result<()> {
        self.batch(
            "select set_config('synchronous_commit', 'on', false) \
             where current_setting('synchronous_commit') not in ('on', 'remote_apply')",
        )
        .await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Waits for an answer of Postgres, bounded, with the error in words.
pub(super) async fn answer<T>(
    asked: impl Future<Output = Result<T, tokio_postgres::Error>>,
) -> Result<T> {
    match tokio::time::timeout(ANSWER_TIMEOUT, asked).await {
        Ok(result) => result.map_err(statement_error),
        Err(_) => Err(Target::Postgres.error(
            Kind::Unavailable,
            format!("Postgres did not answer within {} s", ANSWER_TIMEOUT.as_secs()),
        )),
    }
}

/// What a failed statement means.
pub(super) fn statement_error(error: tokio_postgres::Error) -> Error {
    let Some(db) = error.as_db_error() else {
        return Target::Postgres.error_by(
            Kind::Unavailable,
            "lost the connection to Postgres",
            error,
        );
    };
    let code = db.code().clone();
    // The outer Display says only "db error"; the inner one has the server's sentence.
    let said = format!("{} (SQLSTATE {})", db.message(), code.code());
    if code == SqlState::UNDEFINED_TABLE
        || code == SqlState::INVALID_SCHEMA_NAME
        || code == SqlState::UNDEFINED_FUNCTION
        || code == SqlState::UNDEFINED_COLUMN
    {
        let context =
            format!("the outbox schema is missing or old: {said}; run `outbox-relay migrate`");
        Target::Postgres.error(Kind::Refused, context)
    } else if code == SqlState::INSUFFICIENT_PRIVILEGE {
        let context = format!(
            "Postgres refuses a right: {said}; the owner of the database may run `outbox-relay migrate`, \
             and gives a relay's role its rights with `outbox-relay migrate --relay-role ROLE`"
        );
        Target::Postgres.error(Kind::Refused, context)
    } else if code == SqlState::READ_ONLY_SQL_TRANSACTION {
        let context = format!("Postgres is read-only: {said}; DATABASE_URL must name the primary");
        Target::Postgres.error(Kind::Refused, context)
    } else if code == SqlState::T_R_DEADLOCK_DETECTED || code == SqlState::LOCK_NOT_AVAILABLE {
        Target::Postgres.error(Kind::Unavailable, format!("Postgres could not get a lock: {said}"))
    } else {
        Target::Postgres.error(Kind::Unavailable, format!("Postgres says: {said}"))
    }
}
