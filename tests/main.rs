//! Tests on real servers: private Postgres and Redis, and the real program.
//!
//! Every run ends with the same check (`support::journal`): the streams equal the log, entry by
//! entry and byte by byte, and the log equals what the writers themselves noted down.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]
#![allow(clippy::print_stdout, reason = "a seed is printed so that a run can be repeated")]
#![allow(missing_docs, reason = "tests are named for what they show")]

mod cluster;
mod coordination;
mod copies;
mod crash;
mod delivery;
mod demo;
mod doctor;
mod drill;
mod durability;
mod failures;
mod fuzz;
mod groups;
mod growth;
mod input;
mod leader;
mod limits;
mod metrics;
mod migrate;
mod mutants;
mod network;
mod nights;
mod operate;
mod partitions;
mod pooler;
mod postgres_faults;
mod postgres_standby;
mod purge;
mod readme;
mod redis_errors;
mod redis_lives;
mod redis_loss;
mod replay;
mod resources;
mod review;
mod sentinel;
mod support;
mod swarm;
mod tidy;
mod tls;
mod wake;
mod worker;
