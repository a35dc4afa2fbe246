//! One session: connections, a lease, and the pipeline that carries entries.
//!
//! Whatever goes wrong with either server ends the session, and the next one begins by reading
//! where everything is. There is no other recovery.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::appender::Appender;
use super::clock::DatabaseClock;
use super::health::{Health, Role};
use super::plan::Heads;
use super::primary::{Primaries, Primary};
use super::progress::Progress;
use super::reader::Reader;
use super::rota::Rota;
use super::sealer::{Leap, Sealer};
use super::servers::{Lease, Log, LogReader, Redis, Servers};
use super::work::Work;
use super::{Settings, Stop, ahead, keeper, report};
use crate::error::{Kind, Result};
use crate::outbox::{Cursor, Head, Holds, Identity, Term};
use crate::stream::{Canary, Claim, Owner, Place, Shard};
use crate::telemetry::Metrics;

/// Batches that wait between two stages: enough to keep both busy, few enough to bound memory.
const AHEAD: usize = 2;
/// Connections for reading the log: one per replay, and one for lookups.
const READERS: usize = 5;
/// After one stage has failed, the others may take this long to finish what they hold.
const WIND_DOWN: Duration = Duration::from_secs(2);
/// How often a standby asks for the lease.
const STANDBY: Duration = Duration::from_secs(1);

/// Both servers, reached and checked.
pub(super) struct Ready {
    lease: Box<dyn Lease>,
    redis: Arc<dyn Redis>,
    owner: Owner,
    claims: Claims,
}

/// What came of claiming each primary of Redis; None if it had no memory for an identity: an audit makes it
/// later.
type Claims = BTreeMap<Shard, Option<Claim>>;

/// Reaches both servers and makes sure that they are the right ones.
pub(super) async fn connect(servers: &Servers, settings: &Settings, holder: &str) -> Result<Ready> {
    let (lease, identity) = servers.postgres.lease(holder, settings.lease).await?;
    let redis = servers.redis.connect().await?;
    redis.refuse_unfit().await?;
    let owner = owner(&identity);
    let claims = claim(&*redis, &owner).await?;
    match redis.make_all_durable().await {
        // It has no memory now; what is waited for is waited for again.
        Err(busy) if busy.kind() == Kind::Busy => {}
        durable => durable?,
    }
    info!(
        "connected to Postgres at {} and Redis at {}",
        servers.postgres.name(),
        servers.redis.name()
    );
    Ok(Ready { lease, redis, owner, claims })
}

/// Whose the Redis must be.
pub(super) fn owner(identity: &Identity) -> Owner {
    Owner {
        id: identity.outbox.to_string(),
        system: identity.system.clone(),
        former: identity.former.clone(),
    }
}

/// Makes sure that this Redis is ours.
async fn claim(redis: &dyn Redis, owner: &Owner) -> Result<Claims> {
    let mut claims = Claims::new();
    for shard in redis.shards() {
        let claim = match redis.claim(shard, owner).await {
            Err(busy) if busy.kind() == Kind::Busy => None,
            claim => Some(claim?),
        };
        claims.insert(shard, claim);
    }
    Ok(claims)
}

/// Waits for the lease, carries entries until it is stopped, and gives the lease up.
pub(super) async fn lead(
    servers: &Servers,
    settings: &Settings,
    mut ready: Ready,
    health: &Health,
    stop: &Stop,
) -> Result<()> {
    let Some(term) = wait_for_lease(&mut ready, health, stop).await? else { return Ok(()) };
    health.role(Role::Leader);
    info!(token = term.token, "leading with token {}", term.token);
    let carried = tokio::select! {
        biased;
        // First, for under load the stages are always ready.
        lost = keeper::keep(&*ready.lease, term, settings.lease) => lost,
        carried = carry(servers, settings, &ready, term, health, stop) => carried,
    };
    carried?;
    ready.lease.release(term).await
}

async fn wait_for_lease(ready: &mut Ready, health: &Health, stop: &Stop) -> Result<Option<Term>> {
    let mut waited = false;
    loop {
        if let Some(term) = ready.lease.take().await? {
            if waited {
                // What was true when it connected may be hours old.
                ready.claims = claim(&*ready.redis, &ready.owner).await?;
            }
            return Ok(Some(term));
        }
        if !waited {
            info!("standing by: another relay holds the lease");
            health.role(Role::Standby);
            waited = true;
        }
        tokio::select! {
            biased;
            () = stop.wait() => return Ok(None),
            () = tokio::time::sleep(STANDBY) => {}
        }
        ready.redis.ping().await?;
    }
}

