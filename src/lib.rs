//! outbox-relay carries committed rows of a PostgreSQL table into Redis streams, and puts back
//! exactly what Redis loses.
//!
//! # How it works
//!
//! A stream is a materialised view of a log kept in Postgres. Committed rows of `outbox.entry` are
//! *found*, *sealed* (each gets its number in its stream, for good), *appended* to Redis if and only
//! if the stream is where we think it is, and *marked*.
//!
//! ```text
//!   application               relay                                    Redis
//!   ───────────     ──────────────────────────────────     ─────────────────────────────
//!   outbox.entry ──▶ find ──▶ seal ──▶ append ───────────▶ is the stream at R? then XADD …
//!                              │  ▲       │ ▲                      │
//!   outbox.batch ◀─────────────┘  └─mark──┘ └──── no: it is at R' ─┘
//!        └────── replay what follows R' ──────────▶
//! ```
//!
//! Then a crash, a retry, a zombie, a lost reply, FLUSHALL and a failover are one case: *the stream
//! is at R; append what follows R*. There is no other recovery.
//!
//! # Layout
//!
//! Data flows one way, and the folders show it:
//!
//! | room | what is in it |
//! |---|---|
//! | [`outbox`] | the Postgres end: search, log, lease, wake-ups, schema |
//! | [`relay`] | decides: the order of the stages, and what to do where the two ends differ |
//! | [`stream`] | the Redis end: conditional appends, positions, reading back |
//! | [`worker`] | the other half: applications read streams, and do each event's work once |
//! | [`coordination`] | for workers: locks, rate limits, once markers |
//! | [`entry`], [`position`], [`batch`], [`group`] | the values that travel |
//! | [`review`] | what Redis holds beside the relay's streams, judged by a team's own rules |
//! | [`cli`], [`config`], [`setting`], [`text`] | commands, settings, one value of them, words for people |
//! | [`telemetry`] | logs, metrics, health |
//! | [`secret`], [`tls`] | URLs with passwords, certificates: read from their files at each connection |
//! | [`retry`], [`error`], [`failpoint`] | waits, errors, named steps at which a test build dies |
//! | [`demo`], [`sandbox`] | a shop beside a real relay; private servers for it, tests and benches |
//!
//! SQL is in `sql/`: `migrations/` (the schema), `queries/` (one file per statement), `schema.sql`
//! (generated, compared by a test). Lua is beside its caller in `src/stream/` and `src/coordination/`.
//! Begin to read at `relay/session.rs`: it holds the order that carries the guarantee.
//!
//! # Invariants
//!
//! 1. Nothing is appended that is not sealed, and a seal is durable when its commit returns.
//! 2. A seal names the token of the lease and locks its row: whoever was replaced cannot seal.
//! 3. Numbers of a stream are 1, 2, 3 …, given out once; positions only grow.
//! 4. A stream is only written by scripts that check its position first. No plain XADD.
//! 5. After any error or time-out the connection is dropped and positions are read again. No command
//!    is retried as such, but the scripts of [`coordination`], which tolerate that.
//! 6. A mark is a cache of what Redis has, never a licence to delete.
//! 7. Rows of `outbox.entry` are never updated, and no row anywhere is updated once per batch but
//!    the batch's own. (`outbox.adopt()` is the one exception, by hand, in another cluster.)
//! 8. What was read from Postgres is sealed only while the connection it was read on is open.
//! 9. Memory is bounded by batches in flight; what does not fit waits in Postgres, in order.
//! 10. `outbox` and `stream` never mention each other; only `relay` and `worker` see both. Only `outbox`
//!     names tokio-postgres, only `stream` names redis (but [`demo`], which is an application), only
//!     [`retry`] names backoff.
//! 11. `position`, `entry`, `batch`, `group`, `hash`, `setting`, `text`, `outbox::cursor`,
//!     `stream::{slot, topology}`, `worker::queue`, `review::{rules, file, judge, finding, tally}` and
//!     `relay::{decide, plan, pace, partition, primary, progress, rota}` do no I/O, read no clock and log
//!     nothing.
//! 12. A worker acknowledges an entry only behind the commit of its work and of the note that it is done.
//! 13. There is no `unsafe`, no global state but the log's subscriber, no SQL glued from values.

pub mod batch;
pub mod cli;
pub mod config;
pub mod coordination;
pub mod demo;
pub mod entry;
pub mod error;
pub mod failpoint;
pub mod group;
pub mod hash;
pub mod outbox;
pub mod position;
pub mod relay;
pub mod retry;
pub mod review;
pub mod sandbox;
pub mod secret;
pub mod setting;
pub mod stream;
pub mod telemetry;
pub mod text;
pub mod tls;
pub mod worker;
