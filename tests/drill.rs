//! Redis emptied on purpose under the running relay: refused where anything would be lost for good, and
//! watched until everything and everybody is back.

use std::collections::HashMap;
use std::fs::File;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use outbox_relay::stream::{rights, rights_in_cluster};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{Ended, command, fails};
use crate::support::nodes::ask;
use crate::support::relay::{Relay, program};
use crate::support::workers::{GroupState, Workers, make_group};
use crate::support::world::World;
use crate::support::writers::{STREAMS, Writers, write_rows};
use crate::support::{eventually, pause};

/// A stream that nobody writes to while it is lost.
const QUIET: &str = "quiet";
const GROUP: &str = "mail";
const BOUND: Duration = Duration::from_secs(30);

/// A world with a user that may hold drills, and words and variables of a drill in it.
struct Ground {
    world: World,
    urls: (String, String),
    name: String,
}

impl Ground {
    async fn of(world: World) -> Self {
        let readme = include_str!("../README.md");
        let line = readme.lines().find(|line| line.starts_with("ACL SETUSER drill ")).unwrap();
        assert_eq!(line, format!("ACL SETUSER drill on >password {} +flushdb", rights("")));
        let in_cluster = rights_in_cluster();
        let words: Vec<&str> =
            line.split(' ').chain(["nopass"]).chain(in_cluster.split(' ')).collect();
        let nodes: Vec<_> = match &world.cluster {
            Some(cluster) => cluster.nodes.iter().collect(),
            None => vec![&world.redis],
        };
        for node in &nodes {
            ask::<()>(node, &words).await;
        }
        let name: Vec<String> =
            nodes.iter().map(|node| format!("127.0.0.1:{}", node.port())).collect();
        let (database, redis) = world.urls();
        let (name, urls) = (name.join(","), (database, redis.replace("://relay:", "://drill:")));
        Self { world, urls, name }
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        vec![("DATABASE_URL", &self.urls.0), ("REDIS_URL", &self.urls.1)]
    }

    fn words<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        [&["drill", "--empty", &self.name], more].concat()
    }

    /// Holds it to its end.
    fn hold(&self, more: &[&str]) -> Ended {
        command(&self.words(more), &self.variables())
    }

    /// Begins to hold it; returns when Redis has been emptied.
    async fn begin(&self, more: &[&str]) -> Child {
        self.begin_until("Redis is empty", more).await
    }

    /// Begins to hold it; returns when it has said this.
    async fn begin_until(&self, told: &str, more: &[&str]) -> Child {
        let file = |name| File::create(self.world.folder.path().join(name)).unwrap();
        let drill = Command::new(program())
            .args(self.words(more))
            .envs(self.variables())
            .stdin(Stdio::null())
            .stdout(file("out"))
            .stderr(file("err"))
            .spawn()
            .unwrap();
        eventually(told, BOUND, || async { self.said("err").contains(told) }).await;
        drill
    }

    /// What one that was begun has said so far.
    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.world.folder.path().join(name)).unwrap()
    }

    /// It is refused, and Redis is the one that it was.
    #[track_caller]
    fn refused(&self, words: &[&str], code: i32, texts: &[&str]) -> Ended {
        fails(words, &self.variables(), code, texts)
    }

    /// What Redis holds, which life it is in.
    async fn state(&self) -> (u64, String) {
        let nonce = ["HGET", "outbox:identity", "nonce"];
        (self.world.redis(&["XLEN", QUIET]).await, self.world.redis(&nonce).await)
    }

    /// Rows of the quiet stream, in Redis, with a group that has taken none, stored.
    async fn with_rows(&self, count: usize) {
        write_rows(&self.world, QUIET, count).await;
        self.world.holds(QUIET, count as u64).await;
        make_group(&self.world, QUIET, GROUP).await;
        self.world.checkpointed(QUIET).await;
        self.world.settled().await;
    }
}

/// One Redis, a relay, and rows that wait for a group.
async fn ground() -> (Ground, Relay) {
    let ground = Ground::of(World::new().await).await;
    let relay = ground.world.relay("relay", &[("OUTBOX_CHECKPOINT", "100ms")]);
    ground.with_rows(20).await;
    (ground, relay)
}

/// Waits for the end of one that was begun.
async fn ends(mut drill: Child) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = drill.try_wait().unwrap() {
            return status;
        }
        assert!(begun.elapsed() < BOUND, "the drill goes on");
        pause().await;
    }
}

