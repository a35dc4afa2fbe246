//! What is wrong is found, and what mends it mends it: each time the real thing, on real servers.

mod postgres;
mod redis;

use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};
use serde::Deserialize;

use crate::support::command::{SECRET, command, fails};
use crate::support::eventually;
use crate::support::world::World;
use crate::support::writers::write_rows;

const BOUND: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Finding {
    area: String,
    what: String,
    why: String,
    fix: String,
}

/// What the program said.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    ok: bool,
    findings: Vec<Finding>,
    unchecked: Vec<String>,
    #[serde(skip)]
    code: i32,
}

impl Said {
    /// The one finding about `what`.
    #[track_caller]
    fn one(&self, what: &str) -> &Finding {
        let found: Vec<&Finding> = self.about(what).collect();
        let [finding] = found[..] else {
            panic!("{} findings about {what:?}: {self:#?}", found.len())
        };
        finding
    }

    fn about(&self, what: &str) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(move |finding| finding.what.contains(what))
    }

    fn whats(&self) -> Vec<&str> {
        self.findings.iter().map(|finding| finding.what.as_str()).collect()
    }
}

/// The doctor with these variables, and nothing else.
#[track_caller]
fn doctor_with(variables: &[(&str, &str)], words: &[&str]) -> Said {
    let ended = command(&[&["doctor", "--json"], words].concat(), variables);
    let said = serde_json::from_str(&ended.out);
    let mut said: Said = said.unwrap_or_else(|error| panic!("{error}: {ended:#?}"));
    said.code = ended.code.unwrap();
    ended.hides(SECRET);
    for finding in &said.findings {
        let texts = [&finding.what, &finding.why, &finding.fix];
        assert!(texts.iter().all(|text| !text.is_empty()), "{finding:#?}");
        assert!(["postgres", "redis", "configuration"].contains(&&*finding.area), "{finding:#?}");
    }
    assert_eq!(said.ok, said.code == 0, "{said:#?}");
    said
}

fn variables(urls: &(String, String)) -> [(&str, &str); 2] {
    [("DATABASE_URL", &urls.0), ("REDIS_URL", &urls.1)]
}

#[track_caller]
fn doctor(world: &World) -> Said {
    doctor_with(&variables(&for_doctor(world)), &[])
}

/// Where the servers are, for somebody who may look at settings too.
fn for_doctor(world: &World) -> (String, String) {
    (world.urls().0, world.redis.url())
}

/// Does what a finding says, as whoever may: the owner of the schema, the administrator of Redis.
async fn mend(world: &World, finding: &Finding) {
    let Finding { area, fix, .. } = finding;
    if let Some(words) = fix.strip_prefix("outbox-relay ") {
        let words: Vec<&str> = words.split(' ').collect();
        let urls = (world.postgres.url(), world.redis.url());
        let ended = command(&words, &variables(&urls));
        assert_eq!(ended.code, Some(0), "{fix}: {ended:#?}");
    } else if area == "redis" {
        let words: Vec<&str> = fix.split(' ').collect();
        world.redis::<::redis::Value>(&words).await;
    } else if fix.starts_with("begin;") {
        world.sql(fix).await;
    } else {
        // As psql sends it: alter system stands alone.
        for statement in fix.split("; ") {
            world.sql(statement).await;
        }
    }
}

/// Finds one thing about `what`, mends it, and waits until it is no longer found.
async fn found_and_mended(world: &World, what: &str, fix: &str) {
    let said = doctor(world);
    let finding = said.one(what);
    assert_eq!((finding.fix.as_str(), said.code), (fix, 1), "{said:#?}");
    mend(world, finding).await;
    gone(world, what).await;
}

/// Waits until nothing about `what` is found.
async fn gone(world: &World, what: &str) {
    let name = format!("nothing is found about {what}");
    eventually(&name, BOUND, || async { doctor(world).about(what).next().is_none() }).await;
}

