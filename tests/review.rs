//! What Redis holds is judged by rules: each fault is found where it is and not beside it, and only what is
//! stale is removed.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use outbox_relay::review::Fault;
use outbox_relay::sandbox::{Redis, RedisOptions};
use outbox_relay::stream::{Server, rights, rights_of_review};
use serde::Deserialize;

use crate::metrics::{address, becomes, value};
use crate::support::command::{Ended, command, fails, to_the_end};
use crate::support::eventually;
use crate::support::nodes::ask;
use crate::support::relay::{Relay, program};
use crate::support::world::World;
use crate::support::writers::write_rows;

const BOUND: Duration = Duration::from_secs(60);

/// Rules of all kinds, of which `caches` may remove.
const RULES: &str = r#"
[[rule]]
keys = "lock:*"
owner = "payments team"
purpose = "one worker per order"
kind = "lock"
longest_expiry = "10m"
biggest = "1KiB"
stale_after = "1h"
stale = "remove"

[[rule]]
keys = "cache:*"
owner = "shop team"
purpose = "pages"
kind = "cache"
longest_expiry = "1d"
biggest = "4KiB"
stale_after = "1h"
stale = "remove"

[[rule]]
keys = "cache:kept:*"
owner = "shop team"
purpose = "pages that nobody may remove"
kind = "cache"
longest_expiry = "1d"
biggest = "4KiB"
stale_after = "1h"

[[rule]]
keys = "flags"
owner = "platform team"
purpose = "switches"
kind = "data"
longest_expiry = "none"
reason = "written by each deployment"
biggest = "1KiB"

[[rule]]
keys = "jobs:*"
owner = "mail team"
purpose = "letters"
kind = "queue"
biggest = "1MiB"
limit = 3
longest_idle = "1h"