#[track_caller]
fn json(ended: &Ended) -> Value {
    serde_json::from_str(&ended.out).unwrap_or_else(|error| panic!("{error}: {ended:#?}"))
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// Everything of a report that holds whenever nothing was lost; returns how many entries are given again.
#[track_caller]
fn check_report(report: &Value, streams: &[&str]) -> u64 {
    assert_eq!(report["ok"], true, "{report:#}");
    let notice = report["seconds_to_notice"].as_f64().unwrap();
    let rebuild = report["seconds_to_rebuild"].as_f64().unwrap();
    assert!(notice >= 0.0 && (0.0..60.0).contains(&rebuild), "{report:#}");
    let mut names: Vec<&str> =
        list(&report["streams"]).iter().map(|stream| stream["stream"].as_str().unwrap()).collect();
    let mut expected = streams.to_vec();
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected, "{report:#}");
    let mut again = 0;
    for stream in list(&report["streams"]) {
        assert_eq!((&stream["missing"], &stream["different"]), (&0.into(), &0.into()), "{stream}");
        assert!(stream["seconds_to_rebuild"].as_f64().unwrap() <= rebuild, "{report:#}");
        for group in list(&stream["groups"]) {
            assert_eq!(group["back"], true, "{stream:#}");
            again += group["delivered_again"].as_u64().unwrap();
        }
    }
    again
}