/// Servers as they should be, of which Redis writes to disk and knows its limit.
async fn healthy() -> World {
    let postgres = PostgresOptions { fsync: true, ..PostgresOptions::default() };
    let redis = RedisOptions::default().with("appendonly", "yes").with("maxmemory", "1gb");
    World::with(postgres, redis).await
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_found_where_nothing_is_wrong_and_nothing_is_changed() {
    let world = healthy().await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    let said = doctor(&world);
    assert_eq!((said.code, said.whats()), (0, vec![]), "{said:#?}");
    assert_eq!(said.unchecked, [""; 0]);
    let urls = for_doctor(&world);
    let told = command(&["doctor"], &variables(&urls));
    assert_eq!(told.out, "nothing is wrong with Postgres, Redis and the configuration\n");
    let mut keys: Vec<String> = world.redis(&["KEYS", "*"]).await;
    keys.sort();
    assert_eq!(keys, ["orders", "outbox:identity"], "the doctor leaves nothing behind");
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn fresh_servers_need_little_and_people_are_told_within_a_hundred_columns() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 1).await;
    world.settled().await;
    let said = doctor(&world);
    let whats = said.whats();
    assert_eq!(whats.len(), 3, "{said:#?}");
    assert_eq!(whats[0], "fsync is off", "the worst first");
    let urls = for_doctor(&world);
    let told = command(&["doctor"], &variables(&urls)).out;
    assert!(told.lines().all(|line| line.chars().count() <= 100), "{told}");
    assert!(told.ends_with("3 findings, the worst first\n"), "{told}");
    let fix = "alter system set fsync = on; select pg_reload_conf()";
    found_and_mended(&world, "fsync is off", fix).await;
    found_and_mended(&world, "maxmemory is 0", "CONFIG SET maxmemory 1024mb").await;
    found_and_mended(&world, "writes nothing to disk", "CONFIG SET appendonly yes").await;
    assert_eq!(doctor(&world).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_is_told_and_the_other_looked_at_all_the_same() {
    let mut world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 1).await;
    world.settled().await;
    relay.stop();
    world.redis.stop().unwrap();
    let said = doctor(&world);
    assert_eq!((said.code, said.unchecked.len()), (2, 1), "{said:#?}");
    assert!(said.unchecked[0].contains("cannot connect to Redis at 127.0.0.1:"), "{said:#?}");
    assert_eq!(said.one("no relay leads").fix, "outbox-relay run");
    world.redis.start_again().unwrap();
    world.redis::<String>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    world.postgres.stop_fast().unwrap();
    let said = doctor(&world);
    assert_eq!(said.code, 2, "{said:#?}");
    assert!(said.unchecked[0].contains("cannot connect to Postgres at 127.0.0.1:"), "{said:#?}");
    assert!(said.unchecked[1].contains("Postgres has not said which"), "{said:#?}");
    assert_eq!(said.findings[0].what, "maxmemory-policy is allkeys-lru");
    let urls = for_doctor(&world);
    let told = command(&["doctor"], &variables(&urls)).out;
    assert!(told.contains("\nnot checked") && told.contains("not all could be checked"), "{told}");
    assert!(told.lines().all(|line| line.chars().count() <= 100), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_is_told_and_redis_looked_at_all_the_same() {
    let world = World::bare(PostgresOptions::default(), RedisOptions::default());
    let urls = (world.postgres.url(), world.redis.url());
    let said = doctor_with(&variables(&urls), &[]);
    assert_eq!(said.code, 2, "{said:#?}");
    assert!(said.unchecked[0].contains("make it with `outbox-relay migrate`"), "{said:#?}");
    assert_eq!(said.one("a superuser").area, "configuration");
    assert_eq!(said.one("maxmemory is 0").area, "redis");
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_are_allowed_and_not_wise_are_told() {
    let world = healthy().await;
    let _relay = world.relay("relay", &[]);
    let urls = (world.postgres.url(), world.redis.url());
    let unwise = [("OUTBOX_LEASE", "1s"), ("OUTBOX_POLL", "500ms"), ("OUTBOX_AUDIT", "2m")];
    let said = doctor_with(&[&variables(&urls)[..], &unwise].concat(), &[]);
    assert_eq!(said.one("OUTBOX_LEASE is 1.0 s").fix, "OUTBOX_LEASE=1500ms");
    assert_eq!(said.one("OUTBOX_AUDIT is 2 m").fix, "OUTBOX_AUDIT=5s");
    let role = "DATABASE_URL connects as postgres, a superuser";
    assert_eq!(said.one(role).fix, "outbox-relay migrate --relay-role relay");
    assert!(said.findings.iter().filter(|f| f.area == "configuration").count() == 3, "{said:#?}");
    world.sql("create role boss login; grant postgres to boss").await;
    let urls = (world.postgres.url_of("postgres", "boss"), world.redis.url());
    let said = doctor_with(&variables(&urls), &[]);
    said.one("DATABASE_URL connects as boss, the owner of the schema");
}

#[test]
fn a_wrong_configuration_exits_64_with_all_that_is_wrong() {
    let wrong = [("OUTBOX_LEASE", "1ms"), ("OUTBOX_BATCH_ROWS", "0"), ("REDIS_URL", "x")];
    let told = ["DATABASE_URL", "REDIS_URL", "OUTBOX_LEASE", "OUTBOX_BATCH_ROWS", "--long-tran"];
    fails(&["doctor", "--long-transaction", "0s"], &wrong, 64, &told);
}
