//! Applications that write, each on its own connection and with its own ledger.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, NoTls};

use super::ledger::{Ledger, Row};
use super::moment::{Micros, now};
use crate::support::dice::Dice;
use crate::support::journal::Fate;
use crate::support::pause;

const KEYS: u64 = 4;

/// What writers share.
pub(crate) struct Desk {
    url: String,
    folder: PathBuf,
    streams: Vec<String>,
    over: AtomicBool,
    numbers: Mutex<HashMap<(String, String), u64>>,
    /// When each commit ended, and how long it took.
    pub(crate) commits: Mutex<Vec<(Micros, Duration)>>,
    /// When an application met an error, and which.
    pub(crate) errors: Mutex<Vec<(Micros, String)>>,
    pub(crate) written: AtomicU64,
}

impl Desk {
    pub(crate) fn new(url: String, folder: PathBuf, streams: Vec<String>) -> Arc<Self> {
        Arc::new(Self {
            url,
            folder,
            streams,
            over: AtomicBool::default(),
            numbers: Mutex::default(),
            commits: Mutex::default(),
            errors: Mutex::default(),
            written: AtomicU64::default(),
        })
    }

    /// Somebody who writes one transaction after the other until all are told to stop.
    pub(crate) fn writer(self: &Arc<Self>, name: &str, dice: Dice, hasty: bool) -> JoinHandle<()> {
        tokio::spawn(Writer::new(self, name, dice, hasty).write_on())
    }

    /// Somebody who commits this many rows at once.
    pub(crate) fn bulk(self: &Arc<Self>, name: &str, dice: Dice, rows: usize) -> JoinHandle<()> {
        let mut writer = Writer::new(self, name, dice, false);
        tokio::spawn(async move {
            let Some(client) = writer.connect().await else { return };
            let _ = writer.transact(&client, Work::Bulk(rows)).await;
        })
    }

    /// Somebody whose transaction stays open for so long.
    pub(crate) fn long(self: &Arc<Self>, name: &str, dice: Dice, open: Duration) -> JoinHandle<()> {
        let mut writer = Writer::new(self, name, dice, false);
        tokio::spawn(async move {
            let Some(client) = writer.connect().await else { return };
            let _ = writer.transact(&client, Work::Long(open)).await;
        })
    }

    /// Somebody who commits in two phases, so long apart.
    pub(crate) fn prepared(
        self: &Arc<Self>,
        name: &str,
        dice: Dice,
        apart: Duration,
    ) -> JoinHandle<()> {
        let writer = Writer::new(self, name, dice, false);
        tokio::spawn(writer.prepare(name.to_owned(), apart))
    }