[[rule]]
keys = "log:*"
owner = "mail team"
purpose = "what was sent"
kind = "data"
longest_expiry = "none"
reason = "the law"
biggest = "1MiB"
"#;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    ok: bool,
    redis: String,
    keys: u64,
    relay_keys: u64,
    whole: bool,
    findings: Vec<Finding>,
    removed: Removed,
    unchecked: Vec<String>,
    #[serde(skip)]
    code: i32,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Finding {
    finding: String,
    rule: Option<String>,
    owner: Option<String>,
    count: u64,
    bytes: u64,
    examples: Vec<Example>,
    why: String,
    fix: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Example {
    key: String,
    seen: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Removed {
    dry_run: bool,
    keys: u64,
    consumers: u64,
    names: Vec<String>,
}

impl Said {
    /// Each fault with the key that has it.
    fn faults(&self) -> BTreeSet<(String, String)> {
        let pair =
            |finding: &Finding, example: &Example| (finding.finding.clone(), example.key.clone());
        let of = |finding: &Finding| -> Vec<_> {
            finding.examples.iter().map(|example| pair(finding, example)).collect()
        };
        self.findings.iter().flat_map(of).collect()
    }

    fn has(&self, fault: &str, key: &str) -> bool {
        self.faults().contains(&(fault.to_owned(), key.to_owned()))
    }

    fn of(&self, fault: &str) -> &Finding {
        let found = self.findings.iter().find(|finding| finding.finding == fault);
        found.unwrap_or_else(|| panic!("no {fault}: {self:#?}"))
    }
}

fn set(pairs: &[(&str, &str)]) -> BTreeSet<(String, String)> {
    pairs.iter().map(|(fault, key)| ((*fault).to_owned(), (*key).to_owned())).collect()
}

/// A file of rules, and the folder that it goes with.
struct File {
    folder: tempfile::TempDir,
}

impl File {
    fn new(rules: &str) -> Self {
        let file = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::write(file.path(), rules).unwrap();
        file
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("rules.toml")
    }

    fn run(&self, words: &[&str], variables: &[(&str, &str)]) -> Ended {
        let path = self.path();
        let rules = [("OUTBOX_REVIEW_RULES", path.to_str().unwrap())];
        let mut command = std::process::Command::new(program());
        command.arg("review").args(words).envs(rules).envs(variables.iter().copied());
        to_the_end(command, 5 * BOUND)
    }

    #[track_caller]
    fn review(&self, words: &[&str], variables: &[(&str, &str)]) -> Said {
        let ended = self.run(&[&["--json"], words].concat(), variables);
        let said = serde_json::from_str(&ended.out);
        let mut said: Said = said.unwrap_or_else(|error| panic!("{error}: {ended:#?}"));
        said.code = ended.code.unwrap();
        assert_eq!(said.ok, said.code == 0, "{said:#?}");
        assert!(said.redis.contains(':'), "host and port: {said:#?}");
        let known = Fault::ALL.map(Fault::as_str);
        for finding in &said.findings {
            assert!(known.contains(&finding.finding.as_str()), "{finding:#?}");
            assert!(finding.count > 0 && !finding.examples.is_empty(), "{finding:#?}");
            assert!(
                ![&finding.why, &finding.fix].iter().any(|text| text.is_empty()),
                "{finding:#?}"
            );
            assert_eq!(finding.rule.is_some(), finding.owner.is_some(), "{finding:#?}");
        }
        said
    }

    #[track_caller]
    fn review_at(&self, redis: &Redis, words: &[&str]) -> Said {
        self.review(words, &[("REDIS_URL", &redis.url())])
    }
}

/// A Redis as it should be.
fn healthy() -> Redis {
    Redis::start(RedisOptions::default().with("appendonly", "yes").with("maxmemory", "1gb"))
        .unwrap()
}

async fn run(redis: &Redis, commands: &[&str]) {
    for words in commands {
        let words: Vec<&str> = words.split(' ').collect();
        ask::<redis::Value>(redis, &words).await;
    }
}

/// Makes a string that nobody has touched for two hours.
async fn untouched(redis: &Redis, key: &str, expires_ms: &str) {
    untouched_with(redis, key, expires_ms, "token").await;
}

async fn untouched_with(redis: &Redis, key: &str, expires_ms: &str, value: &str) {
    run(redis, &[&format!("SET dumped {value}")]).await;
    let dump: Vec<u8> = ask(redis, &["DUMP", "dumped"]).await;
    let mut connection = crate::support::nodes::connect(redis).await;
    let mut restore = redis::cmd("RESTORE");
    restore.arg(key).arg(expires_ms).arg(dump).arg("IDLETIME").arg(7_200);
    restore.exec_async(&mut connection).await.unwrap();
    run(redis, &["DEL dumped"]).await;
}

async fn exists(redis: &Redis, key: &str) -> bool {
    ask::<u64>(redis, &["EXISTS", key]).await == 1
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_found_where_it_is_and_not_beside_it() {
    let (redis, file) = (healthy(), File::new(RULES));
    let big = "x".repeat(5_000);
    run(
        &redis,
        &[
            "SET lock:good 1 EX 600",
            "SET lock:forever 1",
            "SET lock:long 1 EX 3600",
            "SET cache:good 1 EX 3600",
            "SET cache:forever 1",
            "SET cache:long 1 EX 90000",
            &format!("SET cache:big {big} EX 60"),
            "SET flags 1",
            "SET flagship 1",
            "RPUSH jobs:list:good 1 2 3",
            "RPUSH jobs:list:long 1 2 3 4",
            "XADD jobs:good * a b",
            "XADD log:events * a b",
            "XADD stray * a b",
        ],
    )
    .await;
    untouched(&redis, "cache:old", "0").await;
    untouched(&redis, "cache:old:goes", "3600000").await;
    for _ in 0..4 {
        run(&redis, &["XADD jobs:full * a b"]).await;
    }
    let said = file.review_at(&redis, &[]);
    let found = set(&[
        ("stale_lock", "lock:forever"),
        ("stale_lock", "lock:long"),
        ("no_expiry", "cache:forever"),
        ("long_expiry", "cache:long"),
        ("stale_key", "cache:old"),
        ("big_value", "cache:big"),
        ("no_owner", "flagship"),
        ("no_owner", "stray"),
        ("long_queue", "jobs:list:long"),
        ("long_queue", "jobs:full"),
        ("unlimited_stream", "log:events"),
        ("unlimited_stream", "stray"),
    ]);
    assert_eq!(said.faults(), found, "{said:#?}");
    assert_eq!((said.code, said.whole, said.keys), (1, true, 17));
    let locks = said.of("stale_lock");
    assert_eq!((locks.count, locks.owner.as_deref()), (2, Some("payments team")));
    assert!(said.of("big_value").bytes > 5_000, "{said:#?}");
    assert_eq!(said.of("no_expiry").fix, "EXPIRE cache:forever 86400");
    assert!(said.of("stale_key").examples[0].seen.contains("never expires, untouched for 2 h 0 m"));
    // The same for people.
    let told = file.run(&[], &[("REDIS_URL", &redis.url())]);
    assert_eq!(told.code, Some(1), "{told:#?}");
    for line in
        ["stale_lock       lock:*", "    lock:forever: never expires", "17 keys of Redis at"]
    {
        assert!(told.out.contains(line), "{line} in {}", told.out);
    }
    assert!(told.out.lines().all(|line| line.chars().count() <= 100), "{}", told.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_that_nobody_acknowledges_and_consumers_that_are_away_are_found() {
    let short = RULES.replace("longest_idle = \"1h\"", "longest_idle = \"1s\"\nstale = \"remove\"");
    let (redis, hour, second) = (healthy(), File::new(RULES), File::new(&short));
    run(
        &redis,
        &[
            "XADD jobs:mail 1-0 a b",
            "XADD jobs:mail 2-0 a b",
            "XGROUP CREATE jobs:mail mail 0",
            "XREADGROUP GROUP mail busy COUNT 2 STREAMS jobs:mail >",
            "XGROUP CREATECONSUMER jobs:mail mail gone",
        ],
    )
    .await;
    assert_eq!(hour.review_at(&redis, &[]).code, 0, "nothing has been idle for an hour");
    run(&redis, &["XCLAIM jobs:mail mail busy 0 1-0 IDLE 7200000"]).await;
    let said = hour.review_at(&redis, &[]);
    assert_eq!(said.faults(), set(&[("stale_entries", "jobs:mail")]), "{said:#?}");
    let entries = said.of("stale_entries");
    assert_eq!(entries.count, 1, "one of two");
    assert!(entries.examples[0].seen.contains("group mail: 1 entry pending, the longest for 2 h"));
    assert_eq!(
        entries.fix,
        "let another worker take them over: XAUTOCLAIM jobs:mail GROUP WORKER 3600000 0"
    );
    eventually("two consumers are idle, of which one has something pending", BOUND, || async {
        let said = second.review_at(&redis, &[]);
        said.has("idle_consumer", "jobs:mail") && said.of("stale_entries").count == 2
    })
    .await;
    let said = second.review_at(&redis, &["--remove", "--dry-run"]);
    assert_eq!(said.removed.names, ["jobs:mail consumer gone of group mail"], "{said:#?}");
    assert_eq!((said.removed.dry_run, said.of("idle_consumer").count), (true, 1));
    let said = second.review_at(&redis, &["--remove"]);
    assert_eq!((said.removed.keys, said.removed.consumers), (0, 1), "{said:#?}");
    let left: Vec<redis::Value> = ask(&redis, &["XINFO", "CONSUMERS", "jobs:mail", "mail"]).await;
    assert!(left.len() == 1 && format!("{left:?}").contains("busy"), "{left:?}");
    let said = second.review_at(&redis, &["--remove"]);
    assert_eq!(
        said.faults(),
        set(&[("stale_entries", "jobs:mail")]),
        "what is pending stays: {said:#?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_stale_and_may_go_is_removed() {
    let (redis, file) = (healthy(), File::new(RULES));
    for (key, expires) in [
        ("lock:dead", "0"),
        ("lock:held", "600000"),
        ("cache:dead", "0"),
        ("cache:long", "90000000"),
        ("cache:goes", "3600000"),
        ("cache:kept:dead", "0"),
        ("flags", "0"),
        ("stray", "0"),
        ("jobs:dead", "0"),
        ("outbox:mine", "0"),
    ] {
        untouched(&redis, key, expires).await;
    }
    run(&redis, &["SET cache:new 1", "SET lock:new 1"]).await;
    let gone = ["cache:dead", "cache:long", "lock:dead"];
    let said = file.review_at(&redis, &["--remove", "--dry-run"]);
    let mut names = said.removed.names.clone();
    names.sort();
    assert_eq!(
        (names.as_slice(), said.removed.keys),
        (&gone.map(str::to_owned)[..], 3),
        "{said:#?}"
    );
    assert!(said.removed.dry_run && said.has("stale_key", "cache:dead"), "{said:#?}");
    for key in gone {
        assert!(exists(&redis, key).await, "{key} is there after a dry run");
    }
    let said = file.review_at(&redis, &["--remove"]);
    let mut names = said.removed.names.clone();
    names.sort();
    assert_eq!((names.as_slice(), said.removed.dry_run), (&gone.map(str::to_owned)[..], false));
    for key in gone {
        assert!(!exists(&redis, key).await, "{key} is gone");
        assert!(
            said.faults().iter().all(|(_, of)| of != key),
            "what is gone is no finding: {said:#?}"
        );
    }
    assert_eq!(ask::<u64>(&redis, &["DBSIZE"]).await, 9, "the others stay");
    assert!(said.has("stale_key", "cache:kept:dead") && said.has("no_expiry", "cache:new"));
    // Without a word nothing is removed.
    untouched(&redis, "cache:dead", "0").await;
    file.review_at(&redis, &[]);
    assert!(exists(&redis, "cache:dead").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_small_number_that_redis_keeps_once_for_all_keys_is_never_stale() {
    // A limit with a policy that looks at times would give each key its own; noeviction does not.
    let (redis, file) = (healthy(), File::new(RULES));
    untouched_with(&redis, "lock:old", "0", "1").await;
    run(&redis, &["SET lock:new 1", "SET cache:new 1"]).await;
    let idle: u64 = ask(&redis, &["OBJECT", "IDLETIME", "lock:new"]).await;
    let owners: i64 = ask(&redis, &["OBJECT", "REFCOUNT", "lock:new"]).await;
    assert!(owners == 1 || idle >= 7_200, "the trap that this is about: {idle} s, {owners} owners");
    let said = file.review_at(&redis, &["--remove"]);
    for key in ["lock:new", "cache:new"] {
        assert!(exists(&redis, key).await, "{key} was made a moment ago: {said:#?}");
    }
    assert!(said.has("stale_lock", "lock:new") && said.has("no_expiry", "cache:new"), "{said:#?}");
    // Nor is it by somebody who believes it to be.
    let server = Server::from_url(&redis.url(), "").unwrap().connect().await.unwrap();
    let mut seen = server.survey(&[b"lock:new".to_vec()]).await.unwrap();
    let seen = seen.pop().unwrap();
    assert!(seen.untouched.is_none_or(|time| time < Duration::from_secs(3_600)), "{seen:?}");
    let hour = Duration::from_secs(3_600);
    assert!(!server.remove_stale(&seen, hour, Some(hour)).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_renewed_after_the_look_is_not_removed() {
    let redis = healthy();
    let server = Server::from_url(&redis.url(), "").unwrap().connect().await.unwrap();
    let (hour, day) = (Duration::from_secs(3_600), Some(Duration::from_secs(86_400)));
    let keys = ["expires", "written", "read", "other", "stale"];
    let mut seen = Vec::new();
    for key in keys {
        untouched(&redis, key, "0").await;
        seen.extend(server.survey(&[key.as_bytes().to_vec()]).await.unwrap());
    }
    assert!(seen.iter().all(|key| key.untouched >= Some(hour)), "{seen:?}");
    run(&redis, &["EXPIRE expires 60", "SET written 2", "GET read", "DEL other", "RPUSH other 1"])
        .await;
    let mut removed = Vec::new();
    for key in &seen {
        removed.push(server.remove_stale(key, hour, day).await.unwrap());
    }
    assert_eq!(removed, [false, false, false, false, true]);
    assert!(exists(&redis, "other").await && !exists(&redis, "stale").await);
    untouched(&redis, "goes", "60000").await;
    let goes = server.survey(&[b"goes".to_vec()]).await.unwrap();
    assert!(!server.remove_stale(&goes[0], hour, day).await.unwrap(), "it goes by itself in time");
    // Nor a stream, whoever asks for it; nor a consumer that was given something meanwhile.
    run(&redis, &["XADD jobs 1-0 a b", "XGROUP CREATE jobs mail 0"]).await;
    run(&redis, &["XGROUP CREATECONSUMER jobs mail one", "XGROUP CREATECONSUMER jobs mail two"])
        .await;
    let stream = server.survey(&[b"jobs".to_vec()]).await.unwrap();
    assert!(!server.remove_stale(&stream[0], Duration::ZERO, None).await.unwrap());
    run(&redis, &["XREADGROUP GROUP mail one STREAMS jobs >"]).await;
    let remove = |name| server.remove_consumer(b"jobs", "mail", name, Duration::ZERO);
    assert!(!remove("one").await.unwrap(), "it has something pending");
    assert!(!server.remove_consumer(b"jobs", "mail", "two", hour).await.unwrap(), "it was here");
    assert!(remove("two").await.unwrap() && !remove("nobody").await.unwrap());
    assert!(!server.remove_consumer(b"gone", "mail", "two", hour).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_lose_what_rules_need_are_found_and_mended() {
    let durable =
        RULES.replace("biggest = \"1MiB\"\nlimit", "durable = true\nbiggest = \"1MiB\"\nlimit");
    let (redis, file) = (healthy(), File::new(&durable));
    assert_eq!(file.review_at(&redis, &[]).code, 0);
    for (bad, fault, fix) in [
        (
            "CONFIG SET maxmemory-policy allkeys-lru",
            "eviction",
            "CONFIG SET maxmemory-policy noeviction",
        ),
        (
            "CONFIG SET maxmemory-policy volatile-lru",
            "eviction",
            "CONFIG SET maxmemory-policy noeviction",
        ),
        ("CONFIG SET appendonly no", "persistence", "CONFIG SET appendonly yes"),
        ("CONFIG SET appendfsync no", "persistence", "CONFIG SET appendfsync everysec"),
        ("CONFIG SET maxmemory 0", "memory_limit", "CONFIG SET maxmemory 1024mb"),
    ] {
        run(&redis, &[bad]).await;
        let said = file.review_at(&redis, &[]);
        assert_eq!((said.code, said.findings.len()), (1, 1), "{bad}: {said:#?}");
        assert_eq!(said.of(fault).fix, fix, "{said:#?}");
        run(&redis, &[fix]).await;
        let healed = || async { file.review_at(&redis, &[]).code == 0 };
        eventually(&format!("{fix} mends it"), BOUND, healed).await;
    }
    // What counts uses keeps no idle times, so what depends on them cannot be checked.
    run(&redis, &["CONFIG SET maxmemory-policy volatile-lfu"]).await;
    let said = file.review_at(&redis, &[]);
    assert!(said.code == 2 && said.unchecked[0].contains("stale_after has no effect"), "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_relays_keys_need_no_rule_with_and_without_postgres() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 5).await;
    write_rows(&world, "payments", 5).await;
    world.settled().await;
    world.redis::<()>(&["CONFIG", "SET", "maxmemory", "1gb"]).await;
    let file = File::new(RULES);
    let (database, url) = (world.urls().0, world.redis.url());
    let both = [("DATABASE_URL", database.as_str()), ("REDIS_URL", &url)];
    let alone = [("REDIS_URL", url.as_str())];
    for variables in [&both[..], &alone] {
        let said = file.review(&[], variables);
        assert_eq!((said.code, said.keys, said.relay_keys), (0, 3, 3), "{said:#?}");
    }
    // One that only looks like the relay's is known for what it is by Postgres.
    world.redis::<String>(&["XADD", "alike", "1-1", "id", "1", "at", "2", "payload", "3"]).await;
    world.redis::<String>(&["XADD", "foreign", "*", "a", "b"]).await;
    let foreign = [("no_owner", "foreign"), ("unlimited_stream", "foreign")];
    let alike = [("no_owner", "alike"), ("unlimited_stream", "alike")];
    let said = file.review(&[], &alone);
    assert_eq!(said.faults(), set(&foreign), "{said:#?}");
    let said = file.review(&[], &both);
    assert_eq!(said.faults(), set(&[foreign, alike].concat()), "{said:#?}");
    let gone = [("DATABASE_URL", "postgres://u@127.0.0.1:1/d"), ("REDIS_URL", &url)];
    let said = file.review(&[], &gone);
    assert!(
        said.code == 2 && said.unchecked[0].contains("which streams the relay fills"),
        "{said:#?}"
    );
    assert_eq!(said.faults(), set(&foreign), "Redis is looked at all the same");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_on_all_primaries_of_a_cluster_are_found_and_removed() {
    let world = World::with_cluster(0).await;
    let nodes = &world.cluster.as_ref().unwrap().nodes;
    for node in nodes {
        run(node, &["CONFIG SET maxmemory 1gb"]).await;
    }
    let mut homes = BTreeSet::new();
    for key in ["stray:1", "stray:2", "stray:3", "lock:1", "lock:2", "lock:3", "lock:4"] {
        world.redis::<()>(&["SET", key, "token"]).await;
        homes.insert(world.cluster.as_ref().unwrap().owner(key).await);
    }
    assert_eq!(homes.len(), 3, "keys on each primary");
    let ports: Vec<String> =
        nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
    let url = format!("redis+cluster://{}", ports.join(","));
    let rules = RULES.replacen("stale_after = \"1h\"", "stale_after = \"1s\"", 1);
    let file = File::new(&rules);
    let variables = [("REDIS_URL", url.as_str())];
    // A prefix that puts all of the relay's keys into one slot does not hide the other primaries.
    for variables in [&variables[..], &[variables[0], ("OUTBOX_PREFIX", "{shop}:")]] {
        let said = file.review(&[], variables);
        assert_eq!((said.code, said.keys, said.whole), (1, 7, true), "{said:#?}");
        let counts = [said.of("no_owner").count, said.of("stale_lock").count];
        assert_eq!(counts, [3, 4], "{said:#?}");
    }
    eventually("nobody has touched the locks for a second, so they are removed", BOUND, || async {
        let said = file.review(&["--remove"], &variables);
        said.faults().iter().all(|(fault, _)| fault == "no_owner")
    })
    .await;
    assert_eq!(file.review(&[], &variables).keys, 3, "the others stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_thousand_keys_are_looked_at_without_holding_redis_up() {
    let (redis, file) = (healthy(), File::new(RULES));
    let fill = "for i = 1, 100000 do redis.call('SET', 'cache:' .. i, i, 'EX', 3600) end";
    ask::<redis::Value>(&redis, &["EVAL", fill, "0"]).await;
    // A process may have to wait for its turn on a busy machine; what takes long by itself does each time.
    run(&redis, &["SET stray 1", "CONFIG SET slowlog-log-slower-than 100000"]).await;
    run(&redis, &["SLOWLOG RESET", "CONFIG RESETSTAT"]).await;
    let said = file.review_at(&redis, &[]);
    assert_eq!(said.faults(), set(&[("no_owner", "stray")]), "{said:#?}");
    assert_eq!((said.keys, said.whole), (100_001, true), "{said:#?}");
    let slow: Vec<redis::Value> = ask(&redis, &["SLOWLOG", "GET"]).await;
    assert!(slow.is_empty(), "a command took longer than 100 ms: {slow:#?}");
    let stats: String = ask(&redis, &["INFO", "commandstats"]).await;
    let mut seen = BTreeSet::new();
    for line in stats.lines().filter_map(|line| line.strip_prefix("cmdstat_")) {
        let (name, rest) = line.split_once(':').unwrap();
        let each = rest.split(',').find_map(|part| part.strip_prefix("usec_per_call=")).unwrap();
        assert!(each.parse::<f64>().unwrap() < 2_000.0, "on average: {line}");
        seen.insert(name.split('|').next().unwrap());
    }
    for values in ["keys", "get", "dump", "lrange", "xrange"] {
        assert!(seen.contains("scan") && !seen.contains(values), "{stats}");
    }
    let memory = said.findings[0].bytes;
    assert!((1..1_000).contains(&memory), "{said:#?}");
    let part = file.review_at(&redis, &["--keys", "2000"]);
    assert!(!part.whole && (2_000..3_000).contains(&part.keys), "{part:#?}");
    let told = file.run(&["--keys", "2000"], &[("REDIS_URL", &redis.url())]);
    assert!(told.out.contains(", NOT ALL there are; 0 of the relay"), "{}", told.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_with_errors_exit_64_with_all_of_them() {
    let file =
        File::new("[[rule]]\nkeys = \"a\"\nttl = 1\n[[rule]]\nkeys = \"b\"\nkind = \"bag\"\n");
    let path = file.path();
    let rules = ("OUTBOX_REVIEW_RULES", path.to_str().unwrap());
    let told =
        ["REDIS_URL", "line 3, rule \"a\": ttl is no field", "line 6, rule \"b\": kind", "--keys"];
    fails(&["review", "--keys", "0"], &[rules], 64, &told);
    let url = ("REDIS_URL", "redis://127.0.0.1:1");
    fails(&["review"], &[url], 64, &["OUTBOX_REVIEW_RULES: is not set", "--example"]);
    let nowhere = ("OUTBOX_REVIEW_RULES", "/no/such/file");
    fails(&["review"], &[url, nowhere], 64, &["cannot read /no/such/file"]);
    fails(&["review", "--dry-run"], &[url, rules], 64, &["--remove"]);
    // A relay does not begin with them either.
    let database = ("DATABASE_URL", "postgres://u@127.0.0.1:1/d");
    fails(&["run"], &[url, database, rules], 64, &["line 3, rule \"a\"", "line 6, rule \"b\""]);
    let example = command(&["review", "--example"], &[]);
    assert_eq!((example.code, example.out.as_str()), (Some(0), outbox_relay::review::EXAMPLE));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_rights_or_without_redis_it_says_so_and_exits_2() {
    let (mut redis, file) = (healthy(), File::new(RULES));
    run(&redis, &[&format!("ACL SETUSER weak on >weak {}", rights(""))]).await;
    untouched(&redis, "cache:dead", "0").await;
    run(&redis, &["RPUSH jobs:1 a", "XADD jobs:2 * a b", "XGROUP CREATE jobs:2 mail 0"]).await;
    let url = format!("redis://weak:weak@127.0.0.1:{}", redis.port());
    let weak = || file.review(&["--remove"], &[("REDIS_URL", &url)]);
    let said = weak();
    let missing = format!("ACL SETUSER weak {}", rights_of_review());
    assert!(said.code == 2 && said.unchecked[0].contains(&missing), "{said:#?}");
    // With what it says, and nothing else, it does all that it does.
    run(&redis, &[&missing]).await;
    let said = weak();
    assert_eq!((said.code, said.removed.keys), (0, 1), "{said:#?}");
    run(&redis, &["ACL SETUSER weak resetkeys ~shop:*"]).await;
    let said = weak();
    assert!(said.code == 2 && said.unchecked[0].contains("ACL SETUSER weak ~*"), "{said:#?}");
    redis.kill().unwrap();
    let said = file.review_at(&redis, &[]);
    assert!(said.code == 2 && said.unchecked[0].contains("cannot connect to Redis"), "{said:#?}");
    assert!(!said.whole && said.keys == 0, "{said:#?}");
    let told = file.run(&[], &[("REDIS_URL", &redis.url())]);
    assert_eq!(told.code, Some(2));
    assert!(told.out.contains("not all could be checked"), "{}", told.out);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_reviews_counts_and_removes_and_a_standby_does_not() {
    let world = World::new().await;
    let rights: Vec<String> = rights_of_review().split(' ').map(str::to_owned).collect();
    let words: Vec<&str> =
        ["ACL", "SETUSER", "relay"].into_iter().chain(rights.iter().map(String::as_str)).collect();
    world.redis::<()>(&words).await;
    let file = File::new(RULES);
    for key in ["cache:dead", "cache:kept:dead"] {
        untouched(&world.redis, key, "0").await;
    }
    run(&world.redis, &["SET lock:1 1", "SET lock:2 1", "SET stray 1"]).await;
    let path = file.path();
    let more = [("OUTBOX_REVIEW_RULES", path.to_str().unwrap()), ("OUTBOX_REVIEW_REMOVE", "on")];
    let mut leader = world.relay("leader", &more);
    leader.logged("leading with token").await;
    let standby = world.relay("standby", &more);
    let (at, other) = (address(&leader).await, address(&standby).await);
    let found = |fault: &str| format!("outbox_relay_review_findings{{finding=\"{fault}\"}}");
    for (fault, count) in [
        ("stale_lock", 2.0),
        ("no_owner", 1.0),
        ("stale_key", 1.0),
        ("memory_limit", 1.0),
        ("eviction", 0.0),
    ] {
        becomes(&at, &found(fault), count).await;
        assert_eq!(value(&other, &found(fault)).await, Some(0.0), "on the standby");
    }
    let last = "outbox_relay_last_review_timestamp_seconds";
    assert!(value(&at, last).await.unwrap() > 1e9);
    assert!(value(&at, "outbox_relay_review_keys").await.unwrap() >= 5.0);
    assert_eq!(value(&other, last).await, Some(0.0));
    leader.logged("the review removed 1 stale key and 0 idle consumers: cache:dead").await;
    leader.logged("1 stale_key of cache:kept:*").await;
    assert!(
        !exists(&world.redis, "cache:dead").await && exists(&world.redis, "cache:kept:dead").await
    );
    // Who takes over reviews at once.
    assert!(leader.stop().success());
    becomes(&other, &found("stale_lock"), 2.0).await;
    standby.logged("leading with token").await;
    standby.logged(" keys of Redis: ").await;
    let log = standby.log();
    let (led, reviewed) = (log.find("leading with token"), log.find(" keys of Redis: "));
    assert!(led < reviewed, "a standby does not review: {log}");
    write_rows(&world, "orders", 5).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_review_that_fails_is_told_and_does_not_disturb_the_relay() {
    let world = World::new().await;
    let file = File::new(RULES);
    let path = file.path();
    let relay: Relay = world.relay("relay", &[("OUTBOX_REVIEW_RULES", path.to_str().unwrap())]);
    relay.logged(&format!("ACL SETUSER relay {}", rights_of_review())).await;
    let at = address(&relay).await;
    assert_eq!(value(&at, "outbox_relay_last_review_timestamp_seconds").await, Some(0.0));
    write_rows(&world, "orders", 20).await;
    world.reconcile().await;
    relay.lost_nothing();
}
