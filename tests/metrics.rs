//! `/metrics`, `/livez` and `/readyz` of a running relay, as Prometheus and Kubernetes ask them.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, RedisOptions, free_port};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::support::command::fails;
use crate::support::eventually;
use crate::support::relay::Relay;
use crate::support::world::World;
use crate::support::writers::write_rows;

const BOUND: Duration = Duration::from_secs(30);

/// Where the relay says that it serves.
pub(crate) async fn address(relay: &Relay) -> String {
    relay.logged("serving /metrics").await;
    let log = relay.log();
    let (_, rest) = log.split_once("http://").unwrap();
    rest.split_whitespace().next().unwrap().to_owned()
}

/// Status and body of a GET.
async fn get(address: &str, path: &str) -> (u16, String) {
    ask(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

async fn ask(address: &str, request: &str) -> (u16, String) {
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = tokio::time::timeout(BOUND, stream.read_to_string(&mut answer)).await;
    read.expect("an answer in time").unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}

pub(crate) async fn value(address: &str, series: &str) -> Option<f64> {
    let (_, text) = get(address, "/metrics").await;
    let line = text.lines().find(|line| line.starts_with(&format!("{series} ")))?;
    line.rsplit_once(' ')?.1.parse().ok()
}

pub(crate) async fn becomes(address: &str, series: &str, wanted: f64) {
    eventually(&format!("{series} is {wanted}"), BOUND, || async {
        value(address, series).await == Some(wanted)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_names_types_and_labels_are_the_golden_ones() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    world.redis::<()>(&["XGROUP", "CREATE", "orders", "mail", "0", "MKSTREAM"]).await;
    write_rows(&world, "orders", 3).await;
    world.settled().await;
    let address = address(&relay).await;
    becomes(&address, r#"outbox_relay_stream_state{stream="orders",state="active"}"#, 1.0).await;
    becomes(&address, r#"outbox_relay_group_lag_entries{stream="orders",group="mail"}"#, 3.0).await;
    let (status, text) = get(&address, "/metrics").await;
    assert_eq!(status, 200);
    let mut found = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        match line.strip_prefix("# ") {
            Some(comment) => found.insert(format!("# {comment}")),
            None => found.insert(line.rsplit_once(' ').unwrap().0.to_owned()),
        };
    }
    let found: String = found.iter().map(|line| format!("{line}\n")).collect();
    let found = found.replace(env!("CARGO_PKG_VERSION"), "VERSION");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/metrics.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|set| set == "1") {
        std::fs::write(&file, &found).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), found);
    for name in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = name.split(' ').next().unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} says nothing about itself");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_happens_is_counted_once() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 40).await;
    write_rows(&world, "payments", 2).await;
    world.settled().await;
    let address = address(&relay).await;
    let of = |name: &str, label: &str| format!("outbox_relay_{name}{{{label}}}");
    becomes(&address, &of("dispatched_total", r#"stream="orders""#), 40.0).await;
    becomes(&address, "outbox_relay_delivery_seconds_count", 42.0).await;
    assert_eq!(value(&address, "outbox_relay_batch_entries_sum").await, Some(42.0));
    assert_eq!(value(&address, "outbox_relay_leader").await, Some(1.0));
    let sum = value(&address, "outbox_relay_delivery_seconds_sum").await.unwrap();
    assert!(sum > 0.0 && sum < 42.0 * BOUND.as_secs_f64(), "42 deliveries took {sum} s");
    world.redis::<()>(&["FLUSHALL"]).await;
    becomes(&address, &of("replayed_total", r#"stream="orders""#), 40.0).await;
    world.settled().await;
    assert_eq!(value(&address, &of("redis_losses_total", r#"kind="all""#)).await, Some(1.0));
    assert_eq!(value(&address, &of("redis_losses_total", r#"kind="stream""#)).await, Some(0.0));
    world.redis::<()>(&["DEL", "payments"]).await;
    becomes(&address, &of("redis_losses_total", r#"kind="stream""#), 1.0).await;
    becomes(&address, &of("replayed_total", r#"stream="payments""#), 4.0).await;
    assert_eq!(value(&address, &of("dispatched_total", r#"stream="payments""#)).await, Some(2.0));
    world.redis::<()>(&["XADD", "payments", "*", "not", "ours"]).await;
    becomes(&address, &of("errors_total", r#"target="redis",kind="foreign""#), 1.0).await;
    becomes(&address, &of("stream_state", r#"stream="payments",state="halted""#), 1.0).await;
    becomes(&address, &of("stream_state", r#"stream="payments",state="active""#), 0.0).await;
    // Audits go on looking at it; it is told once.
    write_rows(&world, "payments", 5).await;
    becomes(&address, &of("undispatched_entries", r#"stream="payments""#), 5.0).await;
    assert!(value(&address, "outbox_relay_oldest_undispatched_age_seconds").await.unwrap() > 0.0);
    let foreign = value(&address, &of("errors_total", r#"target="redis",kind="foreign""#)).await;
    assert_eq!(foreign, Some(1.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_is_seen_to_grow_old() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    let client = world.application().await;
    client.batch_execute("begin").await.unwrap();
    crate::support::journal::Note::new("orders").insert(&client).await.unwrap();
    let address = address(&relay).await;
    eventually("its age is told", BOUND, || async {
        value(&address, "outbox_relay_oldest_transaction_age_seconds").await.unwrap() > 1.0
    })
    .await;
    client.batch_execute("rollback").await.unwrap();
    becomes(&address, "outbox_relay_oldest_transaction_age_seconds", 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_are_counted_together() {
    let world = World::new().await;
    let relay = world.relay("relay", &[("OUTBOX_METRIC_STREAMS", "2")]);
    for stream in ["a", "b", "c", "d"] {
        write_rows(&world, stream, 5).await;
        world.settled().await;
    }
    let address = address(&relay).await;
    becomes(&address, r#"outbox_relay_dispatched_total{stream="other"}"#, 10.0).await;
    becomes(&address, r#"outbox_relay_stream_state{stream="other",state="active"}"#, 2.0).await;
    assert_eq!(value(&address, r#"outbox_relay_dispatched_total{stream="c"}"#).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn alive_while_servers_are_away_and_ready_only_while_both_answer() {
    let mut world = World::new().await;
    let relay = world.relay("relay", &[]);
    let address = address(&relay).await;
    let ready = |wanted: u16, text: &'static str| {
        let address = &address;
        eventually("it is as ready as it should be", BOUND, move || async move {
            let (status, body) = get(address, "/readyz").await;
            status == wanted && body.contains(text)
        })
    };
    ready(200, "ready").await;
    world.redis.kill().unwrap();
    ready(503, "redis: cannot connect to Redis").await;
    write_rows(&world, "orders", 5).await;
    // People look at what waits while Redis is away.
    becomes(&address, r#"outbox_relay_undispatched_entries{stream="orders"}"#, 5.0).await;
    world.redis.start_again().unwrap();
    ready(200, "ready").await;
    world.postgres.stop_fast().unwrap();
    ready(503, "postgres: ").await;
    assert_eq!(get(&address, "/livez").await, (200, "alive\n".to_owned()));
    let before = value(&address, "outbox_relay_last_loop_timestamp_seconds").await.unwrap();
    eventually("the loop goes on without servers", BOUND, || async {
        value(&address, "outbox_relay_last_loop_timestamp_seconds").await.unwrap() > before
    })
    .await;
    world.postgres.restart().unwrap();
    ready(200, "ready").await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_ready_does_not_lead_and_counts_nothing_twice() {
    let world = World::new().await;
    let leader = world.relay("leader", &[]);
    leader.logged("leading with token").await;
    let standby = world.relay("standby", &[]);
    standby.logged("standing by").await;
    let (leader, standby) = (address(&leader).await, address(&standby).await);
    becomes(&leader, "outbox_relay_leader", 1.0).await;
    becomes(&standby, "outbox_relay_leader", 0.0).await;
    world.redis::<()>(&["SET", "orders", "in the way"]).await;
    write_rows(&world, "orders", 5).await;
    becomes(&leader, r#"outbox_relay_undispatched_entries{stream="orders"}"#, 5.0).await;
    eventually("the standby is ready", BOUND, || async {
        get(&standby, "/readyz").await == (200, "ready; standing by\n".to_owned())
    })
    .await;
    assert_eq!(
        value(&standby, r#"outbox_relay_undispatched_entries{stream="orders"}"#).await,
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn other_paths_and_methods_are_told_what_there_is() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    let address = address(&relay).await;
    let (status, body) = get(&address, "/").await;
    assert!(status == 404 && body.contains("/metrics, /livez and /readyz"), "{status} {body}");
    let post =
        "POST /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(ask(&address, post).await.0, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_ends_the_start_and_is_named() {
    let world = World::new().await;
    let (database, redis) = world.urls();
    let port = free_port().unwrap();
    let _taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let address = format!("127.0.0.1:{port}");
    let variables =
        [("DATABASE_URL", &*database), ("REDIS_URL", &*redis), ("OUTBOX_HTTP", &*address)];
    fails(&["run"], &variables, 1, &[&address, "OUTBOX_HTTP", "127.0.0.1:0"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn json_logs_are_objects_one_per_line_without_a_secret() {
    let options = RedisOptions::default().with("requirepass", "hunter2-very-secret");
    let world = World::with(PostgresOptions::default(), options).await;
    let (database, port) = (world.urls().0, world.redis.port());
    let redis = format!("redis://:hunter2-very-secret@127.0.0.1:{port}/");
    let variables = [
        ("DATABASE_URL", &*database),
        ("REDIS_URL", &*redis),
        ("OUTBOX_LOG_FORMAT", "json"),
        ("OUTBOX_LOG", "debug"),
    ];
    let mut relay = Relay::start(world.folder.path(), "json", &variables);
    write_rows(&world, "orders", 500).await;
    world.settled().await;
    assert!(relay.stop().success());
    let log = relay.log();
    assert!(!log.contains("hunter2"), "{log}");
    let ours = log.lines().filter(|line| line.contains("\"level\":\"INFO\"")).count();
    assert!((3..20).contains(&ours), "no line per row: {log}");
    for line in log.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        for key in ["timestamp", "level"] {
            assert!(line.get(key).is_some_and(serde_json::Value::is_string), "{line}");
        }
    }
}