    /// Lets all of them end.
    pub(crate) fn close(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    fn is_closed(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// The next number of a key. Call it while holding the lock that orders the key.
    fn next_number(&self, stream: &str, key: &str) -> u64 {
        let mut numbers = self.numbers.lock().unwrap();
        let number = numbers.entry((stream.to_owned(), key.to_owned())).or_default();
        *number += 1;
        *number
    }

    fn failed(&self, error: &Error) {
        let what = match error.code() {
            Some(code) => format!("{} {error:?}", code.code()),
            None => format!("{error:?}"),
        };
        self.errors.lock().unwrap().push((now(), what));
    }
}

struct Writer {
    desk: Arc<Desk>,
    ledger: Ledger,
    dice: Dice,
    hasty: bool,
}

/// What a transaction is to do.
#[derive(Clone, Copy)]
enum Work {
    Usual,
    Bulk(usize),
    Long(Duration),
}

impl Writer {
    fn new(desk: &Arc<Desk>, name: &str, dice: Dice, hasty: bool) -> Self {
        Self { desk: desk.clone(), ledger: Ledger::new(&desk.folder, name), dice, hasty }
    }

    async fn connect(&self) -> Option<Client> {
        match tokio_postgres::connect(&self.desk.url, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                Some(client)
            }
            Err(error) => {
                self.desk.failed(&error);
                None
            }
        }
    }

    async fn write_on(mut self) {
        while !self.desk.is_closed() {
            // Between two attempts or two transactions; nothing is waited for.
            pause().await;
            let Some(client) = self.connect().await else { continue };
            while !self.desk.is_closed() && self.transact(&client, Work::Usual).await.is_ok() {
                pause().await;
            }
        }
    }

    /// One transaction with its notes. An error means that the connection is of no more use.
    async fn transact(&mut self, client: &Client, work: Work) -> Result<(), Error> {
        self.ledger.begin();
        let done = async {
            client.batch_execute("begin").await?;
            if self.hasty {
                client.batch_execute("set local synchronous_commit = off").await?;
            }
            let rows = self.write(client, work).await?;
            if self.dice.one_in(6) {
                client.batch_execute("rollback").await?;
                self.ledger.end(Fate::RolledBack);
                return Ok(());
            }
            self.commit(client, rows).await
        };
        let done: Result<(), Error> = done.await;
        done.inspect_err(|error| self.desk.failed(error))
    }

    async fn commit(&mut self, client: &Client, rows: usize) -> Result<(), Error> {
        self.ledger.issue();
        let begun = Instant::now();
        let committed = client.batch_execute("commit").await;
        let took = begun.elapsed();
        // A commit that does not wait for the disk promises nothing.
        let fate = match &committed {
            Ok(()) if !self.hasty => Fate::Committed,
            _ => Fate::Unknown,
        };
        self.ledger.end(fate);
        committed?;
        self.desk.commits.lock().unwrap().push((now(), took));
        self.desk.written.fetch_add(rows as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Returns how many rows were written.
    async fn write(&mut self, client: &Client, work: Work) -> Result<usize, Error> {
        let rows = match work {
            Work::Bulk(rows) => return self.many(client, rows).await,
            _ if self.dice.one_in(3) => self.ordered(client).await?,
            _ if self.dice.one_in(2) => self.locked(client).await?,
            _ => self.loose(client).await?,
        };
        match work {
            Work::Long(open) => tokio::time::sleep(open).await,
            // So that commits come in another order than rows.
            _ if self.dice.one_in(4) => {
                tokio::time::sleep(Duration::from_millis(self.dice.below(60))).await;
            }
            _ => {}
        }
        Ok(rows)
    }

    /// Rows without order, some of them taken back by a savepoint.
    async fn loose(&mut self, client: &Client) -> Result<usize, Error> {
        let count = 1 + self.dice.below(5) as usize;
        for _ in 0..count {
            let row = self.row();
            self.ledger.rows(std::slice::from_ref(&row));
            if self.dice.one_in(6) {
                client.batch_execute("savepoint here").await?;
                insert(client, &row).await?;
                client.batch_execute("rollback to savepoint here").await?;
                self.ledger.undone(&[row]);
            } else {
                insert(client, &row).await?;
            }
        }
        Ok(count)
    }

    /// Rows of one key that the writer locks itself, as one that locks its aggregate does.
    async fn locked(&mut self, client: &Client) -> Result<usize, Error> {
        let (row, count) = (self.row(), 1 + self.dice.below(3) as usize);
        let key = format!("locked-{}", self.dice.below(KEYS));
        let sql = "select pg_advisory_xact_lock(hashtextextended($1 || '/' || $2, 7))";
        client.query_one(sql, &[&row.stream, &key]).await?;
        for _ in 0..count {
            let mut row = Row { key: Some(key.clone()), ..Row::new(&row.stream, row.bytes) };
            row.number = Some(self.desk.next_number(&row.stream, &key));
            self.ledger.rows(std::slice::from_ref(&row));
            insert(client, &row).await?;
        }
        Ok(count)
    }

    /// One row by `outbox.emit(…, ordered => true)`, which takes the lock.
    async fn ordered(&mut self, client: &Client) -> Result<usize, Error> {
        let key = format!("ordered-{}", self.dice.below(KEYS));
        let mut row = Row { key: Some(key.clone()), ..self.row() };
        let sql = "select outbox.emit($1, $2::text::jsonb, key => $3, type => 'thing.happened', \
                   event_id => $4, ordered => true)";
        client.query_one(sql, &[&row.stream, &row.payload(), &key, &row.event]).await?;
        row.number = Some(self.desk.next_number(&row.stream, &key));
        self.ledger.rows(&[row]);
        Ok(1)
    }

    async fn many(&mut self, client: &Client, count: usize) -> Result<usize, Error> {
        let stream = self.stream();
        let rows: Vec<Row> = (0..count).map(|_| Row::new(&stream, 0)).collect();
        self.ledger.rows(&rows);
        let events: Vec<_> = rows.iter().map(|row| row.event).collect();
        let payloads: Vec<_> = rows.iter().map(Row::payload).collect();
        let sql = "insert into outbox.entry (event_id, stream, type, payload) \
                   select u.event, $1, 'thing.happened', u.payload::jsonb \
                   from unnest($2::uuid[], $3::text[]) u (event, payload)";
        client.execute(sql, &[&stream, &events, &payloads]).await?;
        Ok(count)
    }

    /// Two-phase commit. What is prepared outlives everything, so it is ended whatever happens.
    async fn prepare(mut self, name: String, apart: Duration) {
        self.ledger.begin();
        let commits = !self.dice.one_in(3);
        let Some(client) = self.connect().await else { return };
        let prepared = async {
            // PREPARE refuses a transaction that has notified.
            client.batch_execute("set outbox.wake = off; begin").await?;
            let rows = self.loose(&client).await?;
            self.ledger.issue();
            client.batch_execute(&format!("prepare transaction '{name}'")).await?;
            Ok(rows)
        };
        let prepared: Result<usize, Error> = prepared.await;
        if let Err(error) = &prepared {
            self.desk.failed(error);
        }
        tokio::time::sleep(apart).await;
        let commits = commits && prepared.is_ok();
        let verb = if commits { "commit" } else { "rollback" };
        let mut client = Some(client);
        loop {
            pause().await;
            client = match client {
                Some(client) if !client.is_closed() => Some(client),
                _ => self.connect().await,
            };
            let Some(client) = &client else { continue };
            match client.batch_execute(&format!("{verb} prepared '{name}'")).await {
                Ok(()) => break,
                // An earlier attempt has ended it, or it was never prepared.
                Err(error) if error.code() == Some(&SqlState::UNDEFINED_OBJECT) => break,
                Err(error) => self.desk.failed(&error),
            }
        }
        self.ledger.end(if commits { Fate::Committed } else { Fate::RolledBack });
    }

    fn row(&mut self) -> Row {
        let bytes = if self.dice.one_in(20) { self.dice.below(5_000) } else { self.dice.below(50) };
        Row::new(&self.stream(), bytes)
    }

    fn stream(&mut self) -> String {
        let streams = &self.desk.streams;
        streams[self.dice.below(streams.len() as u64) as usize].clone()
    }
}

pub(crate) async fn insert(client: &Client, row: &Row) -> Result<(), Error> {
    let sql = "insert into outbox.entry (event_id, stream, key, type, payload) \
               values ($1, $2, $3, 'thing.happened', $4::text::jsonb)";
    client.execute(sql, &[&row.event, &row.stream, &row.key, &row.payload()]).await.map(|_| ())
}
