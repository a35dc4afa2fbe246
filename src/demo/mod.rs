//! `outbox-relay demo`: a small shop beside a real relay, with Redis killed in the middle.
//!
//! This is an application, not a part of the relay: it writes business rows and rows of
//! `outbox.entry` in one transaction, reads the streams with XREADGROUP, and knows nothing else
//! about the relay, which it runs as a child process. What is true it reads from a journal that
//! the shop keeps in a file of its own.

mod error;
mod interruption;
mod journal;
mod losses;
mod narrator;
mod outcome;
mod progress;
mod reconcile;
mod relay_process;
mod scene;
mod shop;
mod stage;
mod streams;
mod worker;
mod writer;

use std::time::{Duration, Instant};

pub use self::error::DemoError;
use self::interruption::Interruption;
use self::narrator::{Narrator, grouped, seconds};
pub use self::outcome::DemoOutcome;
use self::outcome::Table;
use self::reconcile::Counts;
use self::scene::Scene;
use self::stage::Stage;

const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// How long and how fast the shop sells.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// How long the shop sells, both losses included; the whole takes a few seconds more.
    pub seconds: u64,
    /// Transactions per second, about; each writes one or two rows of `outbox.entry`.
    pub rate: u32,
    /// Whether the servers stay up at the end until a signal.
    pub keep: bool,
}

impl Default for DemoOptions {
    fn default() -> Self {
        Self { seconds: 20, rate: 200, keep: false }
    }
}

/// Plays the demo and tells about it on standard output.
///
/// # Errors
/// When a server or a command of the relay cannot be started or fails, or after a signal.
/// Whatever happens, nothing is left running and no file is left behind.
pub async fn run(options: DemoOptions) -> Result<DemoOutcome, DemoError> {
    let mut interruption = Interruption::listen()?;
    let narrator = Narrator::start();
    narrator.say("starting a private PostgreSQL and a private Redis");
    let mut setting_up = tokio::task::spawn_blocking(Stage::set_up);
    let stage = tokio::select! {
        stage = &mut setting_up => stage,
        () = interruption.wait(narrator) => {
            // A thread cannot be stopped half-way; what it made is dropped here.
            drop(setting_up.await);
            return Err(DemoError::Interrupted);
        }
    };
    let stage = stage.map_err(|e| DemoError::failed("cannot start the servers", &e))??;
    tokio::select! {
        outcome = Box::pin(story(options, narrator, stage)) => outcome,
        () = interruption.wait(narrator) => Err(DemoError::Interrupted),
    }
}

/// The whole story on one screen. Everything it starts is stopped when it is dropped.
async fn story(
    options: DemoOptions,
    narrator: Narrator,
    stage: Stage,
) -> Result<DemoOutcome, DemoError> {
    narrator.say(format_args!("{stage}"));
    let mut scene = Scene::open(options, narrator, stage).await?;
    let opened = Instant::now();
    let time = |part: f64| opened + Duration::from_secs(options.seconds).mul_f64(part);

    scene.sell_until(time(0.3)).await?;
    let rebuild = losses::lose_redis(&mut scene).await?;
    scene.sell_until(time(0.65)).await?;
    let takeover = losses::lose_relay(&mut scene).await?;
    scene.sell_until(time(1.0)).await?;

    scene.shop.close().await?;
    let committed = grouped(scene.shop.committed());
    narrator.say(format_args!("the shop is closed; it has committed {committed} rows"));
    scene.wait_for_delivery().await?;
    scene.wait_for_workers().await;
    let drained = scene.relay.terminate(DRAIN_LIMIT).await?;
    narrator.say(format_args!("SIGTERM: the relay exited with 0 after {}", seconds(drained)));

    let (counts, seen_again) = scene.reconcile().await?;
    narrator.say("the shop's journal against XRANGE of both streams:\n");
    narrator.show(Table { counts: &counts, seen_again, rebuild, takeover });
    let verified = scene.verify().await?;
    let total = counts.iter().fold(Counts::default(), |sum, counts| sum + *counts);
    let outcome = DemoOutcome::new(&total, verified);
    narrator.say(outcome);
    Ok(outcome)
}
