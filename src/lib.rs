//! outbox-relay
pub mod batch;
pub mod cli;
pub mod config;
pub mod demo;
pub mod entry;
pub mod error;
pub mod failpoint;
pub mod outbox;
pub mod position;
pub mod relay;
pub mod retry;
pub mod sandbox;
pub mod stream;
pub mod telemetry;