/// The order that carries the guarantee: rows are found, then sealed, and only what is sealed is
/// appended; what has arrived is marked. Each stage hands on to the next through a channel, and
/// nothing goes back but the marks.
async fn carry(
    servers: &Servers,
    settings: &Settings,
    ready: &Ready,
    term: Term,
    health: &Health,
    stop: &Stop,
) -> Result<()> {
    let postgres = &servers.postgres;
    let log = postgres.log_reader(READERS)?;
    let writer = postgres.log(term).await?;
    // Before the first seal: where is everything?
    let start = Start::read(&*log, ready, &*writer, health.metrics()).await?;

    let (found_in, found_out) = mpsc::channel(AHEAD);
    let (sealed_in, sealed_out) = mpsc::channel(AHEAD);
    let (notes_in, notes_out) = mpsc::unbounded_channel();
    let (missed_in, missed_out) = mpsc::channel(1);
    let (holds_in, holds_out) = mpsc::channel(1);
    let (clock, metrics) = (DatabaseClock::new(), health.metrics());
    let leap = Leap::default();

    let reader = Reader {
        finder: postgres.finder().await?,
        cursor: start.cursor,
        wake: match settings.wake {
            true => Some(postgres.wake(term).await?),
            false => None,
        },
        poll: settings.poll,
        bounds: settings.bounds,
        missed: missed_out,
        clock: clock.clone(),
        found: found_in,
    };
    let sealer = Sealer {
        log: writer,
        heads: start.heads,
        last_seal: start.last_seal,
        leap: leap.clone(),
        found: found_out,
        sealed: Some(sealed_in),
        notes: notes_out,
        metrics: metrics.clone(),
    };
    let appender = Appender {
        redis: ready.redis.clone(),
        log,
        bounds: settings.bounds,
        audit_every: settings.audit,
        owner: ready.owner.clone(),
        limits: settings.limits,
        retention: settings.retention,
        checkpoint_every: settings.checkpoint,
        checkpoints: Some(postgres.checkpoints(term).await?),
        primaries: Primaries::new(start.canaries.into_iter().map(|(shard, canary)| {
            let nameless = ready.claims.get(&shard).is_some_and(Option::is_none);
            (shard, Primary { canary, nameless, asking: false })
        })),
        rota: Rota::default(),
        sealed: sealed_out,
        notes: notes_in,
        streams: start.streams,
        lives: ready.redis.life().await?,
        held: start.held,
        holds: holds_out,
        clock,
        health: health.clone(),
        metrics: metrics.clone(),
        work: Work::default(),
    };
    let house = postgres.house(settings.retention).await?;

    let is_fresh = |claim: &Option<Claim>| *claim != Some(Claim::Ours);
    let fresh = ready.claims.iter().filter(|(_, claim)| is_fresh(claim));
    let fresh: Vec<Shard> = fresh.map(|(shard, _)| *shard).collect();
    let stages: [BoxFuture<'_, Result<()>>; 3] = [
        Box::pin(reader.run(stop.clone())),
        Box::pin(sealer.run()),
        Box::pin(appender.run(start.places, &fresh)),
    ];
    tokio::select! {
        biased;
        failed = house.keep(missed_in, holds_in, leap, metrics) => failed,
        () = drained(stop, settings.drain) => {
            let drain = settings.drain;
            warn!("not all entries arrived within {drain:?}; the next relay goes on with them");
            Ok(())
        }
        worked = together(stages) => worked,
    }
}

