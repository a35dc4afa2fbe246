//! Redis Cluster: streams lie on several primaries, slots move, and one primary may lose what it has.

use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::command::{command, fails};
use crate::support::eventually;
use crate::support::nodes::{ask, connect};
use crate::support::relay::Relay;
use crate::support::workers::{Workers, make_group};
use crate::support::world::{World, redis_is_at_least};
use crate::support::writers::{STREAMS, Writers, write_rows};

/// A stream that nobody writes to while it is lost, so that what it held is known exactly.
const QUIET: &str = "quiet";
/// Another one, on another primary.
const CALM: &str = "other";
const GROUP: &str = "mail";
const BOUND: Duration = Duration::from_secs(60);

/// A cluster, a relay, a group in each stream, and writers at work.
async fn running(replicas: usize) -> (World, Relay, Writers) {
    running_with(replicas, "100ms").await
}

async fn running_with(replicas: usize, checkpoint: &str) -> (World, Relay, Writers) {
    let world = World::with_cluster(replicas).await;
    let relay = world.relay("relay", &[("OUTBOX_CHECKPOINT", checkpoint)]);
    for stream in STREAMS.iter().chain(&[QUIET]) {
        make_group(&world, stream, GROUP).await;
    }
    write_rows(&world, QUIET, 50).await;
    world.holds(QUIET, 50).await;
    let writers = Writers::start(&world, 3);
    writers.write_more(300).await;
    (world, relay, writers)
}

impl World {
    fn nodes(&self) -> &Cluster {
        self.cluster.as_ref().unwrap()
    }

    /// Gives the group of a stream this many entries.
    async fn take(&self, stream: &str, entries: &str) {
        let read = ["XREADGROUP", "GROUP", GROUP, "me", "COUNT", entries, "STREAMS", stream, ">"];
        let mut connection = self.streams_with(stream).await;
        let mut command = redis::cmd(read[0]);
        command.arg(&read[1..]).exec_async(&mut connection).await.unwrap();
    }

