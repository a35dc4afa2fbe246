//! The relay that leads is killed, and its standby takes over.

use std::time::{Duration, Instant};

use super::error::DemoError;
use super::narrator::seconds;
use super::relay_log::Role;
use super::relays::LEASE;
use super::scene::Scene;

const LIMIT: Duration = Duration::from_secs(60);

/// Kills the leader; how long it took until the standby delivered. The killed one is started
/// again and stands by.
pub(super) async fn kill_leader(scene: &mut Scene) -> Result<Duration, DemoError> {
    let is_standby = |scene: &Scene, relay| scene.relays.role(relay) == Role::StandsBy;
    let leader = |scene: &Scene| scene.relays.leader().filter(|it| is_standby(scene, it.other()));
    let leader = scene.wait_for("there is no leader with a standby", LIMIT, leader).await?;
    let standby = leader.other();

    let (killed, heir) = (leader.name(), standby.name());
    scene.relays.kill(leader)?;
    let begun = Instant::now();
    let before = scene.streams.appended().await;
    let before = before.map_err(DemoError::redis("cannot read the streams"))?;
    let lease = LEASE.as_secs();
    let line =
        format!("{killed}, the leader, is killed (SIGKILL); its lease may run {lease} s more");
    scene.narrator.say_killed(killed, line);

    let heir_leads = |scene: &Scene| scene.relays.leader().filter(|leader| *leader == standby);
    scene.wait_for("the standby did not take over", LIMIT, heir_leads).await?;
    scene.wait_for_growth(before, LIMIT).await?;
    let takeover = begun.elapsed();
    scene.narrator.say(format_args!(
        "{heir} has taken over: it delivers {} after {killed} was killed",
        seconds(takeover)
    ));

    scene.relays.start(leader)?;
    let stands_by = |scene: &Scene| is_standby(scene, leader).then_some(());
    scene.wait_for("the relay that was started again does not stand by", LIMIT, stands_by).await?;
    scene.narrator.say(format_args!("{killed} is started again and stands by"));
    Ok(takeover)
}