/// Runs the stages until all have ended. When one fails the others end by themselves, for their
/// channels are closed: what has arrived in Redis by then is still marked, so that a loss that comes
/// next is told in full.
async fn together(stages: [BoxFuture<'_, Result<()>>; 3]) -> Result<()> {
    let mut stages = FuturesUnordered::from_iter(stages);
    while let Some(ended) = stages.next().await {
        if ended.is_err() {
            let rest = async { while stages.next().await.is_some() {} };
            let _ = tokio::time::timeout(WIND_DOWN, rest).await;
            return ended;
        }
    }
    Ok(())
}

/// Ends when a stop has been asked for and the time to drain is over.
async fn drained(stop: &Stop, drain: Duration) {
    stop.wait().await;
    tokio::time::sleep(drain).await;
}

/// Where everything is at the beginning of a term.
struct Start {
    cursor: Cursor,
    last_seal: i64,
    heads: Heads,
    streams: BTreeMap<Arc<str>, Progress>,
    places: Vec<(Arc<str>, Place)>,
    held: Holds,
    canaries: BTreeMap<Shard, Option<Canary>>,
}

impl Start {
    async fn read(
        log: &dyn LogReader,
        ready: &Ready,
        writer: &dyn Log,
        metrics: &Metrics,
    ) -> Result<Self> {
        let redis = &*ready.redis;
        let (cursor, last_seal) = log.cursor().await?;
        let mut heads = log.heads().await?;
        let names: Vec<Arc<str>> = heads.iter().map(|head| head.stream.clone()).collect();
        let places = redis.positions(&names).await?;
        let mut waiting = 0;
        for (head, place) in heads.iter_mut().zip(&places) {
            let Place::At(at) = *place else { continue };
            waiting += head.sealed.n.saturating_sub(at.n);
            if at > head.sealed
                && let Some(found) =
                    ahead::phantoms(log, redis, &head.stream, head.sealed, at, metrics).await?
            {
                writer.settle_phantoms(&head.stream, at, &found).await?;
                (head.sealed, head.dispatched) = (at, at.n);
            }
        }
        let (canaries, known) = canaries(ready, &heads).await?;
        info!(
            streams = heads.len(),
            behind = waiting,
            "looked at {} streams in Redis",
            heads.len(),
        );
        let held = log.holds().await?;
        let mut positions =
            Heads::of_new_term(heads.iter().map(|head| (head.stream.clone(), head.sealed)));
        for (stream, partitions) in &held.split {
            positions.split(stream, *partitions);
        }
        for head in &heads {
            metrics.knows(&head.stream);
        }
        Ok(Self {
            cursor,
            last_seal,
            heads: positions,
            streams: heads
                .into_iter()
                .map(|head| {
                    let mut progress = Progress::new(head.sealed, head.dispatched, head.floor);
                    progress.told = head.told;
                    if head.canary.is_some() {
                        progress.set_checkpointed();
                    }
                    if head.groups_lost || !is_of(head.canary.as_ref(), &known) {
                        progress.lose_groups();
                    }
                    if held.is_held(&head.stream) {
                        progress.pause();
                    }
                    (head.stream, progress)
                })
                .collect(),
            places: names.into_iter().zip(places).collect(),
            held,
            canaries,
        })
    }
}

/// How far the life of each primary has got, and all canaries there are now: in a cluster, the checkpoint of
/// a stream may be of the primary that had it before its slot moved.
async fn canaries(
    ready: &Ready,
    heads: &[Head],
) -> Result<(BTreeMap<Shard, Option<Canary>>, Vec<Canary>)> {
    let mut known = ready.redis.canaries(&ready.owner).await?;
    let mut canaries = BTreeMap::new();
    for shard in ready.redis.shards() {
        let old = ready.redis.canary(shard, &ready.owner, 0).await?;
        let new = canary(ready, shard, old.clone(), heads, &known).await?;
        if new != old {
            known.retain(|canary| old.as_ref().is_none_or(|old| old.nonce != canary.nonce));
            known.extend(new.clone());
        }
        canaries.insert(shard, new);
    }
    Ok((canaries, known))
}

/// How far this life of a primary has got. A new one if it has gone back behind a checkpoint, or is not the
/// life that the latest checkpoint of its streams is of, so that its counter cannot catch up unseen, with
/// what it counts now or had counted before; None if it has no memory for that.
async fn canary(
    ready: &Ready,
    shard: Shard,
    canary: Option<Canary>,
    heads: &[Head],
    known: &[Canary],
) -> Result<Option<Canary>> {
    let is_same = |head: &&Head| {
        canary.as_ref().zip(head.canary.as_ref()).is_some_and(|(is, was)| is.nonce == was.0)
    };
    let gone_back = heads.iter().filter(is_same).any(|head| !is_of(head.canary.as_ref(), known));
    let kept = heads.iter().filter(|head| head.canary.is_some());
    let its = kept.filter(|head| ready.redis.shard(&head.stream) == shard);
    let latest = its.max_by_key(|head| head.checkpointed_us);
    let goes_on = latest.is_none_or(|head| is_of(head.canary.as_ref(), known));
    if canary.is_some() && !gone_back && goes_on {
        return Ok(canary);
    }
    if gone_back {
        report::gone_back(&ready.redis.shard_name(shard));
    }
    match ready.redis.renew_canary(shard).await {
        Err(busy) if busy.kind() == Kind::Busy => Ok(None),
        canary => canary.map(Some),
    }
}

/// Whether a checkpoint was taken of a life of Redis that goes on, no later than it is now.
fn is_of(checkpoint: Option<&(String, u64)>, known: &[Canary]) -> bool {
    let Some((nonce, count)) = checkpoint else { return true };
    known.iter().any(|canary| canary.nonce == *nonce && canary.count >= *count)
}
