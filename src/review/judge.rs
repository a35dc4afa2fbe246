//! Whether a key, a stream and a server are as the rules say. Pure.

use std::time::Duration;

use super::finding::Fault;
use super::rules::{Kind, Rule, Rules};
use crate::stream::{GroupSurvey, Instance, KeySurvey, StreamSurvey};
use crate::text::{age, counted, grouped, line};

/// Characters of a name that somebody gave to a group or a consumer.
const NAME: usize = 100;

/// A fault of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) fault: Fault,
    /// How many of its kind: more than one only of what a stream holds.
    pub(crate) count: u64,
    /// What was seen.
    pub(crate) seen: String,
}

impl Found {
    fn one(fault: Fault, seen: String) -> Self {
        Self { fault, count: 1, seen }
    }
}

/// Whether nobody needs a key any more, as far as its rule can say: it does not expire in time, and nobody
/// has touched it for long.
pub(super) fn is_stale(rule: &Rule, key: &KeySurvey) -> bool {
    let untouched = key.untouched.zip(rule.stale_after);
    overdue(rule, key) && untouched.is_some_and(|(untouched, after)| untouched >= after)
}

/// Whether a key does not go by itself within the time of its rule.
fn overdue(rule: &Rule, key: &KeySurvey) -> bool {
    match (key.expires, rule.longest_expiry) {
        (None, _) => true,
        (Some(left), Some(longest)) => left > longest,
        (Some(_), None) => false,
    }
}

/// What is wrong with a key that is not the relay's.
pub(super) fn key(rule: Option<&Rule>, key: &KeySurvey) -> Vec<Found> {
    let Some(rule) = rule else {
        return vec![Found::one(Fault::NoOwner, format!("a {}, {}", key.kind, lives(key)))];
    };
    let mut found = Vec::new();
    let must_go = rule.longest_expiry.is_some();
    let fault = match (rule.kind, key.expires) {
        (Kind::Lock, _) if overdue(rule, key) => Some(Fault::StaleLock),
        _ if is_stale(rule, key) => Some(Fault::StaleKey),
        (_, None) if must_go => Some(Fault::NoExpiry),
        (_, Some(_)) if overdue(rule, key) => Some(Fault::LongExpiry),
        _ => None,
    };
    found.extend(fault.map(|fault| Found::one(fault, lives(key))));
    if key.bytes > rule.biggest {
        let (is, most) = (bytes(key.bytes), bytes(rule.biggest));
        found.push(Found::one(Fault::BigValue, format!("{is} of at most {most}")));
    }
    found
}

/// How long a key lives, and since when nobody has touched it.
fn lives(key: &KeySurvey) -> String {
    let expires = match key.expires {
        None => "never expires".to_owned(),
        Some(left) => format!("expires in {}", age(left)),
    };
    match key.untouched {
        Some(untouched) if !untouched.is_zero() => {
            format!("{expires}, untouched for {}", age(untouched))
        }
        _ => expires,
    }
}

/// What is wrong with a stream beside that. One that the relay fills has a limit already.
pub(super) fn stream(
    rule: Option<&Rule>,
    key: &KeySurvey,
    stream: &StreamSurvey,
    relays: bool,
) -> Vec<Found> {
    let mut found: Vec<Found> = match rule.and_then(|rule| rule.limit) {
        _ if relays => Vec::new(),
        Some(limit) => length(stream.entries, limit).into_iter().collect(),
        None if key.expires.is_some() => Vec::new(),
        None => {
            let entries = counted(stream.entries, "entry", "entries");
            vec![Found::one(Fault::UnlimitedStream, format!("{entries}, without a limit"))]
        }
    };
    for group in &stream.groups {
        found.extend(stale_entries(group));
        let idle = |name: &String| Found::one(Fault::IdleConsumer, idle_consumer(group, name));
        found.extend(group.idle.iter().map(idle));
    }
    found
}

fn stale_entries(group: &GroupSurvey) -> Option<Found> {
    let entries = counted(group.stale, "entry", "entries");
    let longest = age(group.longest);
    let name = line(&group.name, NAME);
    let seen = format!("group {name}: {entries} pending, the longest for {longest}");
    (group.stale > 0).then_some(Found { fault: Fault::StaleEntries, count: group.stale, seen })
}

/// A consumer as people find it.
pub(super) fn idle_consumer(group: &GroupSurvey, consumer: &str) -> String {
    format!("consumer {} of group {}", line(consumer, NAME), line(&group.name, NAME))
}

/// Whether a queue is longer than it may be.
pub(super) fn length(entries: u64, limit: u64) -> Option<Found> {
    let seen = || format!("{} entries of at most {}", grouped(entries), grouped(limit));
    (entries > limit).then(|| Found::one(Fault::LongQueue, seen()))
}

