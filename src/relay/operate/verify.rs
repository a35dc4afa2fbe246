//! Redis compared with the log, entry by entry and byte by byte, of any size, also while writers
//! write.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::error::Result;
use crate::group::Group;
use crate::outbox::{Database, Head, LogReader, Logged};
use crate::position::Position;
use crate::stream::{Place, Redis, Server, StreamEntry};

/// Rows and bytes of the log compared at a time.
const ROWS: usize = 2_000;
const BYTES: usize = 4 << 20;
/// Events remembered per stream to tell a duplicate from a foreign entry; more are only counted.
const REMEMBERED: usize = 100_000;

/// What was found.
#[derive(Debug, Serialize)]
pub struct Verified {
    /// No difference.
    pub ok: bool,
    /// One element per stream, by name.
    pub streams: Vec<StreamVerified>,
    /// Entries sealed but not marked dispatched when it began; no fault.
    #[serde(skip)]
    pub backlog: u64,
}

/// What was found in one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StreamVerified {
    /// Its name.
    pub stream: String,
    /// Entries of the log that were compared.
    pub checked: u64,
    /// Dispatched entries that are not in Redis although some consumer group has not acknowledged them;
    /// without a group, those above the floor.
    pub missing: u64,
    /// Entries in Redis whose event is there at its own position as well.
    pub duplicate: u64,
    /// Entries in Redis whose event stands at another position than the log gave it.
    pub out_of_order: u64,
    /// Entries at their position with other fields or values.
    pub altered: u64,
    /// Entries in Redis that the log does not know.
    pub foreign: u64,
    /// Of those that were compared, how many are no longer in Redis, for nobody needs them; no fault.
    #[serde(skip)]
    pub trimmed: u64,
}

impl StreamVerified {
    fn ok(&self) -> bool {
        self.missing + self.duplicate + self.out_of_order + self.altered + self.foreign == 0
    }
}

/// Compares all streams; `progress` is told the stream, how much of it is compared, and how much
/// there is.
///
/// # Errors
/// Any error that prevents comparing: nothing is said then about what was not compared.
pub async fn verify(
    database: &Database,
    server: &Server,
    progress: impl FnMut(&str, u64, u64),
) -> Result<Verified> {
    verify_at_least(database, server, &HashMap::new(), progress).await
}

/// As [`verify`], of streams that have been in Redis up to these numbers, whatever is marked.
pub(super) async fn verify_at_least(
    database: &Database,
    server: &Server,
    had: &HashMap<Arc<str>, u64>,
    mut progress: impl FnMut(&str, u64, u64),
) -> Result<Verified> {
    let (connection, identity) = database.connect_checked("verify").await?;
    database.settle_on(&connection);
    let redis = server.connect().await?;
    redis.refuse_other(&identity.outbox.to_string()).await?;
    let log = LogReader::new(database.pool(2)?);
    let mut heads = log.heads().await?;
    heads.sort_by(|a, b| a.stream.cmp(&b.stream));
    let names: Vec<_> = heads.iter().map(|head| head.stream.clone()).collect();
    let places = redis.positions(&names).await?;
    let backlog = heads.iter().map(|head| head.sealed.n - head.dispatched).sum();
    for head in &mut heads {
        let had = had.get(&head.stream).copied().unwrap_or_default();
        head.dispatched = head.dispatched.max(had.min(head.sealed.n));
    }
    let mut streams = Vec::with_capacity(heads.len());
    for (head, place) in heads.iter().zip(places) {
        let compared = Comparison::new(&log, &redis, head, place).run(&mut progress).await?;
        streams.push(compared);
    }
    Ok(Verified { ok: streams.iter().all(StreamVerified::ok), streams, backlog })
}

/// One stream, compared up to what had been dispatched, or was in Redis already, when it began.
struct Comparison<'a> {
    log: &'a LogReader,
    redis: &'a Redis,
    head: &'a Head,
    place: Place,
    result: StreamVerified,
    absent: Vec<(Position, Uuid)>,
    absent_unlisted: u64,
    missing: HashSet<Uuid>,
    unknown: HashMap<Uuid, u64>,
    unknown_uncounted: u64,
}

impl<'a> Comparison<'a> {
    fn new(log: &'a LogReader, redis: &'a Redis, head: &'a Head, place: Place) -> Self {
        Self {
            log,
            redis,
            head,
            place,
            result: StreamVerified { stream: head.stream.to_string(), ..Default::default() },
            absent: Vec::new(),
            absent_unlisted: 0,
            missing: HashSet::new(),
            unknown: HashMap::new(),
            unknown_uncounted: 0,
        }
    }