#[tokio::test(flavor = "multi_thread")]
async fn under_writers_and_workers_nothing_is_lost_and_all_come_back() {
    let ground = Ground::of(World::new().await).await;
    let world = &ground.world;
    // Long enough for acknowledgements that no checkpoint has seen.
    let relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", "2s")]);
    let writers = Writers::start(world, 3);
    let workers = Workers::start(world, GROUP, &STREAMS).await;
    for stream in STREAMS {
        world.becomes(stream, "active").await;
    }
    writers.write_more(200).await;
    let ended = ground.hold(&["--within", "50s", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{}", relay.log());
    let report = json(&ended);
    let again = check_report(&report, &STREAMS);
    assert!(report["seconds_to_first_acknowledgement"].as_f64().unwrap() < 60.0, "{report:#}");
    for stream in list(&report["streams"]) {
        let consumers = list(&stream["groups"][0]["consumers"]);
        assert_eq!((consumers.len(), &consumers[0]["consumer"]), (1, &"worker".into()));
        assert!(consumers[0]["back_after_seconds"].as_f64().unwrap() < 60.0, "{stream:#}");
    }
    relay.logged("Redis lost its identity key").await;
    writers.write_more(100).await;
    writers.stop().await;
    let given_again = workers.finish(world, &STREAMS).await as u64;
    assert!(again > 0 && again <= given_again, "{again} of {given_again} told: {report:#}");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_was_asleep_before_is_not_waited_for() {
    let (ground, _relay) = ground().await;
    let world = &ground.world;
    let read = ["XREADGROUP", "GROUP", GROUP, "me", "COUNT", "9", "STREAMS", QUIET, ">"];
    world.redis::<redis::Value>(&read).await;
    world.checkpointed(QUIET).await;
    let before = world.group(QUIET, GROUP).await;
    eventually("it is asleep for longer than the drill waits", BOUND, || async {
        let found: Vec<HashMap<String, redis::Value>> =
            world.redis(&["XINFO", "CONSUMERS", QUIET, GROUP]).await;
        redis::from_redis_value::<u64>(found[0]["idle"].clone()).unwrap() > 8_000
    })
    .await;
    let ended = ground.hold(&["--within", "8s", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    let report = json(&ended);
    assert_eq!(check_report(&report, &[QUIET]), 0, "nothing was acknowledged meanwhile");
    let stream = &report["streams"][0];
    assert_eq!((&stream["entries_before"], &stream["entries_after"]), (&20.into(), &20.into()));
    let consumer = &stream["groups"][0]["consumers"][0];
    assert_eq!(
        (&consumer["stumbled"], &consumer["back_after_seconds"]),
        (&false.into(), &Value::Null)
    );
    assert!(consumer["idle_seconds_before"].as_f64().unwrap() >= 8.0, "{consumer}");
    let now = world.group(QUIET, GROUP).await.unwrap();
    let delivered = |group: &GroupState| {
        group
            .pending
            .iter()
            .map(|(id, consumer, _)| (id.clone(), consumer.clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(delivered(&now), delivered(&before.unwrap()), "what it has is put back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_is_not_named_twice_is_left_alone() {
    let (ground, mut relay) = ground().await;
    let before = ground.state().await;
    let word = format!("--empty {}", ground.name);
    let other = ["drill", "--empty", "127.0.0.1:1", "--within", "never"];
    ground.refused(&other, 64, &["names another Redis", &word, "--within"]);
    ground.refused(&["drill"], 64, &["--empty: is not given", &word]);
    let prefix = ground.words(&["--prefix", "other:"]);
    ground.refused(
        &prefix,
        2,
        &["nothing was emptied", "no relay of this database works", "OUTBOX_PREFIX"],
    );
    assert_eq!(ground.state().await, before);
    relay.lost_nothing();
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_nobody_would_put_back_need_consent() {
    let (ground, relay) = ground().await;
    for key in ["cart:1", "outbox:strange"] {
        ground.world.redis::<()>(&["SET", key, "1"]).await;
    }
    let before = ground.state().await;
    let texts = ["nothing was emptied", "2 keys", "cart:1 outbox:strange", "--others-too"];
    ground.refused(&ground.words(&[]), 2, &texts);
    assert_eq!(ground.state().await, before);
    assert!(ground.world.redis::<bool>(&["EXISTS", "cart:1"]).await);
    relay.lost_nothing();
    let ended = ground.hold(&["--others-too", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    assert_eq!(json(&ended)["other_keys_removed"], 2, "{ended:#?}");
    assert!(!ground.world.redis::<bool>(&["EXISTS", "cart:1"]).await);
    check_report(&json(&ended), &[QUIET]);
}

/// The relay stands still, so that the drill waits for its checkpoint.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_made_while_the_drill_waits_needs_consent_too() {
    let ground = Ground::of(World::new().await).await;
    let more = [("OUTBOX_CHECKPOINT", "100ms"), ("OUTBOX_LEASE", "60s")];
    let relay = ground.world.relay("relay", &more);
    ground.with_rows(20).await;
    relay.signal(Signal::STOP);
    let drill = ground.begin_until("waiting for a checkpoint", &[]).await;
    ground.world.redis::<()>(&["SET", "cart:1", "1"]).await;
    relay.signal(Signal::CONT);
    let (status, read) = (ends(drill).await, || ground.said("err"));
    assert_eq!(status.code(), Some(2), "{}", read());
    assert!(read().contains("nothing was emptied: Redis holds 1 key"), "{}", read());
    assert!(ground.world.redis::<bool>(&["EXISTS", "cart:1"]).await);
    relay.lost_nothing();
}

/// A copy of the database beside the one whose relay fills this Redis.
#[tokio::test(flavor = "multi_thread")]
async fn a_redis_of_another_postgres_cluster_is_left_alone() {
    let (ground, relay) = ground().await;
    relay.signal(Signal::STOP);
    ground.world.redis::<u64>(&["HSET", "outbox:identity", "system", "1"]).await;
    let before = ground.state().await;
    let texts = ["nothing was emptied", "names another Postgres cluster"];
    ground.refused(&ground.words(&[]), 2, &texts);
    assert_eq!(ground.state().await, before);
    relay.signal(Signal::CONT);
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_emptied_unless_all_would_come_back() {
    let (ground, mut relay) = ground().await;
    let (world, words) = (&ground.world, ground.words(&[]));
    let before = ground.state().await;
    let pause = command(&["pause", QUIET], &ground.variables());
    assert_eq!(pause.code, Some(0), "{pause:#?}");
    ground.refused(&words, 2, &["nothing was emptied", "stream quiet is paused"]);
    let resume = command(&["resume", QUIET], &ground.variables());
    assert_eq!(resume.code, Some(0), "{resume:#?}");
    world.becomes(QUIET, "active").await;
    // The rows are gone, the entries are there, and the group has not had them.
    world.sql("delete from outbox.entry where id in (select min(id) from outbox.entry)").await;
    ground.refused(&words, 2, &["nothing was emptied", "1 entry has", "no row any more"]);
    assert_eq!(ground.state().await, before);
    relay.lost_nothing();
    assert!(relay.stop().success());
    ground.refused(&words, 2, &["nothing was emptied", "start one with `outbox-relay run`"]);
    assert_eq!(ground.state().await, before);
    let other = "11111111-1111-1111-1111-111111111111";
    world.redis::<u64>(&["HSET", "outbox:identity", "id", other]).await;
    ground.refused(&words, 2, &["this Redis belongs to outbox", other]);
    assert_eq!(ground.state().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_differs_from_the_log_is_not_emptied() {
    let (ground, _relay) = ground().await;
    let world = &ground.world;
    let entries: Vec<(String, redis::Value)> = world.redis(&["XRANGE", QUIET, "-", "+"]).await;
    // In the middle, where no audit of positions sees it.
    world.redis::<u64>(&["XDEL", QUIET, &entries[10].0]).await;
    let before = ground.state().await;
    ground.refused(&ground.words(&[]), 2, &["nothing was emptied", "`outbox-relay verify`"]);
    assert_eq!(ground.state().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_without_the_right_is_told_which() {
    let (ground, relay) = ground().await;
    let before = ground.state().await;
    let urls = ground.world.urls();
    let variables = [("DATABASE_URL", urls.0.as_str()), ("REDIS_URL", urls.1.as_str())];
    let texts = ["user relay of Redis may not empty it", "ACL SETUSER relay +flushdb"];
    fails(&ground.words(&[]), &variables, 2, &texts);
    assert_eq!(ground.state().await, before);
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_does_not_ask_again_has_stumbled() {
    let (ground, relay) = ground().await;
    let world = &ground.world;
    // What it holds is put back, so the relay makes it again.
    let read = ["XREADGROUP", "GROUP", GROUP, "gone", "COUNT", "3", "STREAMS", QUIET, ">"];
    world.redis::<redis::Value>(&read).await;
    let _workers = Workers::join(world, GROUP, &[QUIET]);
    eventually("the worker works", BOUND, || async {
        world.group(QUIET, GROUP).await.is_some_and(|group| group.delivered.ends_with("-20"))
    })
    .await;
    let ended = ground.hold(&["--within", "10s"]);
    assert_eq!(ended.code, Some(1), "{ended:#?}\n{}", relay.log());
    assert!(ended.out.contains("! consumer gone has stumbled"), "{}", ended.out);
    assert!(ended.out.contains("STUMBLED: 1 consumer;"), "{}", ended.out);
    assert!(ended.out.contains(&format!("group {GROUP}: 1 consumer back")), "{}", ended.out);
    assert!(ended.took >= Duration::from_secs(10), "it is waited for: {ended:#?}");
}

/// Needs a build with fail-points: the relay has noticed, and has put nothing back.
#[cfg(feature = "failpoints")]
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_dies_in_it_is_told_within_the_time() {
    let ground = Ground::of(World::new().await).await;
    let more = [("OUTBOX_CHECKPOINT", "100ms"), ("OUTBOX_FAILPOINT", "before_restore")];
    let mut relay = ground.world.relay("relay", &more);
    ground.with_rows(20).await;
    let texts = [
        "Redis was emptied, and within 5.0 s stream quiet is not back",
        "no relay leads",
        "`outbox-relay run`",
    ];
    let ended = ground.refused(&ground.words(&["--within", "5s", "--json"]), 2, &texts);
    assert!(!ended.err.contains("nothing is lost"), "nobody has compared: {ended:#?}");
    assert!(ended.took < Duration::from_secs(20), "{ended:#?}");
    assert!(!relay.is_running(), "it died");
    let _next = ground.world.relay("next", &[]);
    ground.world.holds(QUIET, 20).await;
    ground.world.reconcile().await;
}

/// The relay that leads stands still from when Redis is empty.
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_somebody_holds_meanwhile_is_named_with_that() {
    let ground = Ground::of(World::new().await).await;
    let more = [("OUTBOX_CHECKPOINT", "2s"), ("OUTBOX_AUDIT", "60s"), ("OUTBOX_LEASE", "60s")];
    let relay = ground.world.relay("relay", &more);
    ground.with_rows(20).await;
    let drill = ground.begin(&["--within", "5s"]).await;
    relay.signal(Signal::STOP);
    let pause = command(&["pause", QUIET], &ground.variables());
    assert_eq!(pause.code, Some(0), "{pause:#?}");
    let (status, read) = (ends(drill).await, || ground.said("err"));
    assert_eq!(status.code(), Some(2), "{}", read());
    let told = "within 5.0 s stream quiet is not back: stream quiet is paused";
    assert!(read().contains(told) && read().contains("`outbox-relay verify`"), "{}", read());
    assert!(!read().contains("nothing is lost"), "nobody has compared: {}", read());
    relay.signal(Signal::CONT);
    let resume = command(&["resume", QUIET], &ground.variables());
    assert_eq!(resume.code, Some(0), "{resume:#?}");
    ground.world.holds(QUIET, 20).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_at_the_end_is_told() {
    let (ground, _relay) = ground().await;
    let world = &ground.world;
    make_group(world, QUIET, "ledger").await;
    let read = ["XREADGROUP", "GROUP", GROUP, "gone", "COUNT", "3", "STREAMS", QUIET, ">"];
    world.redis::<redis::Value>(&read).await;
    let drill = ground.begin(&["--within", "10s", "--json"]).await;
    world.holds(QUIET, 20).await;
    // What goes after that is looked at once more at the end.
    eventually("the drill has seen all of it", BOUND, || async {
        ground.said("err").contains("1 of 1 stream whole")
    })
    .await;
    let entries: Vec<(String, redis::Value)> = world.redis(&["XRANGE", QUIET, "-", "+"]).await;
    world.redis::<u64>(&["XDEL", QUIET, &entries[10].0, &entries[11].0]).await;
    world.redis::<u64>(&["XGROUP", "DESTROY", QUIET, "ledger"]).await;
    let status = ends(drill).await;
    assert_eq!(status.code(), Some(1), "{}", ground.said("err"));
    let report: Value = serde_json::from_str(&ground.said("out")).unwrap();
    let stream = &report["streams"][0];
    assert_eq!((&report["ok"], &stream["missing"]), (&false.into(), &2.into()), "{report:#}");
    let groups: Vec<_> =
        list(&stream["groups"]).iter().map(|group| (&group["group"], &group["back"])).collect();
    let expected = [(&"ledger".into(), &false.into()), (&GROUP.into(), &true.into())];
    assert_eq!(groups, expected, "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_after_the_emptying_leaves_the_rest_to_the_relay() {
    let (ground, _relay) = ground().await;
    let world = &ground.world;
    // Waited for in vain, so that the drill does not end by itself.
    let read = ["XREADGROUP", "GROUP", GROUP, "gone", "COUNT", "3", "STREAMS", QUIET, ">"];
    world.redis::<redis::Value>(&read).await;
    let drill = ground.begin(&[]).await;
    kill_process(Pid::from_child(&drill), Signal::TERM).unwrap();
    let (status, read) = (ends(drill).await, || ground.said("err"));
    assert_eq!(status.code(), Some(2), "{}", read());
    assert!(read().contains("the relay puts everything back by itself"), "{}", read());
    world.holds(QUIET, 20).await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_primary_of_a_cluster_is_emptied_and_comes_back() {
    let ground = Ground::of(World::with_cluster(0).await).await;
    let world = &ground.world;
    let relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", "200ms")]);
    let writers = Writers::start(world, 2);
    let workers = Workers::start(world, GROUP, &STREAMS).await;
    for stream in STREAMS {
        world.becomes(stream, "active").await;
    }
    writers.write_more(100).await;
    let mut before = Vec::new();
    for node in &world.cluster.as_ref().unwrap().nodes {
        let own: Vec<String> = ask(node, &["KEYS", "outbox:identity:*"]).await;
        before.push(ask::<String>(node, &["HGET", &own[0], "nonce"]).await);
    }
    ground.refused(&["drill", "--empty", "127.0.0.1:1"], 64, &[&ground.name]);
    let ended = ground.hold(&["--within", "50s", "--json"]);
    assert_eq!(ended.code, Some(0), "{ended:#?}\n{}", relay.log());
    check_report(&json(&ended), &STREAMS);
    for (node, before) in world.cluster.as_ref().unwrap().nodes.iter().zip(before) {
        let own: Vec<String> = ask(node, &["KEYS", "outbox:identity:*"]).await;
        assert_ne!(ask::<String>(node, &["HGET", &own[0], "nonce"]).await, before, "another life");
    }
    writers.stop().await;
    workers.finish(world, &STREAMS).await;
    world.reconcile().await;
}