/// What is wrong with a server, and the command that mends it.
pub(super) fn server(
    rules: &Rules,
    has_relay: bool,
    instance: &Instance,
) -> Vec<(Fault, String, String)> {
    let mut found = Vec::new();
    if instance.limit == 0 {
        // Room for twice as much as there is, and for a gigabyte at least.
        let enough = (instance.used * 2).max(1 << 30) >> 20;
        let seen = format!("maxmemory is 0, {} in use", bytes(instance.used));
        found.push((Fault::MemoryLimit, seen, format!("CONFIG SET maxmemory {enough}mb")));
    } else if let Some(what) = evicted(rules, has_relay, &instance.policy) {
        let fix = "CONFIG SET maxmemory-policy noeviction".to_owned();
        let seen = format!("maxmemory-policy is {}, which may drop {what}", instance.policy);
        found.push((Fault::Eviction, seen, fix));
    }
    let durable = rules.all().iter().filter(|rule| rule.durable).map(|rule| rule.keys.as_str());
    let durable: Vec<&str> = durable.collect();
    if let (false, Some((seen, fix))) = (durable.is_empty(), forgets(instance)) {
        let seen = format!("{seen}; durable: {}", durable.join(", "));
        found.push((Fault::Persistence, seen, fix.to_owned()));
    }
    found
}

/// What this policy may drop although it must not vanish.
fn evicted(rules: &Rules, has_relay: bool, policy: &str) -> Option<String> {
    let all = policy.starts_with("allkeys-");
    let needed = |rule: &&Rule| rule.kind != Kind::Cache && (all || rule.longest_expiry.is_some());
    let mut names: Vec<&str> = match all || policy.starts_with("volatile-") {
        true => rules.all().iter().filter(needed).map(|rule| rule.keys.as_str()).collect(),
        false => Vec::new(),
    };
    if all && has_relay {
        names.insert(0, "streams of the relay");
    }
    (!names.is_empty()).then(|| names.join(", "))
}

/// How a server loses what it took, if it is known to, and what mends it.
fn forgets(instance: &Instance) -> Option<(&'static str, &'static str)> {
    if !instance.appends {
        let seen = match instance.saves {
            Some(true) => "there are snapshots and no append-only file",
            Some(false) => "nothing is written to disk",
            None => "there is no append-only file",
        };
        return Some((seen, "CONFIG SET appendonly yes"));
    }
    if !instance.appended {
        return Some((
            "the append-only file could not be written",
            "see the log of Redis, and its disk",
        ));
    }
    let lazy = instance.appendfsync.as_deref() == Some("no");
    lazy.then_some(("appendfsync is no", "CONFIG SET appendfsync everysec"))
}

/// Bytes as people read them.
pub fn bytes(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >= 1 << shift) {
        Some((shift, unit)) => {
            let tenths = u128::from(bytes) * 10 / (1 << shift);
            format!("{}.{} {unit}", grouped((tenths / 10) as u64), tenths % 10)
        }
        None => format!("{} B", grouped(bytes)),
    }
}

/// Whether a time that Redis does not keep is needed.
pub(super) fn needs_untouched(rules: &Rules) -> bool {
    rules.all().iter().any(|rule| rule.stale_after.is_some())
}