    async fn run(mut self, progress: &mut impl FnMut(&str, u64, u64)) -> Result<StreamVerified> {
        let stream = self.head.stream.clone();
        if let Place::WrongType(_) = self.place {
            // Whatever the key holds, none of our entries is there.
            self.result.missing = self.head.dispatched.saturating_sub(self.head.floor.n);
            self.result.foreign = 1;
            return Ok(self.result);
        }
        let there = match self.place {
            Place::At(at) => at,
            _ => Position::START,
        };
        let through = self.head.dispatched.max(there.n.min(self.head.sealed.n));
        let phantoms = self.log.phantoms(&stream).await?;
        // The log no longer knows what was purged, and old entries may still be there.
        let mut after = self.head.purged;
        let mut logged = self.read(after.n, through).await?;
        while let Some(last) = logged.last().map(|logged| logged.position) {
            let (entries, next) = tokio::try_join!(
                self.entries(after, last, logged.len()),
                self.read(last.n, through)
            )?;
            self.compare(logged, entries, &phantoms);
            progress(&stream, last.n, through);
            (after, logged) = (last, next);
        }
        // What Redis has beyond: ours if it was sealed after we began.
        let sealed = self.log.head(&stream).await?.max(after);
        for entry in self.entries(after, there.max(after), ROWS).await? {
            if entry.position > sealed
                || self.log.locate(&stream, entry.position.n).await? != Some(entry.position)
            {
                self.unknown(&entry, &phantoms);
            }
        }
        self.settle_absent().await?;
        self.settle_unknown().await?;
        Ok(self.result)
    }

    async fn read(&self, after: u64, through: u64) -> Result<Vec<Logged>> {
        self.log.read(&self.head.stream, after, through, ROWS, BYTES).await
    }

    /// All entries of Redis after `after` up to `through`, about `count` of them.
    async fn entries(
        &self,
        after: Position,
        through: Position,
        count: usize,
    ) -> Result<Vec<StreamEntry>> {
        let (mut entries, mut last) = (Vec::with_capacity(count), after);
        while last < through {
            let page = self.redis.range(&self.head.stream, last, through, count + 16).await?;
            let Some(end) = page.last().map(|entry| entry.position) else { break };
            last = end;
            entries.extend(page);
        }
        Ok(entries)
    }

    fn compare(
        &mut self,
        logged: Vec<Logged>,
        entries: Vec<StreamEntry>,
        phantoms: &HashSet<String>,
    ) {
        let mut entries = entries.into_iter().peekable();
        for logged in logged {
            while let Some(before) = entries.next_if(|e| e.position < logged.position) {
                self.unknown(&before, phantoms);
            }
            self.result.checked += 1;
            match entries.next_if(|e| e.position == logged.position) {
                Some(entry) => self.result.altered += u64::from(!same(&logged, &entry)),
                None => self.absent(&logged),
            }
        }
        for beyond in entries {
            self.unknown(&beyond, phantoms);
        }
    }

    fn absent(&mut self, logged: &Logged) {
        let Some(entry) = &logged.entry else { return };
        if logged.position.n <= self.head.floor.n {
            self.result.trimmed += 1;
            return;
        }
        if logged.position.n > self.head.dispatched {
            return;
        }
        if self.absent.len() < REMEMBERED {
            self.absent.push((logged.position, entry.event_id));
        } else {
            self.absent_unlisted += 1;
        }
    }

    /// Of what is absent, that is missing which somebody still needs: groups have gone on meanwhile, so
    /// they are asked now.
    async fn settle_absent(&mut self) -> Result<()> {
        self.result.missing = self.absent_unlisted;
        if self.absent.is_empty() {
            return Ok(());
        }
        let view = self.redis.view(&self.head.stream).await?;
        let floor = self.log.saved_groups(&self.head.stream).await?.floor.n;
        for (position, event) in std::mem::take(&mut self.absent) {
            let acknowledged = |group: &Group| group.acknowledged(position) == Some(true);
            let is_needless = position.n <= floor
                || !view.groups.is_empty() && view.groups.iter().all(acknowledged);
            if is_needless {
                self.result.trimmed += 1;
            } else {
                self.result.missing += 1;
                self.missing.insert(event);
            }
        }
        Ok(())
    }

    fn unknown(&mut self, entry: &StreamEntry, phantoms: &HashSet<String>) {
        if phantoms.contains(&entry.position.to_string()) {
            return;
        }
        let event = entry.field("id").and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
        match event {
            Some(event) if self.unknown.len() < REMEMBERED => {
                *self.unknown.entry(event).or_default() += 1;
            }
            _ => self.unknown_uncounted += 1,
        }
    }

    /// Tells duplicates, misplaced and foreign entries apart.
    async fn settle_unknown(&mut self) -> Result<()> {
        self.result.foreign = self.unknown_uncounted;
        if self.unknown.is_empty() {
            return Ok(());
        }
        let events: Vec<Uuid> = self.unknown.keys().copied().collect();
        let ours: HashSet<Uuid> =
            self.log.with_rows(&self.head.stream, &events).await?.into_iter().collect();
        for (event, count) in &self.unknown {
            if self.missing.contains(event) {
                self.result.out_of_order += count;
                self.result.missing -= 1;
            } else if ours.contains(event) {
                self.result.duplicate += count;
            } else {
                self.result.foreign += count;
            }
        }
        Ok(())
    }
}

/// The entry in Redis is what the row says, to the byte. A row that is no longer there cannot be
/// compared.
fn same(logged: &Logged, entry: &StreamEntry) -> bool {
    let Some(row) = &logged.entry else { return true };
    let fields = row.fields();
    fields.len() == entry.fields.len()
        && fields.iter().zip(&entry.fields).all(|((name, value), (found_name, found_value))| {
            name.as_bytes() == found_name.as_slice() && value.as_bytes() == found_value.as_slice()
        })
}
