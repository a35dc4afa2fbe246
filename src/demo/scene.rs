//! Everything that runs in the demo, and what the story does with it.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::DemoOptions;
use super::error::DemoError;
use super::journal::{Journal, STREAMS};
use super::narrator::{Narrator, seconds};
use super::progress::{Progress, Sources};
use super::reconcile::{Counts, Processed, reconcile};
use super::relay_log::Role;
use super::relay_process::{self, run_to_end};
use super::relays::{Relays, Which};
use super::shop::{self, Shop};
use super::stage::{self, APP_ROLE, RELAY_ROLE, Stage};
use super::streams::{Absent, Streams};
use super::worker::{self, Workers};
use crate::text::grouped;

const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(30);
const DELIVERY_LIMIT: Duration = Duration::from_secs(60);
const WORKERS_LIMIT: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Everything that runs, dropped in this order.
pub(super) struct Scene {
    progress: Option<Progress>,
    pub(super) workers: Workers,
    pub(super) shop: Shop,
    pub(super) relays: Relays,
    pub(super) streams: Streams,
    pub(super) stage: Stage,
    pub(super) narrator: Narrator,
}

impl Scene {
    /// Prepares the database, starts the relay and the workers, and opens the shop.
    pub(super) async fn open(
        options: DemoOptions,
        narrator: Narrator,
        stage: Stage,
    ) -> Result<Self, DemoError> {
        migrate(&stage).await?;
        narrator.say("`outbox-relay migrate` has made the schema \"outbox\"");
        let relays = Relays::new(&stage)?;
        let journal = Journal::create(stage.journal())
            .map_err(DemoError::io("cannot create the shop's journal"))?;
        let shop = Shop::open(stage.shop_url(), journal, options.rate).await?;
        let workers = Workers::start(&stage.redis.url(), &stage.shop_url());
        let sources = Sources {
            till: shop.till(),
            tally: workers.tally(),
            streams: Streams::new(stage.redis.url()),
            relays: relays.logs(),
        };
        let progress = Some(Progress::start(narrator.clone(), sources));
        let streams = Streams::new(stage.redis.url());
        let mut scene = Self { progress, workers, shop, relays, streams, stage, narrator };
        let (writers, workers) = (shop::WRITERS, worker::NAMES.len());
        scene.narrator.say(format_args!(
            "the shop opens: {writers} writers sell, {workers} workers process what they read"
        ));
        scene.start_relays().await?;
        Ok(scene)
    }

    /// The first leads because it is alone when it starts.
    async fn start_relays(&mut self) -> Result<(), DemoError> {
        let (leader, standby) = (Which::FIRST, Which::SECOND);
        self.relays.start(leader)?;
        self.wait_for_growth(0, START_LIMIT).await?;
        self.relays.start(standby)?;
        let stands_by = |scene: &Self| (scene.relays.role(standby) == Role::StandsBy).then_some(());
        self.wait_for("the second relay does not stand by", START_LIMIT, stands_by).await?;
        let (leader, standby) = (leader.name(), standby.name());
        self.narrator.say(format_args!("{leader} leads and delivers; {standby} stands by"));
        Ok(())
    }

    /// Lets the shop sell, and watches that nothing has ended by itself.
    pub(super) async fn sell_until(&mut self, end: Instant) -> Result<(), DemoError> {
        while Instant::now() < end {
            self.look_after().await?;
        }
        Ok(())
    }

    /// A short pause, after which everything must still be running.
    pub(super) async fn look_after(&mut self) -> Result<(), DemoError> {
        sleep(LOOK_EVERY).await;
        self.shop.ensure_open()?;
        self.relays.ensure_running()
    }

    /// Waits until Redis has more than `entries`.
    pub(super) async fn wait_for_growth(
        &mut self,
        entries: u64,
        limit: Duration,
    ) -> Result<(), DemoError> {
        let deadline = Instant::now() + limit;
        while !self.streams.total().await.is_ok_and(|total| total > entries) {
            if Instant::now() > deadline {
                let what = format!("the relay delivered nothing for {} s", limit.as_secs());
                return Err(self.relays.error(what));
            }
            self.look_after().await?;
        }
        Ok(())
    }