    /// Gives the group of the quiet stream this many entries, acknowledges the first of them, and waits until
    /// that is stored.
    async fn take_of_quiet(&self, entries: &str) {
        self.take(QUIET, entries).await;
        let group = self.group(QUIET, GROUP).await.unwrap();
        self.redis::<u64>(&["XACK", QUIET, GROUP, &group.pending[0].0]).await;
        self.checkpointed(QUIET).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_lie_on_all_primaries_and_every_command_finds_them() {
    let (world, mut relay, writers) = running(0).await;
    let workers = Workers::join(&world, GROUP, &STREAMS);
    writers.write_more(300).await;
    writers.stop().await;
    workers.finish(&world, &STREAMS).await;
    let mut owners = Vec::new();
    for stream in STREAMS {
        owners.push(world.nodes().owner(stream).await);
    }
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners, [0, 1, 2], "streams on each primary");
    for node in &world.nodes().nodes {
        let own: Vec<String> = ask(node, &["KEYS", "outbox:*"]).await;
        assert_eq!(own.len(), 1, "one key of the relay's own on each primary: {own:?}");
        assert!(own[0].starts_with("outbox:identity:{"), "{own:?}");
    }
    world.reconcile().await;
    let (database, redis) = world.urls();
    let variables = [("DATABASE_URL", database.as_str()), ("REDIS_URL", redis.as_str())];
    let done = |words: &[&str]| {
        let ended = command(words, &variables);
        assert_eq!(ended.code, Some(0), "{words:?}: {ended:#?}");
        ended.out
    };
    assert!(done(&["status"]).contains("payments"));
    let event = world.journal.notes().into_iter().find(|note| note.stream == QUIET).unwrap();
    let traced = done(&["trace", &event.event_id.to_string()]);
    assert!(traced.contains(GROUP), "{traced}");
    for stream in STREAMS {
        done(&["rebuild", stream, "--yes"]);
    }
    done(&["replay", "--stream", QUIET, "--from", "1", "--into", "quiet-again"]);
    assert_eq!(world.redis::<u64>(&["XLEN", "quiet-again"]).await, 50);
    let doctor = command(&["doctor", "--json"], &variables);
    assert!(
        !doctor.out.contains("not the relay's") && !doctor.out.contains("may not"),
        "{doctor:#?}"
    );
    relay.lost_nothing();
    assert!(relay.stop().success());
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_primary_that_is_emptied_gets_its_streams_back_and_others_keep_theirs() {
    let (world, mut relay, writers) = running_with(0, "3s").await;
    world.take_of_quiet("10").await;
    let workers = Workers::join(&world, GROUP, &STREAMS);
    let emptied = world.nodes().owner(QUIET).await;
    assert_ne!(world.nodes().owner(CALM).await, emptied);
    make_group(&world, CALM, GROUP).await;
    write_rows(&world, CALM, 30).await;
    world.holds(CALM, 30).await;
    world.checkpointed(CALM).await;
    writers.write_more(100).await;
    // Later than what is stored: it would be taken back if the groups of this primary were put back as well.
    world.take(CALM, "20").await;
    let calm = world.group(CALM, GROUP).await.unwrap();
    ask::<()>(&world.nodes().nodes[emptied], &["FLUSHALL"]).await;
    relay.logged("Redis lost its identity key").await;
    // The first one was acknowledged.
    relay.logged(&format!("Redis lost entries 2 to 50 of stream {QUIET};")).await;
    eventually("the group is back with what it had not acknowledged", BOUND, || async {
        let group = world.group(QUIET, GROUP).await;
        group.is_some_and(|group| group.pending.len() == 9 && group.delivered.ends_with("-10"))
    })
    .await;
    assert_eq!(world.group(CALM, GROUP).await.unwrap(), calm, "{}", relay.log());
    writers.write_more(200).await;
    writers.stop().await;
    workers.finish(&world, &STREAMS).await;
    world.reconcile().await;
    assert_eq!(world.group(CALM, GROUP).await.unwrap(), calm, "{}", relay.log());
    let mut kept = 0;
    for stream in STREAMS {
        if world.nodes().owner(stream).await != emptied {
            assert_eq!(relay.lost(stream), [], "{stream} is elsewhere:\n{}", relay.log());
            kept += 1;
        }
    }
    assert!(kept > 0, "streams on other primaries");
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_comes_back_empty_gets_its_streams_back() {
    let (mut world, relay, writers) = running(0).await;
    let lost = world.nodes().owner(QUIET).await;
    let node = &mut world.cluster.as_mut().unwrap().nodes[lost];
    node.kill().unwrap();
    // Meanwhile nothing can go on: the cluster refuses all of it, or the connection has ended.
    relay.logged("trying again in").await;
    node.start_again().unwrap();
    world.nodes().agree().await;
    writers.write_more(100).await;
    writers.stop().await;
    world.reconcile().await;
    assert_eq!(relay.lost(QUIET), [(1, 50)], "{}", relay.log());
    for stream in STREAMS {
        let is_there = world.nodes().owner(stream).await == lost;
        assert_eq!(relay.lost(stream).is_empty(), !is_there, "{stream}:\n{}", relay.log());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slot_moves_under_load_and_nothing_is_lost_or_given_again() {
    let (world, mut relay, writers) = running(0).await;
    world.take_of_quiet("10").await;
    for stream in [QUIET, "orders"] {
        let from = world.nodes().owner(stream).await;
        let to = (from + 1) % 3;
        let before = world.redis::<u64>(&["XLEN", stream]).await;
        world.nodes().begin_move(stream, from, to).await;
        // The old primary asks everybody to go on to the new one.
        write_rows(&world, stream, 20).await;
        let node = &world.nodes().nodes[to];
        eventually("rows go to where the stream is by now", BOUND, || async {
            let mut asking = redis::pipe();
            asking.cmd("ASKING").ignore().cmd("XLEN").arg(stream);
            let mut connection = connect(node).await;
            let (length,): (u64,) = asking.query_async(&mut connection).await.unwrap();
            length >= before + 20
        })
        .await;
        world.nodes().end_move(stream, from, to).await;
        write_rows(&world, stream, 20).await;
        world.settled_but_for_writers(stream).await;
    }
    writers.write_more(100).await;
    writers.stop().await;
    world.reconcile().await;
    let group = world.group(QUIET, GROUP).await.unwrap();
    assert!(group.pending.len() == 9 && group.delivered.ends_with("-10"), "{}", relay.log());
    relay.lost_nothing();
    assert!(relay.is_running());
    // The next relay begins with a primary that has a stream and a checkpoint of another one, and does not
    // take back what its group was given since.
    assert!(relay.stop().success());
    let from = world.nodes().owner(QUIET).await;
    let to = (from + 1) % 3;
    world.nodes().begin_move(QUIET, from, to).await;
    world.nodes().end_move(QUIET, from, to).await;
    world.take(QUIET, "5").await;
    let again = world.relay("again", &[]);
    again.logged("leading with token").await;
    write_rows(&world, QUIET, 5).await;
    world.reconcile().await;
    again.lost_nothing();
    assert_eq!(world.group(QUIET, GROUP).await.unwrap().pending.len(), 14, "{}", again.log());
    let text = again.log() + &relay.log();
    for lie in ["older state", "Redis lost the positions", "identity key"] {
        assert!(!text.contains(lie), "{text}");
    }
}

/// A primary that begins with one slot has its identity key where no primary with many would look first.
#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_gets_slot_after_slot_is_the_same_all_the_time() {
    let (mut world, mut relay, writers) = running(0).await;
    writers.stop().await;
    world.take_of_quiet("10").await;
    let (from, to) =
        (world.nodes().owner(QUIET).await, world.cluster.as_mut().unwrap().join().await);
    assert!(relay.stop().success());
    world.nodes().begin_move(QUIET, from, to).await;
    world.nodes().end_move(QUIET, from, to).await;
    for run in ["one slot", "many slots"] {
        let mut relay = world.relay(run, &[("OUTBOX_CHECKPOINT", "100ms")]);
        write_rows(&world, QUIET, 5).await;
        world.settled().await;
        // So that what is stored is of this primary.
        world.take_of_quiet("1").await;
        assert!(relay.stop().success());
        world.take(QUIET, "5").await;
        let group = world.group(QUIET, GROUP).await.unwrap();
        // Behind the slot of the stream; none of them has a key.
        world.nodes().give(1_746..1_946, to).await;
        let mut relay = world.relay("then", &[("OUTBOX_CHECKPOINT", "100ms")]);
        relay.logged("leading with token").await;
        world.reconcile().await;
        assert_eq!(
            world.group(QUIET, GROUP).await.unwrap().pending,
            group.pending,
            "{}",
            relay.log()
        );
        relay.lost_nothing();
        assert!(!relay.log().contains("identity key"), "{}", relay.log());
        assert!(relay.stop().success());
    }
}

impl World {
    /// Waits until this stream has all that is sealed of it.
    async fn settled_but_for_writers(&self, stream: &str) {
        let sealed = self.sealed(stream).await;
        eventually("the stream has got so far", BOUND, || async {
            self.dispatched(stream).await >= sealed
        })
        .await;
    }
}

/// What one stream is too much for goes to all primaries, and each key stays in its order.
#[tokio::test(flavor = "multi_thread")]
async fn partitions_of_a_stream_lie_on_all_primaries() {
    let (world, mut relay, writers) = running(0).await;
    let sql = "select outbox.set_partitions('orders', 8)";
    eventually("a checkpoint has the group", BOUND, || async {
        world.owner().await.batch_execute(sql).await.is_ok()
    })
    .await;
    let partitions: Vec<String> = (0..8).map(|n| format!("orders:{{{n}}}")).collect();
    let mut streams: Vec<&str> = partitions.iter().map(String::as_str).collect();
    streams.push("orders");
    let workers = Workers::join(&world, GROUP, &streams);
    relay.logged("the new ones flow").await;
    writers.write_more(200).await;
    writers.stop().await;
    workers.finish(&world, &streams).await;
    world.reconcile().await;
    let mut owners = Vec::new();
    for partition in &partitions {
        assert!(world.redis::<bool>(&["EXISTS", partition]).await, "{partition}");
        owners.push(world.nodes().owner(partition).await);
    }
    owners.sort_unstable();
    owners.dedup();
    assert_eq!(owners, [0, 1, 2], "partitions on each primary");
    relay.lost_nothing();
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_is_killed_and_its_replica_takes_over() {
    let (mut world, mut relay, writers) = running(1).await;
    let workers = Workers::join(&world, GROUP, &STREAMS);
    let killed = world.nodes().owner(QUIET).await;
    world.cluster.as_mut().unwrap().nodes[killed].kill().unwrap();
    eventually("another node has the stream", BOUND, || async {
        world.nodes().owner(QUIET).await != killed
    })
    .await;
    writers.write_more(200).await;
    writers.stop().await;
    workers.finish(&world, &STREAMS).await;
    world.reconcile().await;
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_cluster_cannot_do_is_said_in_words() {
    let world = World::with_cluster(0).await;
    let (database, cluster) = world.urls();
    let plain = cluster.split_once(',').unwrap().0.replace("redis+cluster", "redis");
    let run = ["run", "--start", "0s", "--http", "127.0.0.1:0"];
    let told = |redis: &str, code: i32, said: &[&str]| {
        fails(&run, &[("DATABASE_URL", &database), ("REDIS_URL", redis)], code, said);
    };
    told(&format!("{}1", world.nodes().nodes[0].url()), 1, &["which has database 0 only"]);
    told(
        &format!("{cluster}/1"),
        64,
        &["REDIS_URL", "redis+cluster://user:password@host:6379,host:6379"],
    );
    let alone = world.redis_url(world.redis.port()).replace("redis://", "redis+cluster://");
    told(&alone, 1, &["is no Redis Cluster", "write redis://"]);
    for node in &world.nodes().nodes {
        ask::<()>(node, &["ACL", "SETUSER", "relay", "-asking"]).await;
    }
    told(&cluster, 1, &["ACL SETUSER relay +asking"]);
    // Before that, a part of a command that was given cannot be taken back.
    if redis_is_at_least((7, 0), "rights to parts of commands that can be taken back") {
        for node in &world.nodes().nodes {
            let rights = ["+asking", "-cluster|slots", "-cluster"];
            ask::<()>(node, &[&["ACL", "SETUSER", "relay"], &rights[..]].concat()).await;
        }
        told(&plain, 1, &["cluster|slots"]);
    }
}

/// One node of several is enough, and a URL of a single server leads to the others as well.
#[tokio::test(flavor = "multi_thread")]
async fn any_node_leads_to_all_primaries() {
    let mut world = World::with_cluster(0).await;
    let (database, cluster) = world.urls();
    let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let plain = cluster.split_once(',').unwrap().0.replace("redis+cluster", "redis");
    let first_is_dead = cluster.replacen("any@", &format!("any@{dead},"), 1);
    for (name, url) in [("plain", plain), ("dead", first_is_dead)] {
        let urls = (database.clone(), url);
        let mut relay = Relay::start(world.folder.path(), name, &world.variables(&urls, &[]));
        for stream in STREAMS {
            write_rows(&world, stream, 5).await;
        }
        world.settled().await;
        assert!(relay.stop().success());
    }
    world.reconcile().await;
    // Of a cluster that does not serve, it says so.
    if redis_is_at_least((7, 0), "CLUSTER DELSLOTSRANGE") {
        let nodes = &mut world.cluster.as_mut().unwrap().nodes;
        for node in nodes.iter() {
            ask::<()>(node, &["CLUSTER", "DELSLOTSRANGE", "0", "99"]).await;
        }
        let run = ["run", "--start", "0s", "--http", "127.0.0.1:0"];
        let said = "only 16284 of its 16384 slots have a primary";
        fails(&run, &[("DATABASE_URL", &database), ("REDIS_URL", &cluster)], 1, &[said]);
    }
}
