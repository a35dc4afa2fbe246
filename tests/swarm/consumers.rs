//! Applications that read by consumer group, with a journal of what each was given and acknowledged.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use redis::RedisError;
use redis::aio::MultiplexedConnection;
use tokio::task::JoinHandle;

use super::moment::{Micros, now};
use crate::support::dice::Dice;
use crate::support::pause;
use crate::support::workers::Reply;

/// How long some work takes: longer than it is between two checkpoints.
const LONG: Duration = Duration::from_millis(1_200);

/// A group of a stream.
pub(crate) type Seat = (String, String);

/// What happened to an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// The group was given it.
    Given,
    /// It is about to be acknowledged; the answer may be lost.
    Tried,
    /// Redis has said that it is acknowledged.
    Acknowledged,
    /// Redis has said that the group was not waiting for it.
    Refused,
}

/// An entry that a group was given, or has acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deed {
    pub(crate) ms: u64,
    pub(crate) n: u64,
    /// Just before it was asked for.
    pub(crate) asked: Micros,
    /// When it had been answered.
    pub(crate) done: Micros,
    pub(crate) act: Act,
}

/// What consumers share.
pub(crate) struct Room {
    url: String,
    prefix: String,
    over: AtomicBool,
    /// Milliseconds that each read takes longer.
    slowness: AtomicU64,
    /// Nobody takes longer than it has to.
    hurry: AtomicBool,
    deeds: Mutex<HashMap<Seat, Vec<Deed>>>,
}

/// One consumer per group and stream.
pub(crate) struct Consumers {
    room: Arc<Room>,
    tasks: HashMap<Seat, JoinHandle<()>>,
    dice: Dice,
}

impl Consumers {
    pub(crate) fn new(url: String, prefix: &str, dice: Dice) -> Self {
        let room = Arc::new(Room {
            url,
            prefix: prefix.to_owned(),
            over: AtomicBool::default(),
            slowness: AtomicU64::default(),
            hurry: AtomicBool::default(),
            deeds: Mutex::default(),
        });
        Self { room, tasks: HashMap::new(), dice }
    }

    /// Lets somebody read in the name of a group; whoever did before is gone, in the middle of what it
    /// did.
    pub(crate) fn seat(&mut self, group: &str, stream: &str) {
        let seat = (group.to_owned(), stream.to_owned());
        self.dismiss(group, stream);
        let consumer =
            Consumer { room: self.room.clone(), seat: seat.clone(), dice: self.dice.split() };
        self.tasks.insert(seat, tokio::spawn(consumer.run()));
    }

    pub(crate) fn dismiss(&mut self, group: &str, stream: &str) {
        let seat = (group.to_owned(), stream.to_owned());
        if let Some(task) = self.tasks.remove(&seat) {
            task.abort();
        }
    }

    pub(crate) fn slow_down(&self, milliseconds: u64) {
        self.room.slowness.store(milliseconds, Ordering::Relaxed);
    }

    /// All that waits is acknowledged now.
    pub(crate) fn hurry(&self) {
        self.slow_down(0);
        self.room.hurry.store(true, Ordering::Relaxed);
    }

    /// All that was done so far.
    pub(crate) fn deeds(&self) -> HashMap<Seat, Vec<Deed>> {
        self.room.deeds.lock().unwrap().clone()
    }

    /// The first number up to `last` that nobody of a group has worked on to the end. One up to `removed`
    /// may never have been given.
    pub(crate) fn missing(
        &self,
        group: &str,
        stream: &str,
        last: u64,
        removed: u64,
    ) -> Option<u64> {
        let deeds = self.room.deeds.lock().unwrap();
        let deeds = deeds.get(&(group.to_owned(), stream.to_owned()));
        // An attempt that was refused has done nothing; one without an answer may have.
        let mut tried = vec![0_i64; last as usize + 1];
        let mut given = vec![false; last as usize + 1];
        for deed in deeds.into_iter().flatten() {
            let Some(count) = tried.get_mut(deed.n as usize) else { continue };
            given[deed.n as usize] |= deed.act == Act::Given;
            *count += match deed.act {
                Act::Tried => 1,
                Act::Refused => -1,
                Act::Given | Act::Acknowledged => 0,
            };
        }
        (1..=last).find(|n| tried[*n as usize] == 0 && (given[*n as usize] || *n > removed))
    }
}

impl Drop for Consumers {
    fn drop(&mut self) {
        self.room.over.store(true, Ordering::Relaxed);
        self.tasks.values().for_each(JoinHandle::abort);
    }
}

struct Consumer {
    room: Arc<Room>,
    seat: Seat,
    dice: Dice,
}