    /// Waits until `look` finds something; `problem` says what is wrong when it never does.
    pub(super) async fn wait_for<T>(
        &mut self,
        problem: &str,
        limit: Duration,
        look: impl Fn(&Self) -> Option<T>,
    ) -> Result<T, DemoError> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(found) = look(self) {
                return Ok(found);
            }
            if Instant::now() > deadline {
                return Err(self.relays.error(format!("{problem} after {} s", limit.as_secs())));
            }
            self.look_after().await?;
        }
    }

    /// Waits until each committed event is in Redis. Says what is missing when the time is over.
    pub(super) async fn wait_for_delivery(&mut self) -> Result<(), DemoError> {
        let mut absent = Absent::new(&self.shop.records()?);
        let begun = Instant::now();
        while absent.look(&mut self.streams).await.map_or(true, |missing| missing > 0) {
            if begun.elapsed() > DELIVERY_LIMIT {
                let limit = DELIVERY_LIMIT.as_secs();
                for missing in absent.describe() {
                    self.narrator.say(format_args!("MISSING after {limit} s: {missing}"));
                }
                self.narrator.say("the logs of the relays end with");
                self.narrator.show(self.relays.log_tails());
                return Ok(());
            }
            self.look_after().await?;
        }
        let waited = seconds(begun.elapsed());
        self.narrator.say(format_args!("each of them is in Redis (found within {waited})"));
        Ok(())
    }

    /// Waits until the workers have processed what was committed, if they can.
    pub(super) async fn wait_for_workers(&mut self) {
        let tally = self.workers.tally();
        let committed = self.shop.committed();
        drop(tally.take_problem());
        let begun = Instant::now();
        while tally.processed() < committed && begun.elapsed() < WORKERS_LIMIT {
            sleep(LOOK_EVERY).await;
        }
        let processed = grouped(tally.processed());
        self.narrator.say(format_args!("the workers have processed {processed} events"));
        if let Some(problem) = tally.take_problem().filter(|_| tally.processed() < committed) {
            self.narrator.say(format_args!("the last problem of a worker was: {problem}"));
        }
    }

    /// Nothing changes any more that would be worth a look.
    pub(super) fn end_progress(&mut self) {
        self.progress = None;
    }

    /// The counts of each stream, and how many entries the workers skipped.
    pub(super) async fn reconcile(&mut self) -> Result<([Counts; STREAMS.len()], u64), DemoError> {
        let records = self.shop.records()?;
        let mut entries = STREAMS.map(|_| Vec::new());
        for (entries, stream) in entries.iter_mut().zip(STREAMS) {
            let read = self.streams.entries(stream, "0-0").await;
            *entries = read.map_err(DemoError::redis(format!("cannot read stream {stream}")))?;
        }
        let processed: Processed = self.shop.processed().await?;
        let seen_again = self.workers.tally().seen_again();
        Ok((reconcile(&records, &entries, &processed), seen_again))
    }

    /// Runs `outbox-relay verify` and shows its last line; whether it exited with 0.
    pub(super) async fn verify(&self) -> Result<bool, DemoError> {
        let (database_url, redis_url) = (self.stage.relay_url(), self.stage.redis.url());
        let settings = [("DATABASE_URL", &*database_url), ("REDIS_URL", &*redis_url)];
        let log = self.stage.log("verify");
        let ended = run_to_end(&["verify"], &settings, &log, COMMAND_LIMIT).await?;
        let line = ended.last_line;
        self.narrator.say(format_args!("`outbox-relay verify` says: {line}"));
        if !ended.status.success() {
            self.narrator.say(format_args!("`outbox-relay verify` failed ({})", ended.status));
            self.narrator.show(relay_process::tail(&log));
        }
        Ok(ended.status.success())
    }
}

/// Makes both roles and runs `outbox-relay migrate`.
async fn migrate(stage: &Stage) -> Result<(), DemoError> {
    let roles = format!(
        "create role {APP_ROLE} login; create role {RELAY_ROLE} login; \
         grant create on database {} to {APP_ROLE}",
        stage::DATABASE
    );
    let owner = shop::connect(&stage.owner_url()).await?;
    let made = owner.batch_execute(&roles).await;
    made.map_err(DemoError::postgres("cannot create the roles of the shop and the relay"))?;
    let log = stage.log("migrate");
    let url = stage.owner_url();
    let [app, relay] =
        [["--app-role", APP_ROLE], ["--relay-role", RELAY_ROLE]].map(|r| r.join("="));
    let arguments = ["migrate", "--database-url", &url, &app, &relay];
    let ended = run_to_end(&arguments, &[], &log, COMMAND_LIMIT).await?;
    if ended.status.success() {
        return Ok(());
    }
    Err(DemoError::Relay {
        what: format!("`outbox-relay migrate` failed ({})", ended.status),
        log: relay_process::tail(&log),
    })
}
