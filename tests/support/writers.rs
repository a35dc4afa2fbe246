//! Applications that write in the background, each on its own connection, and note down what
//! became of each row.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls};

use super::dice::Dice;
use super::journal::{Fate, Journal, Note};
use super::world::{APPLICATION, World};
use super::{eventually, pause};

/// The streams that writers write to.
pub(crate) const STREAMS: [&str; 4] = ["orders", "payments", "balances", "mail"];
const KEYS: u64 = 5;

/// Writers at work until they are stopped. They outlive restarts of Postgres.
pub(crate) struct Writers {
    journal: Arc<Journal>,
    over: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Starts `count` writers.
    pub(crate) fn start(world: &World, count: usize) -> Self {
        Self::start_at(world, count, &world.postgres.url_of("postgres", APPLICATION))
    }

    /// As [`Writers::start`], with a URL that may name several hosts.
    pub(crate) fn start_at(world: &World, count: usize, url: &str) -> Self {
        Self::spawn(world, count, url, true)
    }

    /// Starts writers whose commits do not wait for the disk, so that they know of no commit
    /// whether it lasts.
    pub(crate) fn hasty(world: &World, count: usize) -> Self {
        Self::hasty_at(world, count, &world.postgres.url_of("postgres", APPLICATION))
    }

    /// As [`Writers::hasty`], with a URL that may name several hosts.
    pub(crate) fn hasty_at(world: &World, count: usize, url: &str) -> Self {
        Self::spawn(world, count, url, false)
    }

    fn spawn(world: &World, count: usize, url: &str, durable: bool) -> Self {
        let (mut dice, over) = (Dice::new(), Arc::<AtomicBool>::default());
        let start = |_| {
            let writer = Writer {
                url: url.to_owned(),
                journal: world.journal.clone(),
                over: over.clone(),
                dice: dice.split(),
                durable,
            };
            tokio::spawn(writer.run())
        };
        let tasks = (0..count).map(start).collect();
        Self { journal: world.journal.clone(), over, tasks }
    }

    /// Waits until they have committed `rows` more rows, which also shows that they can.
    #[track_caller]
    pub(crate) fn write_more(&self, rows: usize) -> impl Future<Output = ()> + '_ {
        let wanted = self.journal.committed() + rows;
        eventually("the writers go on", Duration::from_secs(60), move || async move {
            self.journal.committed() >= wanted
        })
    }

    /// Ends them; fails if one of them met an error that no stop of Postgres explains.
    pub(crate) async fn stop(mut self) {
        self.over.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            task.await.unwrap();
        }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

struct Writer {
    url: String,
    journal: Arc<Journal>,
    over: Arc<AtomicBool>,
    dice: Dice,
    durable: bool,
}

impl Writer {
    async fn run(mut self) {
        while !self.is_over() {
            // The pause is between two attempts or two transactions; nothing is waited for.
            pause().await;
            let Ok((client, connection)) = tokio_postgres::connect(&self.url, NoTls).await else {
                continue;
            };
            tokio::spawn(connection);
            while !self.is_over() && self.transaction(&client).await.is_ok() {
                pause().await;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// One transaction with its notes. An error means that the connection is of no more use.
    async fn transaction(&mut self, client: &Client) -> Result<(), Error> {
        let mut notes = Vec::new();
        let written = self.write(client, &mut notes).await;
        let dropped = written.is_err() || self.dice.one_in(6);
        let ended = match (&written, dropped) {
            (Err(_), _) => Ok(()),
            (Ok(()), true) => client.batch_execute("rollback").await,
            (Ok(()), false) => client.batch_execute("commit").await,
        };
        let fate = match (dropped, ended.is_ok() && self.durable) {
            (true, _) => Fate::RolledBack,
            (false, true) => Fate::Committed,
            (false, false) => Fate::Unknown,
        };
        for note in notes.iter_mut().filter(|note| note.fate == Fate::Committed) {
            note.fate = fate;
        }
        self.journal.write(notes);
        written.and(ended).inspect_err(expect_stop)
    }

    async fn write(&mut self, client: &Client, notes: &mut Vec<Note>) -> Result<(), Error> {
        client.batch_execute("begin").await?;
        if !self.durable {
            client.batch_execute("set local synchronous_commit = off").await?;
        }
        let ordered = match self.dice.one_in(2) {
            true => Some(self.lock(client).await?),
            false => None,
        };
        for _ in 0..=self.dice.below(5) {
            let note = self.note(ordered.as_ref());
            notes.push(note.clone());
            if self.dice.one_in(6) {
                client.batch_execute("savepoint here").await?;
                note.insert(client).await?;
                client.batch_execute("rollback to savepoint here").await?;
                notes.last_mut().unwrap().fate = Fate::RolledBack;
            } else {
                note.insert(client).await?;
            }
        }
        Ok(())
    }

    /// Locks one key of one stream, as a writer does that wants its rows in order.
    async fn lock(&mut self, client: &Client) -> Result<(String, String), Error> {
        let (stream, key) = (self.stream(), self.dice.below(KEYS).to_string());
        let sql = "select pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 0))";
        client.query_one(sql, &[&stream, &key]).await?;
        Ok((stream, key))
    }

    fn note(&mut self, ordered: Option<&(String, String)>) -> Note {
        let mut note = match ordered.filter(|_| !self.dice.one_in(3)) {
            Some((stream, key)) => Note {
                number: Some(self.journal.next_number(stream, key)),
                ..Note::new(stream).key(key)
            },
            None => Note::new(&self.stream()),
        };
        note.kind = self.dice.one_in(2).then(|| "thing.happened".to_owned());
        note
    }

    fn stream(&mut self) -> String {
        STREAMS[self.dice.below(STREAMS.len() as u64) as usize].to_owned()
    }
}

/// Whatever the relay does, applications never meet an error because of it.
fn expect_stop(error: &Error) {
    let stops = [
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::QUERY_CANCELED,
    ];
    let unexpected = error.code().is_some_and(|code| !stops.contains(code));
    assert!(!unexpected, "an application met {error:?}");
}

/// Commits `count` rows of `stream` in one transaction and notes them down.
pub(crate) async fn write_rows(world: &World, stream: &str, count: usize) {
    let client = world.application().await;
    let notes: Vec<Note> = (0..count).map(|_| Note::new(stream)).collect();
    client.batch_execute("begin").await.unwrap();
    for note in &notes {
        note.insert(&client).await.unwrap();
    }
    client.batch_execute("commit").await.unwrap();
    world.journal.write(notes);
}
