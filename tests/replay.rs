//! A part of the log copied into a stream of its own, which expires.

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{Ended, command, fails};
use crate::support::eventually;
use crate::support::relay::program;
use crate::support::world::World;
use crate::support::writers::write_rows;

const BOUND: Duration = Duration::from_secs(30);
/// Enough that a copy of them is still at work when a test has noticed that it has begun.
const MANY: u64 = 100_000;

type Entries = Vec<(String, Vec<String>)>;

fn variables(urls: &(String, String)) -> [(&str, &str); 2] {
    [("DATABASE_URL", &urls.0), ("REDIS_URL", &urls.1)]
}

/// `replay` of the stream `orders` with these words more.
#[track_caller]
fn replay(world: &World, words: &[&str]) -> Ended {
    let urls = world.urls();
    command(&[&["replay", "--stream", "orders"], words].concat(), &variables(&urls))
}

/// As [`replay`], where it must be refused with these texts.
#[track_caller]
fn refused(world: &World, words: &[&str], texts: &[&str]) {
    let words = [&["replay", "--stream", "orders"], words].concat();
    fails(&words, &variables(&world.urls()), 1, texts);
}

async fn entries(world: &World, stream: &str) -> Entries {
    world.redis(&["XRANGE", stream, "-", "+"]).await
}

async fn exists(world: &World, key: &str) -> bool {
    world.redis::<u64>(&["EXISTS", key]).await == 1
}

/// Rows of `orders`, each sealed apart from the others.
async fn write_apart(world: &World, count: usize) {
    for _ in 0..count {
        write_rows(world, "orders", 1).await;
        world.settled().await;
    }
}

/// A world without a relay, in which `orders` has [`MANY`] entries.
async fn large() -> World {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    let rows = format!("select 'orders', to_jsonb(i) from generate_series(1, {MANY}) i");
    world.sql(&format!("insert into outbox.entry (stream, payload) {rows}")).await;
    world.settled().await;
    relay.stop();
    world
}

/// A replay of all of `orders` into `again`, at work.
struct AtWork(Child);

