//! What Redis loses while the shop sells: everything, or what came after a snapshot.

use std::time::{Duration, Instant, SystemTime};

use tokio::time::sleep;
use uuid::Uuid;

use super::awaited::{Awaited, needed};
use super::error::DemoError;
use super::held::{Held, of_each};
use super::journal::STREAMS;
use super::ledger::{self, Resumed};
use super::narrator::seconds;
use super::relay_process::tail;
use super::scene::Scene;
use super::snapshot::{Snapshot, pause_writes};
use super::worker;
use crate::text::{counted, grouped};

/// How long Redis stays away.
const OUTAGE: Duration = Duration::from_secs(1);
/// What was committed this long before may not have been acknowledged yet.
const UNDER_WAY: Duration = Duration::from_secs(1);
const REBUILD_LIMIT: Duration = Duration::from_secs(60);
const RESUME_LIMIT: Duration = Duration::from_secs(30);
const GROWTH_LIMIT: Duration = Duration::from_secs(60);

/// What a loss took of what was still needed, and how long it took to put it back.
pub(super) struct Loss {
    pub(super) lost: Held,
    pub(super) rebuild: Duration,
}

/// Kills Redis and starts it again empty.
pub(super) async fn lose_everything(scene: &mut Scene) -> Result<Loss, DemoError> {
    let held = kill(scene).await?;
    let all = counted(held.total(), "entry", "entries");
    let line = format_args!("Redis is killed (SIGKILL) and loses the {all} that it held:");
    scene.narrator.say_killed("Redis", line);
    let rebuild = come_back(scene, "empty", &held, &held).await?;
    Ok(Loss { lost: held, rebuild })
}

/// Kills Redis and starts it again from a snapshot that is `age` old.
pub(super) async fn lose_tail(scene: &mut Scene, age: Duration) -> Result<Loss, DemoError> {
    let snapshot = Snapshot::save(&mut scene.streams).await;
    let snapshot = snapshot.map_err(DemoError::redis("Redis cannot save a snapshot"))?;
    let total = counted(snapshot.total, "entry", "entries");
    scene.narrator.say(format_args!(
        "Redis saves a snapshot of the {total} that it holds; the shop sells on"
    ));
    scene.sell_until(Instant::now() + age).await?;
    scene.wait_for_growth(snapshot.appended(), GROWTH_LIMIT).await?;
    let held = kill(scene).await?;
    let all = grouped(held.total());
    let lost = held.clone().after(&snapshot.last);
    let count = grouped(lost.total());
    let line = format_args!(
        "Redis is killed (SIGKILL); of {all} entries it loses {count}, younger than the snapshot:"
    );
    scene.narrator.say_killed("Redis", line);
    let rebuild = come_back(scene, "from the older snapshot", &held, &lost).await?;
    Ok(Loss { lost, rebuild })
}

/// SIGKILL for Redis, and what it held at that moment.
async fn kill(scene: &mut Scene) -> Result<Held, DemoError> {
    scene.killed = SystemTime::now() - UNDER_WAY;
    // Nothing changes between the look and the kill.
    let paused = pause_writes(&scene.streams).await;
    paused.map_err(DemoError::redis("cannot pause Redis"))?;
    let held = scene.streams.held().await;
    let held = held.map_err(DemoError::redis("cannot read the streams"))?;
    scene.stage.redis.kill().map_err(DemoError::io("cannot kill Redis"))?;
    scene.ledger.note(&held).await?;
    Ok(held)
}

/// Starts Redis again after an outage and waits until all that it `held` is there again, of which it
/// has `lost` some, and until the workers have been given it; how long it took the relay.
async fn come_back(
    scene: &mut Scene,
    how: &str,
    held: &Held,
    lost: &Held,
) -> Result<Duration, DemoError> {
    scene.narrator.show(format_args!("         {}", lost.describe()));
    let committed_before = scene.shop.committed();
    sleep(OUTAGE).await;
    let away = ledger::Away { begun: scene.killed, over: SystemTime::now() };
    scene.stage.redis.start_again().map_err(DemoError::io("cannot start Redis again"))?;
    let back = Instant::now();
    let mut awaited = Awaited::new(held, &scene.shop.records()?, away);
    let meanwhile = grouped(scene.shop.committed() - committed_before);
    scene.narrator.say(format_args!(
        "Redis is back, {how}; the shop committed {meanwhile} rows while it was away"
    ));
    wait_for_entries(scene, &mut awaited).await?;
    let rebuild = back.elapsed();
    let needed = lost.total_needed().saturating_sub(awaited.moved());
    let (needed, time) = (grouped(needed), seconds(rebuild));
    scene.narrator.say(format_args!(
        "put back: the same {needed} unacknowledged entries under the same IDs, {time} after Redis came back"
    ));
    if awaited.moved() > 0 {
        let moved = grouped(awaited.moved());
        scene.narrator.say(format_args!("MOVED: {moved} entries came back under another ID"));
    }
    let resumed = wait_for_workers(scene, held, away).await?;
    tell_resumed(scene, held, &resumed);
    Ok(rebuild)
}

async fn wait_for_entries(scene: &mut Scene, awaited: &mut Awaited) -> Result<(), DemoError> {
    let begun = Instant::now();
    while !awaited.look(&mut scene.streams, &scene.ledger).await? {
        if begun.elapsed() > REBUILD_LIMIT {
            let (limit, missing) = (REBUILD_LIMIT.as_secs(), awaited.describe());
            let what = format!("Redis was not rebuilt within {limit} s: {missing} missing");
            return Err(scene.relays.error(what));
        }
        scene.look_after().await?;
    }
    Ok(())
}

/// Waits until the workers have been given again, or have done, what was `held` and not acknowledged: the
/// entries are of no use where their group is not where it was. Returns where each stream went on.
async fn wait_for_workers(
    scene: &mut Scene,
    held: &Held,
    away: ledger::Away,
) -> Result<[Resumed; STREAMS.len()], DemoError> {
    let begun = Instant::now();
    let events: Vec<Uuid> = needed(held).map(|(_, event, _)| event).collect();
    loop {
        let given = scene.ledger.given(&events, away).await?;
        let again = given.iter().filter(|(_, is_since)| *is_since).count();
        if again == events.len() {
            let resumed = scene.ledger.resumed(away.over).await?;
            // They may have ended what they had begun, and be given nothing yet.
            if resumed.iter().all(|resumed| resumed.first.is_some()) {
                return Ok(resumed);
            }
        }
        if begun.elapsed() > RESUME_LIMIT {
            let (limit, count) = (RESUME_LIMIT.as_secs(), grouped((events.len() - again) as u64));
            let what = format!(
                "the workers were not given {count} entries within {limit} s that they had not \
                 acknowledged; their log ends with\n{}",
                tail(&scene.stage.log(worker::LOG))
            );
            return Err(scene.relays.error(what));
        }
        scene.look_after().await?;
    }
}

/// Where the workers were, where they went on, and what that cost.
fn tell_resumed(scene: &Scene, held: &Held, resumed: &[Resumed; STREAMS.len()]) {
    let were = of_each(held.streams.each_ref().map(|stream| stream.delivered.n));
    let first = of_each(resumed.map(|resumed| resumed.first.unwrap_or_default()));
    let again = grouped(resumed.iter().map(|resumed| resumed.again).sum());
    let line = format!("the workers, who only called again, go on with {first}:");
    scene.narrator.say(line);
    scene.narrator.show(format_args!(
        "         they had been given up to {were}; {again} came a second time and were skipped"
    ));
}
