//! Locks, rate limits and once markers in Redis, for workers: each expires, and none has to be right for a
//! record to be right.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use outbox_relay::coordination::{Allowance, Coordination, Expiry};
//!
//! # async fn work(database: &tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
//! let coordination = Coordination::from_url("redis://localhost:6379/0")?;
//!
//! // lock:order:42:receipt, held by one worker at a time, renewed while it works
//! let lock = coordination.lock("order:42:receipt", Expiry::seconds(10)?)?;
//! if let Some(held) = lock.acquire_within(Duration::from_secs(5)).await? {
//!     let done = held.while_held(async {
//!         let claim = "update orders set fence = $2 where id = $1 and fence < $2 returning status";
//!         let Some(row) = database.query_opt(claim, &[&42_i64, &held.fence()]).await? else {
//!             return Ok(0); // somebody has held the lock after us
//!         };
//!         let status: String = row.get(0); // whoever writes from here on is noticed
//!         let write = "update orders set status = $3 where id = $1 and fence = $2";
//!         database.execute(write, &[&42_i64, &held.fence(), &format!("{status}, receipt sent")]).await
//!     });
//!     let _rows = done.await??; // 0: not ours any more, nothing was written
//!     held.release().await?;
//! }
//!
//! // rate_limit:user:456, at most 100 in any minute
//! let limit = coordination.rate_limit("user:456", 100, Expiry::seconds(60)?)?;
//! if let Allowance::Denied { retry_after } = limit.allow().await? {
//!     println!("try again in {retry_after:?}");
//! }
//!
//! // once:webhook:evt_9, seen before?
//! let mut once = coordination.once("webhook:evt_9", Expiry::seconds(86_400)?)?;
//! if once.first().await? {
//!     // handle it; after a failure, once.forget().await? lets it be tried again
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # A lock is not enough
//!
//! A lock in Redis keeps workers out of each other's way. It cannot keep a record right: a worker may stand
//! still for longer than its lock holds and then write, and Redis may lose a lock that is held, by
//! FLUSHALL, a restart without persistence, a failover to a replica that has not heard of it, or an
//! eviction. Then two workers hold it, and both believe so. What keeps the record right is the fencing
//! number, which Postgres compares:
//!
//! ```sql
//! alter table orders add column fence bigint not null default 0;
//! -- what is written does not depend on what was there before:
//! update orders set status = 'sent', fence = $2 where id = $1 and fence < $2;
//! -- what is written was worked out from what was read: claim the record, then read it, work, and write
//! update orders set fence = $2 where id = $1 and fence < $2 returning …;
//! update orders set status = … where id = $1 and fence = $2;
//! ```
//!
//! No row means that somebody else was there who holds the lock later, and that nothing was written: stop.
//! But by `fence < $2` the same holder's second write hits no row either, nor does its retry of one whose
//! answer was lost. Where it may write the same again, the first form takes `fence <= $2`. A claim keeps `<`:
//! who tries it again without a row first reads whether `fence` is its own number by then.
//! For several records, write them in the transaction of that update. The first form alone is not enough
//! for what was read before: a late worker could still write between somebody's read and write, and its
//! change would be lost. A claim, once made, is noticed by everybody who made one before.
//!
//! # What is promised, and what is not
//!
//! - A claimed record is only written by whoever claimed it last, whatever Redis, the network and the
//!   clocks do: the second form asks nothing of the numbers but that they let a later holder in.
//! - Fencing numbers of a lock grow, also when Redis has lost it in between. Not if it was lost and the
//!   clock of the Redis that comes after is behind by more than the time that has passed since: until that
//!   clock has caught up, new holders are refused by Postgres where an earlier one has written, and with
//!   the first form one that comes late is not refused where it has not.
//! - While Redis keeps what it has and its clock does not jump, one worker at a time holds a lock.
//! - A loss of a lock is told to its holder ([`Held::lost`], [`Held::while_held`]): with the next renewal,
//!   a third of the expiry, or, where Redis does not answer, before the expiry is over. By the clock of the
//!   holder's machine, which may stand still while that machine is suspended. In a split brain, where the old
//!   primary is cut off together with the holder and goes on answering it, not before the partition heals:
//!   `min-replicas-to-write 1` makes such a primary, from Redis 7 on, refuse renewals after its
//!   `min-replicas-max-lag`, and then the loss is told.
//! - Who cannot take or keep a lock waits, or is refused. If an answer is lost on the way, a lock may be
//!   nobody's until it expires.
//! - A rate limit is never exceeded while Redis keeps it and its clock does not jump. It counts from nothing
//!   when Redis loses it, and forgets what a clock that was ahead by more than its time had counted.
//! - A once marker that is lost is a second first: it is a filter. What must happen once is noted in
//!   Postgres, in the transaction of its effect.
//!
//! # In Redis
//!
//! | key | what it is |
//! |---|---|
//! | `<prefix>lock:<name>` | a hash: `token`, `holder` and `until` while somebody holds it; `fence` |
//! | `<prefix>rate_limit:<name>` | a hash: how many in which tenth of the time; gone when none counts |
//! | `<prefix>once:<name>` | a string: token and holder of who was first |
//!
//! A lock's key stays for a minute after the lock has ended: its number is remembered for the sake of a
//! clock that goes back. Nothing else is written, each script has one key, and every key expires. To take a
//! lock from somebody by hand, `DEL` it: the holder is told with its next renewal. Redis 6.2 or later, or
//! Valkey; alone, behind sentinels, or as a cluster, as [`Server::new`] reads URLs. Where memory is short,
//! a `maxmemory-policy` that begins with `volatile-` may evict locks, as a loss; with `noeviction` locks that
//! are held are kept, and none is taken.

