//! Redis: the server, and what its user may do.

use super::Known;
use super::finding::{Area::Redis as InRedis, Report, Weight};
use super::keys::check_keys;
use crate::error::{Kind, Result};
use crate::relay::Settings;
use crate::stream::{Denied, Instance, Redis};
use crate::text::grouped;

/// What is wrong with Redis. Whose keys are in it can be told only with what Postgres knows.
pub(super) async fn check_redis(
    settings: &Settings,
    connected: Result<Redis>,
    known: Option<&Known>,
) -> Report {
    let mut report = Report::default();
    let redis = match connected {
        Ok(redis) => redis,
        Err(error) => {
            report.miss(error.to_string());
            return report;
        }
    };
    let instances = redis.instances().await;
    for instance in report.answer("what Redis says of itself", instances).unwrap_or_default() {
        server(&mut report, &instance);
        memory(&mut report, &instance);
        persistence(&mut report, &instance);
    }
    let denied = redis.denied().await;
    let Some(mut denied) = report.answer("what the user of REDIS_URL may do", denied) else {
        return report;
    };
    let ours = is_ours(&mut report, settings, &redis, known, &denied).await;
    if ours {
        let tried = redis.denied_making(&mut denied).await;
        report.answer("what the user of REDIS_URL may do", tried);
    }
    rights(&mut report, settings, &denied);
    if ours {
        check_keys(&mut report, &redis, known).await;
    }
    report
}

/// Of a Redis that is another outbox's, nothing more is said, and no key is made in it.
async fn is_ours(
    report: &mut Report,
    settings: &Settings,
    redis: &Redis,
    known: Option<&Known>,
    denied: &Denied,
) -> bool {
    let Some(known) = known else { return true };
    if denied.keys || denied.commands.contains(&"hmget") {
        report.miss("whose Redis it is, for want of rights there");
        return true;
    }
    match redis.refuse_other(&known.outbox).await {
        Err(error) if error.kind() == Kind::Refused => {
            report.find(
                InRedis,
                Weight::Now,
                format!("Redis at {} is not this outbox's", settings.server.name()),
                error.to_string(),
                "REDIS_URL must name this outbox's Redis, or OUTBOX_PREFIX be one of its own",
            );
            false
        }
        claimed => {
            report.answer("whose Redis it is", claimed);
            true
        }
    }
}

fn server(report: &mut Report, instance: &Instance) {
    let name = &instance.name;
    if !instance.is_at_least(6, 2) {
        report.find(
            InRedis,
            Weight::Now,
            format!("Redis at {name} has version {}", instance.version),
            "the relay needs what version 6.2 brought",
            "upgrade Redis to 6.2 or later",
        );
    }
    if !instance.primary {
        report.find(
            InRedis,
            Weight::Now,
            format!("Redis at {name} is a replica"),
            "it takes no writes, so nothing can be appended",
            "REDIS_URL must name the primary",
        );
    }
}

fn memory(report: &mut Report, instance: &Instance) {
    let Instance { policy, limit, used, .. } = instance;
    if policy.starts_with("allkeys") {
        report.find(
            InRedis,
            Weight::Now,
            format!("maxmemory-policy is {policy}"),
            "Redis drops whole streams when memory is short, so the relay does not start",
            "CONFIG SET maxmemory-policy noeviction",
        );
    }
    let mebibytes = |bytes: u64| format!("{} MiB", grouped(bytes >> 20));
    if *limit == 0 {
        // Room for twice as much as there is, and for a gigabyte at least.
        let enough = (used * 2).max(1 << 30) >> 20;
        report.find(
            InRedis,
            Weight::Aside,
            format!("maxmemory is 0: Redis uses {} and may take all there is", mebibytes(*used)),
            "streams grow up to their limits, and where the machine has no more the kernel kills Redis; \
             with a limit it refuses appends, and rows wait in Postgres",
            format!("CONFIG SET maxmemory {enough}mb"),
        );
    } else if used * 5 > limit * 4 {
        report.find(
            InRedis,
            Weight::Soon,
            format!("Redis uses {} of {}", mebibytes(*used), mebibytes(*limit)),
            "at its limit it refuses appends, and rows wait in Postgres; trim streams whose consumers are \
             done, or give it more",
            format!("CONFIG SET maxmemory {}mb", (limit * 2) >> 20),
        );
    }
}

fn persistence(report: &mut Report, instance: &Instance) {
    if !instance.saved {
        report.find(
            InRedis,
            Weight::Now,
            "the last snapshot of Redis could not be written",
            "Redis may refuse all writes until one can, and a restart brings back an older state; its log \
             says why, most often the disk is full",
            "BGSAVE",
        );
    }
    if !instance.appended {
        report.find(
            InRedis,
            Weight::Now,
            "Redis cannot write its append-only file",
            "it refuses all writes until it can; its log says why, most often the disk is full",
            "make room on the disk of Redis",
        );
    }
    if !instance.appends && instance.saves == Some(false) {
        report.find(
            InRedis,
            Weight::Aside,
            "Redis writes nothing to disk, neither an append-only file nor snapshots",
            "a restart loses everything; the relay puts entries and consumer groups back, and what was \
             acknowledged since the last checkpoint, about a second, is given again",
            "CONFIG SET appendonly yes",
        );
    }
    if instance.appends && instance.appendfsync.as_deref() == Some("no") {
        report.find(
            InRedis,
            Weight::Aside,
            "appendfsync is no",
            "a crash of the machine loses what Redis took within the last half minute or so; the relay puts \
             entries and consumer groups back, and what was acknowledged since its last checkpoint before \
             that is given again",
            "CONFIG SET appendfsync everysec",
        );
    }
}

fn rights(report: &mut Report, settings: &Settings, denied: &Denied) {
    if !denied.commands.is_empty() {
        let user = settings.server.user();
        let added: Vec<String> = denied.commands.iter().map(|name| format!("+{name}")).collect();
        report.find(
            InRedis,
            Weight::Now,
            format!("user {user} may not run {}", denied.commands.join(", ")),
            "the relay and the commands beside it need them",
            format!("ACL SETUSER {user} {}", added.join(" ")),
        );
    }
    if denied.keys {
        let user = settings.server.user();
        report.find(
            InRedis,
            Weight::Now,
            format!("user {user} may not use keys of the relay"),
            "it needs all that begin with OUTBOX_PREFIX: those of the streams, and its own below outbox:",
            format!("ACL SETUSER {user} ~{}*", settings.server.prefix()),
        );
    }
}