impl AtWork {
    async fn start(world: &World) -> Self {
        let words = ["replay", "--stream", "orders", "--from", "1", "--into", "again"];
        let errors = std::fs::File::create(world.folder.path().join("replay.err")).unwrap();
        let child = Command::new(program())
            .args(words)
            .envs(variables(&world.urls()))
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .unwrap();
        let at_work = Self(child);
        let mut streams = world.streams().await;
        let begun = std::time::Instant::now();
        loop {
            let mut length = redis::cmd("XLEN");
            if length.arg("again").query_async::<u64>(&mut streams).await.unwrap() > 0 {
                break;
            }
            assert!(begun.elapsed() < BOUND, "the copy has not begun");
        }
        at_work.signal(Signal::STOP);
        at_work
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    async fn error(&mut self, world: &World) -> String {
        eventually("the replay ends", BOUND, || {
            let ended = self.0.try_wait().unwrap().is_some();
            async move { ended }
        })
        .await;
        assert_eq!(self.0.wait().unwrap().code(), Some(1));
        std::fs::read_to_string(world.folder.path().join("replay.err")).unwrap()
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_the_log_is_copied_as_it_is_and_expires() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 5_000).await;
    world.settled().await;
    let words = ["--from", "11", "--to", "4500", "--into", "again", "--json"];
    let dry = replay(&world, &[&words[..], &["--dry-run"]].concat());
    let told: Value = serde_json::from_str(&dry.out).unwrap_or_else(|e| panic!("{e}: {dry:#?}"));
    assert_eq!((&told["entries"], &told["done"]), (&4_490.into(), &false.into()), "{told}");
    assert!(!exists(&world, "again").await, "a dry run did something");
    let copied = replay(&world, &words);
    let told: Value =
        serde_json::from_str(&copied.out).unwrap_or_else(|e| panic!("{e}: {copied:#?}"));
    let (all, again) = (entries(&world, "orders").await, entries(&world, "again").await);
    assert_eq!(again, all[10..4_500]);
    assert_eq!(told["first_id"], *all[10].0);
    assert_eq!(told["last_id"], *all[4_499].0);
    let ttl: i64 = world.redis(&["TTL", "again"]).await;
    assert!((604_700..=604_800).contains(&ttl), "{ttl}");
    let words = ["--from", "4999", "--into", "last", "--expire", "1m"];
    let copied = replay(&world, &words);
    assert!(
        copied.out.contains("copied 2 entries of stream orders into stream last"),
        "{copied:?}"
    );
    assert!((1..=60).contains(&world.redis::<i64>(&["TTL", "last"]).await));
    // Nobody else notices.
    write_rows(&world, "orders", 10).await;
    world.reconcile().await;
    relay.lost_nothing();
    assert_eq!(world.status("again").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_stand_for_the_entries_that_were_sealed_then() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    write_apart(&world, 6).await;
    relay.stop();
    // A second apart, so that a time lies between two of them.
    world.sql("update outbox.batch set ms = 1795000000000 + last_n * 1000").await;
    let time = |seconds: &str| format!("2026-11-18T11:06:{seconds}Z");
    let ids = |from: u64, to: u64| (from, to);
    let cases = [
        (time("41"), time("44"), Some(ids(1, 4))),
        (time("41.0001"), time("43.9999"), Some(ids(2, 3))),
        (time("30"), time("59"), Some(ids(1, 6))),
        (time("46"), time("46"), Some(ids(6, 6))),
        (time("44.5"), time("44.6"), None),
        (time("30"), time("40.9"), None),
        (time("46.1"), time("59"), None),
    ];
    for (from, to, expected) in cases {
        let words = ["--from", &from, "--to", &to, "--into", "again", "--dry-run"];
        match expected {
            Some((first, last)) => {
                let told = replay(&world, &words);
                let range = format!(
                    "{}-{first} to {}-{last}",
                    1_795_000_000_000 + first * 1_000,
                    1_795_000_000_000 + last * 1_000
                );
                let said = told.out.replace('\n', " ");
                assert!(said.contains(&range), "{words:?}: {told:#?}");
            }
            None => refused(&world, &words, &["no entry of stream orders lies", "head is 6"]),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_longer_in_postgres_is_named_and_nothing_is_done() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    write_apart(&world, 10).await;
    relay.stop();
    let first = "select id from outbox.entry order by id limit 3";
    world.sql(&format!("delete from outbox.entry where id in ({first})")).await;
    let words = ["--from", "1", "--into", "again"];
    let gone = ["of entries 1 to 10 of stream orders, 1 to 3 are no longer", "--from 4 --to 10"];
    refused(&world, &words, &gone);
    world.sql("delete from outbox.batch where last_n <= 3").await;
    refused(&world, &words, &gone);
    refused(&world, &["--from", "2000-01-01T00:00:00Z", "--into", "again"], &gone);
    refused(&world, &["--from", "1", "--to", "3", "--into", "again"], &["none of them"]);
    world.sql("delete from outbox.entry where id = (select max(id) from outbox.entry)").await;
    let gone = ["of entries 2 to 10", "2 to 3, 10 are no longer", "--from 4 --to 9"];
    refused(&world, &["--from", "2", "--into", "again"], &gone);
    assert!(!exists(&world, "again").await);
    let copied = replay(&world, &["--from", "4", "--to", "9", "--into", "again"]);
    assert_eq!(copied.code, Some(0), "{copied:#?}");
    assert_eq!(entries(&world, "again").await, entries(&world, "orders").await[3..9]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_somebodys_is_refused() {
    let world = World::new().await;
    write_rows(&world, "orders", 1).await;
    let into = |into| ["--from", "1", "--into", into];
    refused(&world, &into("again"), &["no row of stream orders is sealed yet"]);
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "mail", 1).await;
    world.settled().await;
    relay.stop();
    refused(&world, &into("mail"), &["rows of outbox.entry name the stream mail", "--into"]);
    refused(&world, &into("orders"), &["name the stream orders"]);
    write_rows(&world, "new", 1).await;
    refused(&world, &into("new"), &["name the stream new"]);
    world.redis::<String>(&["SET", "text", "1"]).await;
    refused(&world, &into("text"), &["the key text exists", "a string", "DEL text"]);
    world.redis::<String>(&["XADD", "taken", "7-7", "a", "b"]).await;
    refused(&world, &into("taken"), &["the key taken exists", "at 7-7"]);
    let beyond = ["--from", "1", "--to", "2", "--into", "again"];
    refused(&world, &beyond, &["--to 2 is beyond the head of stream orders, which is 1 (ID "]);
    refused(&world, &["--from", "2", "--into", "again"], &["--from 2 is beyond the head"]);
    let nobody = ["replay", "--stream", "nobody", "--from", "1", "--into", "again"];
    fails(&nobody, &variables(&world.urls()), 1, &["nobody", "status --all"]);
    let other = uuid::Uuid::new_v4().to_string();
    world.redis::<i64>(&["HSET", "outbox:identity", "id", &other]).await;
    refused(&world, &into("again"), &["belongs to outbox", &other]);
    assert!(!exists(&world, "again").await);
}

#[test]
fn all_that_is_wrong_with_the_words_is_told_at_once() {
    let words = ["replay", "--stream", "orders", "--from", "0", "--to", "soon", "--into"];
    let wrong = [
        "--from: \"0\" is neither a number of an entry",
        "--to: \"soon\" is neither",
        "--into: \"outbox:x\" begins with",
        "--expire: \"59s\" is not between 60s and",
        "DATABASE_URL",
        "REDIS_URL",
    ];
    fails(&[&words[..], &["outbox:x", "--expire", "59s"]].concat(), &[], 64, &wrong);
    fails(&[&words[..], &["a b"]].concat(), &[], 64, &["--into: \"a b\" is not 1 to 128"]);
    let backwards = ["replay", "--stream", "s", "--from", "9", "--to", "8", "--into", "t"];
    fails(&backwards, &[], 64, &["--to: 8 is before --from 9"]);
    fails(&[&backwards[..], &["--expire", "366d"]].concat(), &[], 64, &["--expire: \"366d\""]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_replay_leaves_nothing_for_ever() {
    let world = large().await;
    let mut replay = AtWork::start(&world).await;
    replay.0.kill().unwrap();
    replay.0.wait().unwrap();
    let copied: u64 = world.redis(&["XLEN", "again"]).await;
    assert!((1..MANY).contains(&copied), "{copied}");
    let ttl: i64 = world.redis(&["TTL", "again"]).await;
    assert!((1..=604_800).contains(&ttl), "{ttl}");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_stops_where_somebody_else_writes() {
    let world = large().await;
    let mut replay = AtWork::start(&world).await;
    let id: String = world.redis(&["XADD", "again", "*", "a", "b"]).await;
    replay.signal(Signal::CONT);
    let error = replay.error(&world).await;
    let told = format!("somebody else writes to stream again: it is at {id}, and was left at ");
    assert!(error.contains(&told) && error.contains("expires by itself"), "{error}");
    assert!(exists(&world, "again").await, "what somebody wrote was removed");
    assert!(world.redis::<i64>(&["TTL", "again"]).await > 0);
    world.redis::<u64>(&["DEL", "again"]).await;
    let mut replay = AtWork::start(&world).await;
    world.redis::<u64>(&["DEL", "again"]).await;
    replay.signal(Signal::CONT);
    let error = replay.error(&world).await;
    assert!(error.contains("stream again was removed while it was filled"), "{error}");
    assert!(!exists(&world, "again").await);
    let mut replay = AtWork::start(&world).await;
    write_rows(&world, "again", 1).await;
    replay.signal(Signal::CONT);
    let error = replay.error(&world).await;
    assert!(error.contains("has written rows that name the stream again"), "{error}");
    assert!(!exists(&world, "again").await, "the relay would meet our copy there");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_room_in_redis_nothing_is_left() {
    let options = RedisOptions::default().with("maxmemory-policy", "noeviction");
    let world = World::with(PostgresOptions::default(), options).await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    relay.stop();
    world.redis::<String>(&["CONFIG", "SET", "maxmemory", "1"]).await;
    refused(&world, &["--from", "1", "--into", "again"], &["Redis has no room for it", "OOM"]);
    assert!(!exists(&world, "again").await);
}