mod expiry;
mod held;
mod key;
mod link;
mod lock;
mod once;
mod rate_limit;

use std::sync::Arc;
use std::time::Duration;

pub use expiry::Expiry;
pub use held::{Held, Lost};
pub use lock::Lock;
pub use once::OnceMarker;
pub use rate_limit::{Allowance, RateLimit};

use crate::error::{Error, Kind, Result};
use crate::stream::Server;
use crate::text::line;

/// A Redis that does not answer is asked again for so long.
const PATIENCE: Duration = Duration::from_secs(5);
/// Characters of the name of a holder.
const LONGEST_HOLDER: usize = 200;

/// Makes locks, rate limits and once markers that share connections to one Redis. Clones share them too. It
/// connects when it is first needed, and anew whenever that is lost. Needs a tokio runtime.
#[derive(Clone)]
pub struct Coordination {
    link: Arc<link::Link>,
    holder: Arc<str>,
    patience: Duration,
}

impl Coordination {
    /// In this Redis, below the prefix that `server` has.
    pub fn new(server: Server) -> Self {
        let system = rustix::system::uname();
        let host = system.nodename().to_string_lossy();
        let holder = line(&format!("{host}/{}", std::process::id()), LONGEST_HOLDER).into();
        Self { link: link::Link::new(server), holder, patience: PATIENCE }
    }

    /// In the Redis that a URL like `redis://user:password@host:6379/0` names, without a prefix.
    ///
    /// # Errors
    /// `Usage` if it cannot be read, as [`Server::new`].
    pub fn from_url(url: &str) -> Result<Self> {
        Ok(Self::new(Server::from_url(url, "")?))
    }

    /// Adds to the name under which it holds locks, host and process: what the process does. For people, who
    /// see it in Redis and in what is said of a lost lock.
    #[must_use]
    pub fn named(self, what: &str) -> Self {
        let holder = line(&format!("{}/{what}", self.holder), LONGEST_HOLDER).into();
        Self { holder, ..self }
    }

    /// Asks a Redis that does not answer again for so long at most, 5 s unless this says so, before the call
    /// is an error.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The lock `lock:<name>`, which expires after `expiry` unless it is renewed.
    ///
    /// # Errors
    /// `Usage` if the name is empty, longer than 256 bytes, has white space or control characters in it, or
    /// begins with `lock:`.
    pub fn lock(&self, name: &str, expiry: Expiry) -> Result<Lock> {
        let key = key::key("lock", name)?.into();
        let (link, patience, holder) = (self.link.clone(), self.patience, self.holder.clone());
        Ok(Lock { link, patience, key, holder, expiry })
    }

    /// The rate limit `rate_limit:<name>`, which lets `limit` attempts through in any time of `per`. What was
    /// let through counts for up to a tenth longer.
    ///
    /// # Errors
    /// `Usage` if the limit is 0, or the name as for a lock.
    pub fn rate_limit(&self, name: &str, limit: u32, per: Expiry) -> Result<RateLimit> {
        let key: Arc<str> = key::key("rate_limit", name)?.into();
        if limit == 0 {
            let context = format!("the limit of {key} is 0; it must be at least 1");
            return Err(Error::new(Kind::Usage, context));
        }
        Ok(RateLimit { link: self.link.clone(), patience: self.patience, key, limit, per })
    }

    /// The mark `once:<name>`, which is gone `expiry` after somebody was the first.
    ///
    /// # Errors
    /// `Usage` for a name as for a lock.
    pub fn once(&self, name: &str, expiry: Expiry) -> Result<OnceMarker> {
        let key = key::key("once", name)?.into();
        let (link, patience, holder) = (self.link.clone(), self.patience, self.holder.clone());
        Ok(OnceMarker { link, patience, key, holder, expiry, mark: None })
    }
}

impl std::fmt::Debug for Coordination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Coordination({})", self.holder)
    }
}
