//! The end of the day: the shop is closed, and the workers do what is left.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::error::DemoError;
use super::held::of_each;
use super::journal::{Fate, Record};
use super::narrator::seconds;
use super::relay_process::tail;
use super::scene::Scene;
use super::worker;
use crate::text::{counted, grouped};

const WORKERS_LIMIT: Duration = Duration::from_secs(60);
const TRIM_LIMIT: Duration = Duration::from_secs(15);

/// Waits until the workers have processed all that was committed and have nothing left to acknowledge;
/// says what is missing when the time is over. What they do then still counts.
pub(super) async fn wait_for_workers(scene: &mut Scene) -> Result<(), DemoError> {
    let committed = scene.shop.committed();
    let begun = Instant::now();
    loop {
        let processed = scene.ledger.processed().await?;
        let held = scene.streams.held().await;
        if processed >= committed && held.as_ref().is_ok_and(|held| held.total_needed() == 0) {
            let (events, waited) = (grouped(processed), seconds(begun.elapsed()));
            scene
                .narrator
                .say(format_args!("the workers are done with {events} events after {waited}"));
            return Ok(());
        }
        if begun.elapsed() > WORKERS_LIMIT {
            let needed = held.map_or_else(|e| e.to_string(), |held| of_each(held.needed()));
            return complain(scene, &needed).await;
        }
        scene.look_after().await?;
    }
}

/// What is missing after [`WORKERS_LIMIT`].
async fn complain(scene: &mut Scene, needed: &str) -> Result<(), DemoError> {
    let limit = WORKERS_LIMIT.as_secs();
    let processed = scene.ledger.book().await?.processed;
    let processed: HashSet<Uuid> = processed.iter().map(|processed| processed.event_id).collect();
    let is_missing =
        |record: &Record| record.fate == Fate::Committed && !processed.contains(&record.event.id);
    let records = scene.shop.records()?;
    let missing: Vec<&Record> = records.iter().filter(|record| is_missing(record)).collect();
    if let Some(Record { event, .. }) = missing.first() {
        let events = counted(missing.len() as u64, "event is", "events are");
        let (id, stream) = (event.id, event.stream);
        scene.narrator.say(format_args!(
            "MISSING after {limit} s: {events} not processed, such as {id} of {stream}"
        ));
    }
    scene.narrator.say(format_args!("in Redis and not acknowledged after {limit} s: {needed}"));
    scene.narrator.say("the log of the workers ends with");
    scene.narrator.show(tail(&scene.stage.log(worker::LOG)));
    scene.narrator.say("the logs of the relays end with");
    scene.narrator.show(scene.relays.log_tails());
    Ok(())
}

/// Waits until the relay has trimmed what the workers have acknowledged, if it does.
pub(super) async fn wait_for_trim(scene: &mut Scene) -> Result<(), DemoError> {
    let begun = Instant::now();
    let mut left = scene.streams.total().await;
    while !matches!(left, Ok(0)) && begun.elapsed() < TRIM_LIMIT {
        scene.look_after().await?;
        left = scene.streams.total().await;
    }
    let left = left.map_err(DemoError::redis("cannot read the streams"))?;
    let (left, waited) = (counted(left, "entry", "entries"), seconds(begun.elapsed()));
    scene.narrator.say(format_args!(
        "Redis holds {left} {waited} later: what every group has acknowledged is trimmed"
    ));
    Ok(())
}
