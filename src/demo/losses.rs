//! What Redis loses while the shop sells: everything, then what came after a snapshot.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::error::DemoError;
use super::journal::STREAMS;
use super::narrator::seconds;
use super::scene::Scene;
use super::snapshot::{Snapshot, Tail};
use super::streams::Absent;
use crate::text::grouped;

/// How long Redis stays away.
const OUTAGE: Duration = Duration::from_secs(1);
const REBUILD_LIMIT: Duration = Duration::from_secs(60);
const GROWTH_LIMIT: Duration = Duration::from_secs(60);

/// Kills Redis and starts it again empty; how long after that it held everything again.
pub(super) async fn lose_everything(scene: &mut Scene) -> Result<Duration, DemoError> {
    let before = scene.streams.lengths().await;
    let before = before.map_err(DemoError::redis("cannot read the streams"))?;
    scene.stage.redis.kill().map_err(DemoError::io("cannot kill Redis"))?;
    let of = |(name, count): (&str, u64)| format!("{} of {name}", grouped(count));
    let lost = STREAMS.into_iter().zip(before).map(of).collect::<Vec<_>>().join(", ");
    let all = grouped(before.iter().sum());
    let line = format_args!("Redis is killed (SIGKILL); all {all} entries are lost: {lost}");
    scene.narrator.say_killed("Redis", line);
    let rebuild = come_back(scene, "empty").await?;
    scene.narrator.say(format_args!(
        "rebuilt: all that was committed by then is in Redis again, {} after it came back",
        seconds(rebuild)
    ));
    Ok(rebuild)
}

/// What the second loss took, and how long it took to put it back.
pub(super) struct TailLoss {
    pub(super) tail: Tail,
    pub(super) rebuild: Duration,
}

/// Kills Redis and starts it again from a snapshot that is `age` old.
pub(super) async fn lose_tail(scene: &mut Scene, age: Duration) -> Result<TailLoss, DemoError> {
    let snapshot = Snapshot::save(&mut scene.streams).await;
    let snapshot = snapshot.map_err(DemoError::redis("Redis cannot save a snapshot"))?;
    let total = snapshot.total();
    scene.narrator.say(format_args!(
        "Redis saves a snapshot of its {} entries; the shop sells on",
        grouped(total)
    ));
    scene.sell_until(Instant::now() + age).await?;
    scene.wait_for_growth(total, GROWTH_LIMIT).await?;
    let tail = snapshot.last_tail(&mut scene.streams).await;
    let tail = tail.map_err(DemoError::redis("cannot read the streams"))?;
    scene.stage.redis.kill().map_err(DemoError::io("cannot kill Redis"))?;
    let (count, entries) = (grouped(tail.count()), tail.describe());
    let line = format_args!("Redis is killed (SIGKILL); it loses its last {count} entries:");
    scene.narrator.say_killed("Redis", line);
    scene.narrator.show(format_args!("         {entries}"));
    let rebuild = come_back(scene, "from the older snapshot").await?;
    let again = snapshot.tail(&mut scene.streams).await;
    let again = again.map_err(DemoError::redis("cannot read the streams"))?;
    if !tail.is_start_of(&again) {
        let what = format!("Redis lost {entries}, and other entries were put in their place");
        return Err(scene.relays.error(what));
    }
    scene.narrator.say(format_args!(
        "put back: the same {count} entries under the same IDs, {} after Redis came back",
        seconds(rebuild)
    ));
    Ok(TailLoss { tail, rebuild })
}

/// Starts Redis again after an outage; how long after that it held all that was committed by
/// then.
async fn come_back(scene: &mut Scene, how: &str) -> Result<Duration, DemoError> {
    let committed_before = scene.shop.committed();
    sleep(OUTAGE).await;
    scene.stage.redis.start_again().map_err(DemoError::io("cannot start Redis again"))?;
    let back = Instant::now();
    let records = scene.shop.records()?;
    let meanwhile = grouped(scene.shop.committed() - committed_before);
    scene.narrator.say(format_args!(
        "Redis is back, {how}; the shop committed {meanwhile} rows while it was away"
    ));
    let mut absent = Absent::new(&records);
    while absent.look(&mut scene.streams).await.map_or(true, |missing| missing > 0) {
        if back.elapsed() > REBUILD_LIMIT {
            let (limit, missing) = (REBUILD_LIMIT.as_secs(), absent.describe().join("; "));
            let what = format!("Redis was not rebuilt within {limit} s: {missing} missing");
            return Err(scene.relays.error(what));
        }
        scene.look_after().await?;
    }
    Ok(back.elapsed())
}
