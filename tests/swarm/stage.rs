//! Everything that a run stands on: both servers, the proxies before them, the relays, and what has been
//! done to them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, Redis, RedisOptions};
use tokio::task::JoinHandle;

use super::consumers::Consumers;
use super::kind::Kind;
use super::ledger::{Ledger, Row};
use super::losses::{Known, Loss};
use super::moment::{Micros, now};
use super::schedule::Schedule;
use super::watcher::{Ports, Watcher};
use super::writers::{self, Desk};
use crate::support::dice::Dice;
use crate::support::eventually;
use crate::support::journal::Fate;
use crate::support::leaves;
use crate::support::proxy::Proxy;
use crate::support::relay::Relay;
use crate::support::world::{RELAY, World, relay_in_redis};

const NAMES: [&str; 4] = ["orders", "payments", "balances", "mail"];
const GROUPS: [&str; 3] = ["billing", "search", "audit"];
/// Redis answers within this, unless a fault keeps it from it.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a stream is, and up to where all of its groups have acknowledged; then does what the arguments
/// say, command after command, in the same step.
const OBSERVE: &str = r"
    local found = {}
    for i, key in ipairs(KEYS) do
        local last, floor = '0-0', nil
        if redis.call('TYPE', key).ok == 'stream' then
            local info = redis.call('XINFO', 'STREAM', key)
            for j = 1, #info, 2 do if info[j] == 'last-generated-id' then last = info[j + 1] end end
            for _, group in ipairs(redis.call('XINFO', 'GROUPS', key)) do
                local named = {}
                for j = 1, #group, 2 do named[group[j]] = group[j + 1] end
                local at = tonumber(named['last-delivered-id']:match('%-(%d+)$'))
                local first = redis.call('XPENDING', key, named['name'])[2]
                if first then at = math.min(at, tonumber(first:match('%-(%d+)$')) - 1) end
                if not floor or at < floor then floor = at end
            end
        end
        found[i] = {tonumber(last:match('%-(%d+)$')), floor or 0}
    end
    local i = 1
    while i <= #ARGV do
        local count = tonumber(ARGV[i])
        redis.call(unpack(ARGV, i + 1, i + count))
        i = i + count + 1
    end
    return found";

/// Number of the last entry, and of the floor, by stream.
pub(crate) type Observed = BTreeMap<String, (u64, u64)>;

/// Time during which something was on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    pub(crate) kind: Kind,
    pub(crate) began: Micros,
    pub(crate) ended: Micros,
}

pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) schedule: Schedule,
    pub(crate) streams: Vec<String>,
    pub(crate) groups: Vec<String>,
    pub(crate) prefix: &'static str,
    /// Before Redis and Postgres, for relays.
    pub(crate) front: Proxy,
    pub(crate) back: Proxy,
    /// Before Redis, for consumers: without faults, and with an address that stays.
    pub(crate) side: Proxy,
    pub(crate) relays: Vec<Option<Relay>>,
    pub(crate) frozen: BTreeSet<usize>,
    /// A replica, and the link by which it follows.
    pub(crate) replica: Option<(Redis, Proxy)>,
    pub(crate) ports: Arc<Ports>,
    pub(crate) watcher: Watcher,
    pub(crate) desk: Arc<Desk>,
    pub(crate) consumers: Consumers,
    pub(crate) visitors: Vec<JoinHandle<()>>,
    pub(crate) dice: Dice,
    /// What a stream, or all of Redis, was like when it was saved.
    pub(crate) dumps: HashMap<String, (Vec<u8>, (u64, u64))>,
    pub(crate) saved: Option<Observed>,
    pub(crate) locks: Vec<tokio_postgres::Client>,
    // What was done.
    pub(crate) losses: Vec<Loss>,
    pub(crate) windows: Vec<Window>,
    /// Groups that were set back, or destroyed.
    pub(crate) rewound: HashMap<(String, String), Micros>,
    pub(crate) destroyed: HashMap<(String, String), Micros>,
    /// Times in which a stream lacks what somebody removed.
    pub(crate) tampered: Vec<(String, Micros, Micros)>,
    /// Numbers up to which somebody removed entries.
    pub(crate) removed: HashMap<String, u64>,
    pub(crate) paused: BTreeSet<String>,
    pub(crate) trimmed: BTreeSet<String>,
    pub(crate) resident: u64,
    pub(crate) injected: BTreeMap<Kind, u64>,
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Stage {
    pub(crate) async fn new(schedule: &Schedule) -> Self {
        let settings = &schedule.settings;
        let mut redis = RedisOptions { debug_command: true, ..RedisOptions::default() };
        redis = redis.with("repl-diskless-sync-delay", "0");
        if settings.aof > 0 {
            redis = redis.with("appendonly", "yes").with("appendfsync", "everysec");
        }
        let mut postgres = PostgresOptions::default();
        if settings.hasty > 0 {
            postgres = postgres.with("wal_writer_delay", "10000");
        }
        let world = World::with(postgres, redis).await;
        if settings.retention > 0 {
            leaves::make_small(&world).await;
        }
        let streams: Vec<String> =
            NAMES.iter().take(settings.streams as usize).map(|&name| name.into()).collect();
        let groups: Vec<String> =
            GROUPS.iter().take(settings.groups as usize).map(|&name| name.into()).collect();
        let prefix = if settings.prefix > 0 { "shop:" } else { "" };
        let mut dice = Dice::seeded(schedule.seed ^ 0x5eed);
        let front = Proxy::before_redis(address(world.redis.port()));
        let back = Proxy::start(address(world.postgres.port()));
        let side = Proxy::start(address(world.redis.port()));
        let ports = Arc::new(Ports {
            redis: AtomicU16::new(world.redis.port()),
            postgres: world.postgres.url(),
        });
        let ledgers = world.folder.path().join("ledgers");
        std::fs::create_dir(&ledgers).unwrap();
        let url = world.postgres.url_of("postgres", crate::support::world::APPLICATION);
        let desk = Desk::new(url, ledgers, streams.clone());
        let url = format!("redis://127.0.0.1:{}/", side.port());
        let consumers = Consumers::new(url, prefix, dice.split());
        let mut stage = Self {
            watcher: Watcher::start(ports.clone(), prefix, &streams),
            relays: (0..settings.relays).map(|_| None).collect(),
            schedule: schedule.clone(),
            frozen: BTreeSet::new(),
            replica: None,
            visitors: Vec::new(),
            dumps: HashMap::new(),
            saved: None,
            locks: Vec::new(),
            losses: Vec::new(),
            windows: Vec::new(),
            rewound: HashMap::new(),
            destroyed: HashMap::new(),
            tampered: Vec::new(),
            removed: HashMap::new(),
            paused: BTreeSet::new(),
            trimmed: BTreeSet::new(),
            resident: 0,
            injected: BTreeMap::new(),
            world,
            streams,
            groups,
            prefix,
            front,
            back,
            side,
            ports,
            desk,
            consumers,
            dice,
        };
        stage.set_up().await;
        stage
    }

    async fn set_up(&mut self) {
        for stream in self.streams.clone() {
            for group in self.groups.clone() {
                let key = self.key(&stream);
                self.ask::<()>(&["XGROUP", "CREATE", &key, &group, "0", "MKSTREAM"]).await.unwrap();
                self.consumers.seat(&group, &stream);
            }
        }
        if self.schedule.has(Kind::ReplicaPromoted) || self.schedule.has(Kind::HiddenFailover) {
            self.follow().await;
        }
        self.consumers.slow_down(self.usual_slowness());
        for relay in 0..self.relays.len() {
            self.start_relay(relay);
        }
        self.first_checkpoint().await;
        for writer in 0..self.schedule.settings.writers {
            let (name, dice) = (format!("writer-{writer}"), self.dice.split());
            self.visitors.push(self.desk.writer(&name, dice, false));
        }
        if self.schedule.settings.hasty > 0 {
            self.visitors.push(self.desk.writer("hasty", self.dice.split(), true));
        }
    }

    /// Groups come back as of their last checkpoint; there must have been one.
    async fn first_checkpoint(&mut self) {
        let mut ledger = Ledger::new(&self.ledgers(), "first");
        let client = self.world.owner().await;
        for stream in &self.streams {
            let row = Row::new(stream, 0);
            ledger.begin();
            ledger.rows(std::slice::from_ref(&row));
            ledger.issue();
            writers::insert(&client, &row).await.unwrap();
            ledger.end(Fate::Committed);
        }
        let sql = "select count(*) from outbox.floor where jsonb_array_length(groups) = $1::bigint";
        let groups = self.groups.len() as i64;
        eventually("all groups are stored", Duration::from_secs(30), || async {
            let row = client.query_one(sql, &[&groups]).await.unwrap();
            row.get::<_, i64>(0) as usize == self.streams.len()
        })
        .await;
    }

    pub(crate) fn usual_slowness(&self) -> u64 {
        self.schedule.settings.slow * 40
    }

    /// A replica that is up to date.
    async fn follow(&mut self) {
        let link = Proxy::start(address(self.world.redis.port()));
        let upstream = format!("127.0.0.1 {}", link.port());
        let options = RedisOptions { debug_command: true, ..RedisOptions::default() };
        let options = options.with("user", &relay_in_redis()).with("replicaof", &upstream);
        let replica = Redis::start(options).unwrap();
        let client = redis::Client::open(replica.url()).unwrap();
        let connection = client.get_multiplexed_async_connection().await.unwrap();
        eventually("the replica follows", Duration::from_secs(30), || async {
            let info = redis::cmd("INFO").arg("replication").to_owned();
            let info: String = info.query_async(&mut connection.clone()).await.unwrap_or_default();
            info.contains("master_link_status:up")
        })
        .await;
        self.replica = Some((replica, link));
    }

    // ---- relays ----

    pub(crate) fn start_relay(&mut self, slot: usize) {
        let settings = &self.schedule.settings;
        let database = format!("postgres://{RELAY}@127.0.0.1:{}/postgres", self.back.port());
        let redis = format!("redis://127.0.0.1:{}/", self.front.port());
        let milliseconds = |value: u64| format!("{value}ms");
        let retention = match settings.retention {
            0 => "7d".to_owned(),
            short => milliseconds(short),
        };
        let limit = if settings.limit == 0 { 1_000_000 } else { settings.limit };
        let variables = [
            ("DATABASE_URL", database),
            ("REDIS_URL", redis),
            ("OUTBOX_PREFIX", self.prefix.to_owned()),
            ("OUTBOX_BATCH_ROWS", settings.batch_rows.to_string()),
            ("OUTBOX_WAKE", if settings.wake > 0 { "on" } else { "off" }.to_owned()),
            ("OUTBOX_POLL", "100ms".to_owned()),
            ("OUTBOX_CHECKPOINT", milliseconds(settings.checkpoint)),
            ("OUTBOX_LEASE", milliseconds(settings.lease)),
            ("OUTBOX_AUDIT", milliseconds(settings.audit)),
            ("OUTBOX_RETENTION", retention),
            ("OUTBOX_STREAM_LIMIT", limit.to_string()),
            ("OUTBOX_DRAIN", "2s".to_owned()),
            ("OUTBOX_START", "1m".to_owned()),
        ];
        let variables: Vec<(&str, &str)> = variables.iter().map(|(k, v)| (*k, &**v)).collect();
        let name = format!("relay-{slot}");
        self.relays[slot] = Some(Relay::start(self.world.folder.path(), &name, &variables));
    }

    pub(crate) fn kill_relay(&mut self, slot: usize) {
        self.measure();
        self.frozen.remove(&slot);
        if let Some(mut relay) = self.relays[slot].take() {
            relay.kill();
        }
    }

    /// Notes the most memory that a relay has held.
    pub(crate) fn measure(&mut self) {
        for relay in self.relays.iter().flatten() {
            let status = std::fs::read_to_string(format!("/proc/{}/status", relay.pid()));
            let line = status.unwrap_or_default();
            let kib = line.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let kib = kib.and_then(|kib| kib.trim().trim_end_matches(" kB").parse().ok());
            self.resident = self.resident.max(kib.unwrap_or(0) * 1_024);
        }
    }

    pub(crate) fn logs(&self) -> Vec<String> {
        let log = |slot| self.world.folder.path().join(format!("relay-{slot}.log"));
        (0..self.relays.len())
            .map(|slot| std::fs::read_to_string(log(slot)).unwrap_or_default())
            .collect()
    }

    pub(crate) fn ledgers(&self) -> PathBuf {
        self.world.folder.path().join("ledgers")
    }

    // ---- Redis ----

    pub(crate) fn key(&self, stream: &str) -> String {
        format!("{}{stream}", self.prefix)
    }

    pub(crate) fn stream(&self, pick: u64) -> String {
        self.streams[pick as usize % self.streams.len()].clone()
    }

    pub(crate) async fn ask<T: redis::FromRedisValue>(&self, words: &[&str]) -> Result<T, String> {
        let mut command = redis::cmd(words[0]);
        command.arg(&words[1..]);
        self.query(command).await
    }

    pub(crate) async fn query<T>(&self, command: redis::Cmd) -> Result<T, String>
    where
        T: redis::FromRedisValue,
    {
        let asked = async {
            let config = redis::AsyncConnectionConfig::new().set_response_timeout(Some(PATIENCE));
            let client = redis::Client::open(self.world.redis.url())?;
            let mut connection =
                client.get_multiplexed_async_connection_with_config(&config).await?;
            command.query_async(&mut connection).await
        };
        asked.await.map_err(|error: redis::RedisError| error.to_string())
    }

    /// Sees where all streams are, and does something in the same step.
    pub(crate) async fn observe(&self, commands: &[&[&[u8]]]) -> Result<Observed, String> {
        // What only reads is answered also while writes have to wait.
        let mut observe = redis::cmd(if commands.is_empty() { "EVAL_RO" } else { "EVAL" });
        observe.arg(OBSERVE).arg(self.streams.len());
        for stream in &self.streams {
            observe.arg(self.key(stream));
        }
        for words in commands {
            observe.arg(words.len());
            for word in *words {
                observe.arg(*word);
            }
        }
        let found: Vec<(u64, u64)> = self.query(observe).await?;
        Ok(self.streams.iter().cloned().zip(found).collect())
    }

    /// The first number up to `last` that a group has not done, but for what it was never given because
    /// somebody had removed it.
    pub(crate) fn missing(&self, group: &str, stream: &str, last: u64) -> Option<u64> {
        let removed = self.removed.get(stream).copied().unwrap_or(0);
        self.consumers.missing(group, stream, last, removed)
    }

    pub(crate) fn moved(&self) {
        self.ports.redis.store(self.world.redis.port(), Ordering::Relaxed);
    }

    // ---- Postgres ----

    /// What Postgres knows of all streams; None if it cannot be asked now.
    pub(crate) async fn known(&self) -> Option<HashMap<String, Known>> {
        let asked = async {
            let url = self.world.postgres.url();
            let (client, connection) =
                tokio_postgres::connect(&url, tokio_postgres::NoTls).await.ok()?;
            tokio::spawn(connection);
            let sql = "select f.stream, f.n, f.groups::text, coalesce((select max(b.last_n) \
                       from outbox.batch b where b.stream = f.stream and b.dispatched_at is not null), 0) \
                       from outbox.floor f";
            let rows = client.query(sql, &[]).await.ok()?;
            let known = |row: &tokio_postgres::Row| Known {
                floor: row.get::<_, i64>(1) as u64,
                groups: serde_json::from_str(row.get(2)).unwrap(),
                marked: row.get::<_, i64>(3) as u64,
            };
            Some(rows.iter().map(|row| (row.get(0), known(row))).collect())
        };
        tokio::time::timeout(Duration::from_secs(1), asked).await.ok().flatten()
    }

    /// Runs statements as the owner; an error is of no interest, for Postgres may be down.
    pub(crate) async fn sql(&self, statements: &str) {
        let asked = async {
            let url = self.world.postgres.url();
            let (client, connection) =
                tokio_postgres::connect(&url, tokio_postgres::NoTls).await.ok()?;
            tokio::spawn(connection);
            client.batch_execute(statements).await.ok()
        };
        let _ = tokio::time::timeout(Duration::from_secs(3), asked).await;
    }

    /// Notes what was lost, between what was `had` and what there is now.
    pub(crate) fn lose(
        &mut self,
        kind: Kind,
        began: Micros,
        known: Option<HashMap<String, Known>>,
        had: &Observed,
        has: impl Fn(&str) -> Option<u64>,
    ) {
        let ended = now();
        for (stream, (had, floor)) in had {
            let Some(has) = has(stream) else { continue };
            let known = known.as_ref().map(|known| known.get(stream).cloned().unwrap_or_default());
            let (stream, had, floor) = (stream.clone(), *had, *floor);
            self.losses.push(Loss { began, ended, kind, stream, had, has, floor, known });
        }
    }
}