/// From when something in a queue counts as idle.
pub(super) fn idle(rule: Option<&Rule>) -> Option<Duration> {
    rule.and_then(|rule| rule.longest_idle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::EXAMPLE;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn rules() -> Rules {
        Rules::read(EXAMPLE).expect("the example is right")
    }

    fn seen(key: &str, expires: Option<Duration>, untouched: Option<Duration>) -> KeySurvey {
        let key = key.as_bytes().to_vec();
        KeySurvey { key, kind: "string".to_owned(), expires, bytes: 100, untouched }
    }

    fn faults(key: &KeySurvey) -> Vec<Fault> {
        let rules = rules();
        let rule = rules.of(&key.key).map(|(_, rule)| rule);
        super::key(rule, key).into_iter().map(|found| found.fault).collect()
    }

    #[test]
    fn keys_that_do_not_go_in_time_have_one_fault_each() {
        for (key, expires, untouched, fault) in [
            ("lock:1", Some(HOUR / 6), None, None),
            ("lock:1", Some(HOUR / 6), Some(9 * HOUR), None),
            ("lock:1", Some(HOUR), None, Some(Fault::StaleLock)),
            ("lock:1", None, Some(HOUR), Some(Fault::StaleLock)),
            ("cache:1", Some(24 * HOUR), Some(999 * HOUR), None),
            ("cache:1", None, None, Some(Fault::NoExpiry)),
            ("cache:1", None, Some(HOUR), Some(Fault::NoExpiry)),
            ("cache:1", None, Some(168 * HOUR), Some(Fault::StaleKey)),
            ("cache:1", Some(25 * HOUR), Some(HOUR), Some(Fault::LongExpiry)),
            ("cache:1", Some(25 * HOUR), Some(168 * HOUR), Some(Fault::StaleKey)),
            ("feature_flags", None, Some(999 * HOUR), None),
            ("feature_flags", Some(HOUR), None, None),
            ("jobs:1", None, Some(999 * HOUR), None),
            ("other", Some(HOUR), None, Some(Fault::NoOwner)),
        ] {
            let case = seen(key, expires, untouched);
            assert_eq!(faults(&case), Vec::from_iter(fault), "{case:?}");
        }
        let big = KeySurvey { bytes: 1_025, ..seen("lock:1", Some(HOUR / 6), None) };
        assert_eq!(faults(&big), [Fault::BigValue]);
    }

    #[test]
    fn a_stream_has_a_limit_or_expires_or_is_the_relays() {
        let rules = rules();
        let rule = rules.of(b"jobs:1").map(|(_, rule)| rule);
        let of = |rule, expires, entries, relays| {
            let survey = StreamSurvey { entries, ..StreamSurvey::default() };
            let found = stream(rule, &seen("jobs:1", expires, None), &survey, relays);
            found.into_iter().map(|found| found.fault).collect::<Vec<_>>()
        };
        assert_eq!(of(rule, None, 100_000, false), []);
        assert_eq!(of(rule, None, 100_001, false), [Fault::LongQueue]);
        assert_eq!(of(rule, None, 100_001, true), []);
        assert_eq!(of(None, None, 0, false), [Fault::UnlimitedStream]);
        assert_eq!((of(None, Some(HOUR), 0, false), of(None, None, 0, true)), (vec![], vec![]));
    }

    fn instance() -> Instance {
        Instance {
            name: "r".to_owned(),
            version: "7.0.15".to_owned(),
            primary: true,
            policy: "noeviction".to_owned(),
            limit: 1 << 30,
            used: 1 << 20,
            keys: 1,
            appends: true,
            saves: Some(true),
            appendfsync: Some("everysec".to_owned()),
            saved: true,
            appended: true,
        }
    }

    #[test]
    fn only_settings_that_lose_what_a_rule_needs_are_faults() {
        let faults = |instance: Instance, rules: &Rules, has_relay| {
            let found = server(rules, has_relay, &instance);
            found.into_iter().map(|(fault, ..)| fault).collect::<Vec<_>>()
        };
        let caches = Rules::new(
            rules().all().iter().filter(|rule| rule.kind == Kind::Cache).cloned().collect(),
        );
        let policy = |policy: &str| Instance { policy: policy.to_owned(), ..instance() };
        assert_eq!(faults(instance(), &rules(), true), []);
        assert_eq!(faults(policy("allkeys-lru"), &rules(), false), [Fault::Eviction]);
        assert_eq!(faults(policy("volatile-ttl"), &rules(), false), [Fault::Eviction]);
        assert_eq!(faults(policy("allkeys-lru"), &caches, false), []);
        assert_eq!(faults(policy("allkeys-lru"), &caches, true), [Fault::Eviction]);
        assert_eq!(faults(policy("volatile-ttl"), &caches, true), [], "streams do not expire");
        // Nothing is evicted without a limit, which is the fault then.
        let unlimited = Instance { limit: 0, ..policy("allkeys-lru") };
        assert_eq!(faults(unlimited, &rules(), true), [Fault::MemoryLimit]);
        let fsync = |how: &str| Instance { appendfsync: Some(how.to_owned()), ..instance() };
        for bad in [
            Instance { appends: false, ..instance() },
            Instance { appended: false, ..instance() },
            fsync("no"),
        ] {
            assert_eq!(faults(bad.clone(), &rules(), true), [Fault::Persistence], "{bad:?}");
            assert_eq!(faults(bad, &caches, true), [], "no rule says durable");
        }
        // Who may not ask for a setting does not guess.
        let unknown = Instance { appendfsync: None, saves: None, ..instance() };
        assert_eq!(faults(unknown, &rules(), true), []);
    }

    #[test]
    fn bytes_have_the_unit_that_matters() {
        let shown = [0, 1_023, 1_024, 1_600, 5 << 20, 3 << 30].map(bytes);
        assert_eq!(shown, ["0 B", "1,023 B", "1.0 KiB", "1.5 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
