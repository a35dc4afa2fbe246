//! One run: traffic and faults as scheduled, then everything is healed and has to come to rest.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::kind::Kind;
use super::moment::now;
use super::oracle::Verdict;
use super::schedule::{Planned, Schedule};
use super::stage::Stage;
use crate::support::pause;

/// Everything has come to rest within this, once all is healed.
const REST: Duration = Duration::from_secs(30);

/// What came of a run.
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) injected: BTreeMap<Kind, u64>,
    pub(crate) took: Duration,
    pub(crate) looks: u64,
    /// Time until all was at rest.
    pub(crate) rested: Duration,
    /// Logs of relays, where something is broken.
    pub(crate) logs: Vec<String>,
}

pub(crate) async fn run(schedule: &Schedule) -> Outcome {
    let begun = Instant::now();
    let mut stage = Stage::new(schedule).await;
    disturb(&mut stage).await;
    heal_all(&mut stage).await;
    let healed = Instant::now();
    let mut verdict = Verdict::default();
    match rest(&mut stage).await {
        Ok(()) => {
            stage.watcher.stop().await;
            stage.measure();
            verdict.judge(&stage).await;
            if verdict.broken.is_empty() && !stage.command(&["verify"]) {
                verdict.broken(4, "`outbox-relay verify` sees a difference that nobody else sees");
            }
        }
        Err(sentence) => {
            verdict.broken.push(sentence);
            verdict.prefix(&stage);
            // A prefix that was broken is why nothing came to rest.
            verdict.broken.sort_by_key(|sentence| sentence.starts_with("I9"));
        }
    }
    let rested = healed.elapsed();
    let looks = stage.watcher.seen.lock().unwrap().looks;
    let injected = stage.injected.clone();
    let logs = if verdict.broken.is_empty() { Vec::new() } else { stage.logs() };
    if !verdict.broken.is_empty() {
        println!("losses:");
        stage.losses.iter().for_each(|loss| println!("  {}", told(loss)));
    }
    Outcome { verdict, injected, took: begun.elapsed(), looks, rested, logs }
}

fn told(loss: &super::losses::Loss) -> String {
    let known = loss.known.as_ref().map(|known| (known.marked, known.floor));
    format!(
        "{} {} of {}: had {}, has {}, floor {}, marked and floor in Postgres {known:?}",
        time(loss.began),
        loss.kind,
        loss.stream,
        loss.had,
        loss.has,
        loss.floor
    )
}

fn time(at: super::moment::Micros) -> String {
    jiff::Timestamp::from_microsecond(at).map(|at| at.to_string()).unwrap_or_default()
}

/// Injects and heals in the order of times; ends early once it is seen that something is broken.
async fn disturb(stage: &mut Stage) {
    let begun = Instant::now();
    let mut due: BTreeMap<(u64, usize), (Planned, bool)> = BTreeMap::new();
    for (place, fault) in stage.schedule.faults.iter().enumerate() {
        due.insert((fault.at, 2 * place), (*fault, false));
        due.insert((fault.at + fault.lasts, 2 * place + 1), (*fault, true));
    }
    for ((at, _), (fault, heals)) in due {
        // The moment is what is scheduled; nothing is waited for.
        let at = begun + Duration::from_millis(at);
        tokio::time::sleep_until(at.into()).await;
        match heals {
            true => stage.heal(fault).await,
            false => stage.inject(fault).await,
        }
        if stage.watcher.is_broken() {
            return;
        }
    }
    let end = begun + Duration::from_millis(stage.schedule.settings.length);
    tokio::time::sleep_until(end.into()).await;
}

async fn heal_all(stage: &mut Stage) {
    for proxy in [&stage.front, &stage.back] {
        proxy.set_delay(Duration::ZERO);
        proxy.set_jitter(Duration::ZERO);
        proxy.release();
        proxy.swallow_replies(false);
        proxy.refuse(false);
        proxy.black_hole(false);
        proxy.forget_cut();
    }
    if let Err(error) = stage.let_write().await {
        println!("Redis cannot be healed: {error}");
    }
    for slot in 0..stage.relays.len() {
        if stage.relays[slot].as_mut().is_none_or(|relay| !relay.is_running()) {
            stage.replace(slot);
        }
    }
    stage.consumers.hurry();
    for stream in stage.paused.clone() {
        stage.resume(&stream);
    }
    for stream in stage.trimmed.clone() {
        stage.rebuild(&stream);
    }
    stage.desk.close();
    for visitor in std::mem::take(&mut stage.visitors) {
        visitor.await.unwrap();
    }
}

