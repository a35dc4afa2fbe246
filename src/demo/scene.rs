//! Everything that runs in the demo, and what the story does with it.

use std::time::{Duration, Instant, SystemTime};

use tokio::time::sleep;

use super::DemoOptions;
use super::error::DemoError;
use super::journal::{Journal, STREAMS};
use super::ledger::Ledger;
use super::narrator::Narrator;
use super::progress::{Progress, Sources};
use super::reconcile::{Counts, reconcile};
use super::relay_log::Role;
use super::relay_process::{self, run_to_end};
use super::relays::{Relays, Which};
use super::shop::{self, Shop};
use super::stage::{self, APP_ROLE, RELAY_ROLE, Stage};
use super::streams::{self, Streams};
use super::worker::{self, Workers};

const COMMAND_LIMIT: Duration = Duration::from_secs(60);
const START_LIMIT: Duration = Duration::from_secs(30);
/// Between two calamities at least: the relay stores where groups are about every second.
const REST: Duration = Duration::from_millis(1500);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Everything that runs, dropped in this order.
pub(super) struct Scene {
    progress: Option<Progress>,
    _workers: Workers,
    pub(super) shop: Shop,
    pub(super) relays: Relays,
    pub(super) streams: Streams,
    pub(super) ledger: Ledger,
    pub(super) stage: Stage,
    pub(super) narrator: Narrator,
    /// When Redis was last killed, or a little before.
    pub(super) killed: SystemTime,
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
        let ledger = Ledger::open(&stage.shop_url()).await?;
        streams::create_groups(&stage.redis.url())
            .await
            .map_err(DemoError::redis("cannot make the group of the workers"))?;
        let workers = Workers::start(&stage.redis.url(), &stage.shop_url())?;
        let sources = Sources {
            till: shop.till(),
            tally: workers.tally(),
            streams: Streams::new(stage.redis.url()),
            relays: relays.logs(),
        };
        let progress = Some(Progress::start(narrator.clone(), sources));
        let streams = Streams::new(stage.redis.url());
        let killed = SystemTime::now();
        let mut scene = Self {
            progress,
            _workers: workers,
            shop,
            relays,
            streams,
            ledger,
            stage,
            narrator,
            killed,
        };
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

    /// Lets the shop sell for a while, and watches that nothing has ended by itself.
    pub(super) async fn sell_until(&mut self, end: Instant) -> Result<(), DemoError> {
        let end = end.max(Instant::now() + REST);
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

    /// Waits until Redis has been given more than `entries`.
    pub(super) async fn wait_for_growth(
        &mut self,
        entries: u64,
        limit: Duration,
    ) -> Result<(), DemoError> {
        let deadline = Instant::now() + limit;
        while !self.streams.appended().await.is_ok_and(|appended| appended > entries) {
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

    /// Nothing changes any more that would be worth a look.
    pub(super) fn end_progress(&mut self) {
        self.progress = None;
    }

    /// The counts of each stream.
    pub(super) async fn reconcile(&mut self) -> Result<[Counts; STREAMS.len()], DemoError> {
        let left = self.streams.held().await;
        let left = left.map_err(DemoError::redis("cannot read the streams"))?;
        Ok(reconcile(&self.shop.records()?, &self.ledger.book().await?, &left))
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
    let roles = [("app", APP_ROLE), ("worker", APP_ROLE), ("relay", RELAY_ROLE)];
    let [app, worker, relay] = roles.map(|(kind, role)| format!("--{kind}-role={role}"));
    let arguments = ["migrate", "--database-url", &url, &app, &worker, &relay];
    let ended = run_to_end(&arguments, &[], &log, COMMAND_LIMIT).await?;
    if ended.status.success() {
        return Ok(());
    }
    Err(DemoError::Relay {
        what: format!("`outbox-relay migrate` failed ({})", ended.status),
        log: relay_process::tail(&log),
    })
}
