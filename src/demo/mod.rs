//! `outbox-relay demo`: a small shop beside two real relays, with Redis and the leader killed.
//!
//! This is an application, not a part of the relay: it writes business rows and rows of
//! `outbox.entry` in one transaction, reads the streams by the worker library, and knows nothing else
//! about the relays but their logs; they are child processes. What is true it reads from a journal
//! that the shop keeps in a file of its own.

mod awaited;
mod error;
mod farewell;
mod held;
mod interruption;
mod journal;
mod ledger;
mod losses;
mod moment;
mod narrator;
mod outcome;
mod progress;
mod quiet;
mod reconcile;
mod relay_log;
mod relay_process;
mod relays;
mod scene;
mod shop;
mod snapshot;
mod stage;
mod streams;
mod takeover;
mod worker;
mod writer;

use std::fs::File;
use std::time::{Duration, Instant};

pub use self::error::DemoError;
use self::farewell::Farewell;
use self::interruption::Interruption;
use self::narrator::{Narrator, seconds};
pub use self::outcome::DemoOutcome;
use self::outcome::Table;
use self::reconcile::Counts;
use self::scene::Scene;
use self::stage::Stage;
use crate::telemetry;
use crate::text::grouped;

const INTERRUPTED: &str = "interrupted: stopping and removing everything";

/// How old the snapshot is from which Redis begins again, at most.
const SNAPSHOT_AGE: Duration = Duration::from_secs(5);

/// How long and how fast the shop sells.
#[derive(Clone, Copy, Debug)]
pub struct DemoOptions {
    /// How long the shop sells, losses and takeover included; longer where they take longer.
    pub seconds: u64,
    /// Transactions per second, about; each writes one or two rows of `outbox.entry`.
    pub rate: u32,
    /// Whether servers and relays stay up at the end until a signal.
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
        () = interruption.wait() => {
            narrator.say(INTERRUPTED);
            // A thread cannot be stopped half-way; what it made is dropped here.
            drop(setting_up.await);
            return Err(DemoError::Interrupted);
        }
    };
    let stage = stage.map_err(|e| DemoError::failed("cannot start the servers", &e))??;
    let (mut scene, outcome) = tokio::select! {
        played = Box::pin(story(options, narrator.clone(), stage)) => played?,
        () = interruption.wait() => {
            narrator.say(INTERRUPTED);
            return Err(DemoError::Interrupted);
        }
    };
    if options.keep {
        interruption.wait().await;
        narrator.say("stopping and removing everything");
        // Whoever tried things out may have ended one; what is left is killed with the scene.
        let _ = scene.relays.terminate().await;
    }
    Ok(outcome)
}

/// The whole story on one screen. Everything it starts is stopped when the scene is dropped.
async fn story(
    options: DemoOptions,
    narrator: Narrator,
    stage: Stage,
) -> Result<(Scene, DemoOutcome), DemoError> {
    narrator.say(format_args!("{stage}"));
    let log = File::create(stage.log(worker::LOG));
    telemetry::begin_in(log.map_err(DemoError::io("cannot make the log of the workers"))?);
    let mut scene = Scene::open(options, narrator.clone(), stage).await?;
    let (opened, open) = (Instant::now(), Duration::from_secs(options.seconds));
    let time = |part: f64| opened + open.mul_f64(part);

    scene.sell_until(time(0.15)).await?;
    let first = losses::lose_everything(&mut scene).await?;
    scene.sell_until(time(0.35)).await?;
    let takeover = takeover::kill_leader(&mut scene).await?;
    scene.sell_until(time(0.6)).await?;
    let second = losses::lose_everything(&mut scene).await?;
    scene.sell_until(time(0.75)).await?;
    let age = open.mul_f64(0.15).min(SNAPSHOT_AGE);
    let tail = losses::lose_tail(&mut scene, age).await?;
    scene.sell_until(time(1.0)).await?;

    scene.shop.close().await?;
    let committed = grouped(scene.shop.committed());
    narrator.say(format_args!("the shop is closed; it has committed {committed} rows"));
    quiet::wait_for_workers(&mut scene).await?;
    quiet::wait_for_trim(&mut scene).await?;
    scene.end_progress();
    if !options.keep {
        let drained = seconds(scene.relays.terminate().await?);
        narrator
            .say(format_args!("SIGTERM: both relays exited with 0, the leader after {drained}"));
    }

    let verified = scene.verify().await?;
    let counts = scene.reconcile().await?;
    narrator.say("the shop's journal against what the workers have done, and what Redis holds:\n");
    let (rebuilds, tail_rebuild) = ([first.rebuild, second.rebuild], tail.rebuild);
    narrator.show(Table { counts: &counts, rebuilds, tail_rebuild, takeover });
    let total = counts.iter().fold(Counts::default(), |sum, counts| sum + *counts);
    let outcome = DemoOutcome::new(&total, verified);
    narrator.show(format_args!("{outcome}\n"));
    narrator.show(match options.keep {
        true => Farewell::kept(&scene, tail.lost.example()),
        false => Farewell::removed(),
    });
    Ok((scene, outcome))
}
