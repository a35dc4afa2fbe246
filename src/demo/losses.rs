//! What happens to the shop's servers while it sells: Redis is lost, then the relay.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::error::DemoError;
use super::journal::STREAMS;
use super::narrator::{grouped, seconds};
use super::scene::Scene;
use super::streams::Absent;

/// How long Redis stays away.
const OUTAGE: Duration = Duration::from_secs(1);
const REBUILD_LIMIT: Duration = Duration::from_secs(60);
const TAKEOVER_LIMIT: Duration = Duration::from_secs(60);

/// Kills Redis and starts it again empty; how long after that it held everything again.
pub(super) async fn lose_redis(scene: &mut Scene) -> Result<Duration, DemoError> {
    let before = scene.streams.lengths().await;
    let before = before.map_err(DemoError::redis("cannot read the streams"))?;
    let committed_before = scene.shop.committed();
    scene.stage.redis.kill().map_err(DemoError::io("cannot kill Redis"))?;
    let lost: Vec<String> = STREAMS
        .iter()
        .zip(before)
        .map(|(name, count)| format!("{} in {name}", grouped(count)))
        .collect();
    let (lost, all) = (lost.join(", "), grouped(before.iter().sum()));
    scene.narrator.say(format_args!("Redis is killed (SIGKILL): {all} entries are lost ({lost})"));
    sleep(OUTAGE).await;
    scene.stage.redis.start_again().map_err(DemoError::io("cannot start Redis again"))?;
    let back = Instant::now();
    let records = scene.shop.records()?;
    let meanwhile = grouped(scene.shop.committed() - committed_before);
    scene.narrator.say(format_args!(
        "Redis is back, empty; the shop committed {meanwhile} rows while it was away"
    ));
    let mut absent = Absent::new(&records);
    while absent.look(&mut scene.streams).await.map_or(true, |missing| missing > 0) {
        if back.elapsed() > REBUILD_LIMIT {
            let (limit, missing) = (REBUILD_LIMIT.as_secs(), absent.describe().join("; "));
            let what = format!("Redis was not rebuilt within {limit} s: {missing} missing");
            return Err(scene.relay.error(what));
        }
        scene.look_after().await?;
    }
    let rebuild = back.elapsed();
    scene.narrator.say(format_args!(
        "rebuilt: all that was committed by then is in Redis again, {} after it came back",
        seconds(rebuild)
    ));
    Ok(rebuild)
}

/// Kills the relay and starts it again at once; how long nothing was delivered.
pub(super) async fn lose_relay(scene: &mut Scene) -> Result<Duration, DemoError> {
    scene.relay.kill()?;
    let killed = Instant::now();
    let before = scene.streams.total().await;
    let before = before.map_err(DemoError::redis("cannot read the streams"))?;
    scene
        .narrator
        .say("the relay is killed (SIGKILL) and started again; its lease has up to 3 s to run");
    scene.relay.start_again()?;
    scene.wait_for_growth(before, TAKEOVER_LIMIT).await?;
    let takeover = killed.elapsed();
    scene
        .narrator
        .say(format_args!("the relay delivers again, {} after it was killed", seconds(takeover)));
    Ok(takeover)
}