/// I9: waits until all that was committed is in Redis and every group has been given all of it.
async fn rest(stage: &mut Stage) -> Result<(), String> {
    let begun = Instant::now();
    let mut skipped = 0;
    loop {
        if stage.watcher.is_broken() {
            return Err("I9 broken: the run was ended early".to_owned());
        }
        let waiting = match unsettled(stage).await {
            Some(waiting) => waiting,
            None => match unread(stage).await {
                Some(unread) if unread.at_rest => {
                    skipped += 1;
                    if skipped > 3 {
                        return Err(format!("I7 broken: {}", unread.sentence));
                    }
                    unread.sentence
                }
                Some(unread) => unread.sentence,
                None => return Ok(()),
            },
        };
        if begun.elapsed() > REST {
            return Err(format!("I9 broken: not at rest {REST:?} after all was healed: {waiting}"));
        }
        revive(stage).await;
        pause().await;
    }
}

/// Somebody looks after what has ended, and after what came back although it was destroyed.
async fn revive(stage: &mut Stage) {
    for slot in 0..stage.relays.len() {
        if stage.relays[slot].as_mut().is_none_or(|relay| !relay.is_running()) {
            println!("relay {slot} had ended");
            stage.replace(slot);
        }
    }
    for (group, stream) in stage.destroyed.clone().into_keys() {
        let _ = stage.ask::<u64>(&["XGROUP", "DESTROY", &stage.key(&stream), &group]).await;
    }
}

/// What is not in Redis and marked yet.
async fn unsettled(stage: &Stage) -> Option<String> {
    let client = stage.world.owner().await;
    let sql = "select (select count(*) from outbox.pending) as pending, \
               (select count(*) from outbox.batch where dispatched_at is null) as undispatched, \
               coalesce((select string_agg(name || ' ' || state || ' ' || coalesce(reason, ''), '; ') \
                         from outbox.stream where state <> 'active' or groups_lost), '') as states";
    let row = client.query_one(sql, &[]).await.ok()?;
    let (pending, undispatched): (i64, i64) = (row.get(0), row.get(1));
    let states: String = row.get(2);
    let settled = pending == 0 && undispatched == 0 && states.is_empty();
    (!settled).then(|| {
        format!("{pending} rows are not sealed, {undispatched} batches not marked; {states}")
    })
}

struct Unread {
    sentence: String,
    /// The group says that it has been given all and has acknowledged it.
    at_rest: bool,
}

/// A group that has not been given all, or has not acknowledged it. One that is at rest by its own account
/// has skipped something: entries that it was given, and lost before it was done, must come again.
async fn unread(stage: &Stage) -> Option<Unread> {
    let at = now();
    let mut found = None;
    for stream in &stage.streams {
        let last = stage.watcher.sealed(stream);
        for group in &stage.groups {
            if stage.destroyed.contains_key(&(group.clone(), stream.clone())) {
                continue;
            }
            let missing = stage.missing(group, stream, last);
            let state = stage.world.group(&stage.key(stream), group).await;
            let pending = state.as_ref().map_or(1, |state| state.pending.len());
            let delivered = state.as_ref().map_or("nowhere", |state| &state.delivered);
            if missing.is_none() && pending == 0 {
                continue;
            }
            let at_rest =
                missing.is_some() && delivered.ends_with(&format!("-{last}")) && pending == 0;
            let sentence = format!(
                "group {group} of stream {stream} is at {delivered} with {pending} pending, of {last} \
                 entries it never had {missing:?} done ({at})"
            );
            found = Some(Unread { sentence, at_rest });
            if at_rest {
                return found;
            }
        }
    }
    found
}