impl Consumer {
    async fn run(mut self) {
        while !self.is_over() {
            // Between two attempts; nothing is waited for.
            pause().await;
            let Ok(client) = redis::Client::open(self.room.url.as_str()) else { continue };
            let config = redis::AsyncConnectionConfig::new()
                .set_response_timeout(Some(Duration::from_secs(2)));
            let connected = client.get_multiplexed_async_connection_with_config(&config).await;
            if let Ok(mut connection) = connected {
                let _ = self.work(&mut connection).await;
            }
        }
    }

    fn is_over(&self) -> bool {
        self.room.over.load(Ordering::Relaxed)
    }

    /// Reads until an error, first what was given before. Of what it is given it works on some for long.
    async fn work(&mut self, connection: &mut MultiplexedConnection) -> Result<(), RedisError> {
        let (mut from, mut waiting) = ("0".to_owned(), HashMap::<String, Instant>::new());
        let mut idle = 0;
        while !self.is_over() {
            let entries = self.read(connection, &from).await?;
            let slowness = self.room.slowness.load(Ordering::Relaxed);
            if slowness > 0 {
                tokio::time::sleep(Duration::from_millis(self.dice.below(slowness))).await;
            }
            idle = if entries.is_empty() { idle + 1 } else { 0 };
            let last = entries.last().map(|(id, _)| id.clone());
            // An entry that somebody removed cannot be worked on, nor is it acknowledged.
            let found = entries.into_iter().filter(|(_, fields)| fields.is_some());
            let mut done: Vec<String> = found.map(|(id, _)| id).collect();
            done.retain(|id| !waiting.contains_key(id));
            if from == ">" {
                let long = done.extract_if(.., |_| self.dice.one_in(8));
                waiting.extend(long.map(|id| (id, Instant::now() + LONG)));
            }
            let now = if self.room.hurry.load(Ordering::Relaxed) {
                Instant::now() + LONG
            } else {
                Instant::now()
            };
            done.extend(waiting.extract_if(|_, due| *due <= now).map(|(id, _)| id));
            match (from.as_str(), last) {
                (">", Some(_)) => {}
                // What the relay gave back meanwhile.
                (">", None) if idle > 3 => from = "0".to_owned(),
                (">", None) => {}
                (_, None) => from = ">".to_owned(),
                (_, Some(last)) => from = last,
            }
            self.acknowledge(connection, &done).await?;
        }
        Ok(())
    }

    async fn read(
        &mut self,
        connection: &mut MultiplexedConnection,
        from: &str,
    ) -> Result<Vec<(String, Option<Vec<String>>)>, RedisError> {
        let count = 1 + self.dice.below(40);
        let mut read = redis::cmd("XREADGROUP");
        read.arg("GROUP").arg(&self.seat.0).arg("worker").arg("COUNT").arg(count);
        if from == ">" {
            read.arg("BLOCK").arg(30);
        }
        read.arg("STREAMS").arg(self.key()).arg(from);
        let asked = now();
        let found: Option<Reply> = read.query_async(connection).await?;
        let entries = found.into_iter().flatten().flat_map(|(_, entries)| entries);
        let entries: Vec<_> = entries.collect();
        let given = entries.iter().filter(|(_, fields)| fields.is_some());
        self.note(given.map(|(id, _)| id.as_str()), asked, Act::Given);
        Ok(entries)
    }

    async fn acknowledge(
        &self,
        connection: &mut MultiplexedConnection,
        ids: &[String],
    ) -> Result<(), RedisError> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut pipe = redis::pipe();
        for id in ids {
            pipe.cmd("XACK").arg(self.key()).arg(&self.seat.0).arg(id);
        }
        let asked = now();
        self.note(ids.iter().map(String::as_str), asked, Act::Tried);
        let acknowledged: Vec<u64> = pipe.query_async(connection).await?;
        for (act, answer) in [(Act::Acknowledged, 1), (Act::Refused, 0)] {
            let such = ids.iter().zip(&acknowledged).filter(|(_, taken)| **taken == answer);
            self.note(such.map(|(id, _)| id.as_str()), asked, act);
        }
        Ok(())
    }

    fn note<'a>(&self, ids: impl Iterator<Item = &'a str>, asked: Micros, act: Act) {
        let done = now();
        let mut deeds = self.room.deeds.lock().unwrap();
        let mine = deeds.entry(self.seat.clone()).or_default();
        for id in ids {
            if let Some((ms, n)) = id.split_once('-') {
                let (ms, n) = (ms.parse().unwrap(), n.parse().unwrap());
                mine.push(Deed { ms, n, asked, done, act });
            }
        }
    }

    fn key(&self) -> String {
        format!("{}{}", self.room.prefix, self.seat.1)
    }
}
