//! A primary and its standbys, all named by DATABASE_URL: whichever takes writes is the source.

use std::collections::{BTreeMap, HashSet};
use std::net::TcpListener;

use outbox_relay::sandbox::Postgres;
use uuid::Uuid;

use super::{BOUND, run};
use crate::support::command::{command, fails};
use crate::support::eventually;
use crate::support::journal::{Fate, Found, check_chain, read_stream};
use crate::support::proxy::Proxy;
use crate::support::relay::Relay;
use crate::support::standby::{caught_up, promote, standby, wait_for_standby};
use crate::support::world::{APPLICATION, RELAY, World};
use crate::support::writers::{STREAMS, Writers, write_rows};

const ATTRIBUTES: &str = "?target_session_attrs=read-write";

fn url(user: &str, ports: &[u16], more: &str) -> String {
    let hosts: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    format!("postgresql://{user}@{}/postgres{more}", hosts.join(","))
}

fn relay(world: &World, name: &str, url: &str) -> Relay {
    let urls = (url.to_owned(), world.urls().1);
    let more = [("OUTBOX_BATCH_ROWS", "20")];
    Relay::start(world.folder.path(), name, &world.variables(&urls, &more))
}

async fn all_have_entries(world: &World) {
    for stream in STREAMS {
        eventually(&format!("{stream} has entries"), BOUND, || async {
            world.redis::<u64>(&["XLEN", stream]).await > 0
        })
        .await;
    }
}

/// Waits until `orders` has `more` more entries.
async fn orders_grows(world: &World, more: u64) {
    let before = world.redis::<u64>(&["XLEN", "orders"]).await;
    eventually("orders grows", BOUND, || async {
        world.redis::<u64>(&["XLEN", "orders"]).await >= before + more
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_synchronous_standby_is_promoted_under_load_and_nothing_is_lost() {
    let mut world = World::new().await;
    let mut other = standby(&world, world.postgres.port());
    wait_for_standby(&world, "*").await;
    caught_up(&world, &other).await;
    let ports = [world.postgres.port(), other.port()];
    let words = format!(
        "host=127.0.0.1,127.0.0.1 port={},{} user={RELAY} dbname=postgres target_session_attrs=primary",
        ports[0], ports[1]
    );
    let mut first = relay(&world, "first", &url(RELAY, &ports, ATTRIBUTES));
    first.logged("leading with token").await;
    let mut second = relay(&world, "second", &words);
    second.logged("standing by").await;
    let writers = Writers::start_at(&world, 4, &url(APPLICATION, &ports, ATTRIBUTES));
    writers.write_more(200).await;
    all_have_entries(&world).await;
    world.postgres.kill().unwrap();
    promote(&other).await;
    std::mem::swap(&mut world.postgres, &mut other);
    writers.write_more(200).await;
    writers.stop().await;
    world.reconcile().await;
    let sql = "select count(*) from outbox.phantom";
    assert_eq!(world.owner().await.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 0);
    for relay in [&mut first, &mut second] {
        relay.lost_nothing();
        assert!(relay.is_running(), "{}", relay.log());
    }
    // Whoever does not lead may have come here no earlier than now.
    for relay in [&first, &second] {
        relay.logged(&format!("connected to Postgres at 127.0.0.1:{}/postgres", ports[1])).await;
    }
}

/// What each stream has of rows that Postgres keeps, and of rows that it has lost.
async fn told_apart(world: &World) -> usize {
    let client = world.owner().await;
    let rows = client.query("select event_id from outbox.entry", &[]).await.unwrap();
    let kept: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let sql = "select event_id::uuid from outbox.phantom";
    let rows = client.query(sql, &[]).await.unwrap();
    let phantoms: HashSet<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(phantoms.len(), rows.len(), "a lost row is listed twice");
    assert!(kept.is_disjoint(&phantoms));
    let mut found: BTreeMap<Uuid, usize> = BTreeMap::new();
    for stream in STREAMS {
        let entries = read_stream(world, stream).await;
        check_chain(stream, &entries);
        let event = |entry: &Found| entry.field("id").unwrap().parse().unwrap();
        for event in entries.iter().map(event) {
            *found.entry(event).or_default() += 1;
        }
    }
    assert!(found.values().all(|times| *times == 1), "an entry is there twice");
    let found: HashSet<Uuid> = found.into_keys().collect();
    assert_eq!(
        found,
        kept.union(&phantoms).copied().collect(),
        "rows kept and rows lost, and no others"
    );
    for note in world.journal.notes() {
        let expected = note.fate != Fate::RolledBack;
        assert!(expected || !found.contains(&note.event_id), "{note:?} was rolled back");
        assert!(note.fate != Fate::Committed || kept.contains(&note.event_id), "{note:?} is lost");
    }
    phantoms.len()
}

/// A standby that is fed through a proxy, and has rows of each stream with their places in the log.
async fn fed_standby(world: &World) -> (Proxy, Postgres) {
    let link = Proxy::start(([127, 0, 0, 1], world.postgres.port()).into());
    let other = standby(world, link.port());
    let mut before = world.relay("before", &[]);
    for stream in STREAMS {
        write_rows(world, stream, 5).await;
    }
    world.settled().await;
    assert!(before.stop().success());
    (link, other)
}

/// From here on the standby gets nothing.
async fn leave_behind(world: &World, link: &Proxy, other: &Postgres) {
    caught_up(world, other).await;
    link.refuse(true);
    link.cut();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_asynchronous_standby_is_promoted_under_load_and_what_it_never_got_is_listed() {
    let mut world = World::new().await;
    let (link, mut other) = fed_standby(&world).await;
    // As if the standby had not got the marks either.
    world.sql("update outbox.batch set dispatched_at = null").await;
    leave_behind(&world, &link, &other).await;
    let ports = [world.postgres.port(), other.port()];
    // Without `target_session_attrs`: a relay that has a standby among its hosts does not work with it.
    let mut relay = relay(&world, "relay", &url(RELAY, &[ports[1], ports[0]], ""));
    let writers = Writers::hasty_at(&world, 4, &url(APPLICATION, &ports, ATTRIBUTES));
    orders_grows(&world, 20).await;
    world.postgres.kill().unwrap();
    promote(&other).await;
    std::mem::swap(&mut world.postgres, &mut other);
    relay.logged("Postgres lost history").await;
    orders_grows(&world, 20).await;
    writers.stop().await;
    write_rows(&world, "orders", 5).await;
    world.settled().await;
    assert!(told_apart(&world).await >= 20, "what the standby never got was in Redis");
    assert!(relay.is_running(), "{}", relay.log());
}

/// A row that the standby has got, and whose place in the log it has not, would be in its stream twice if
/// that went on behind the entries.
#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_got_rows_and_not_their_places_halts_a_stream_until_it_is_rebuilt() {
    let mut world = World::new().await;
    let (link, mut other) = fed_standby(&world).await;
    write_rows(&world, "orders", 5).await;
    leave_behind(&world, &link, &other).await;
    let both = url(RELAY, &[world.postgres.port(), other.port()], ATTRIBUTES);
    let mut relay = relay(&world, "relay", &both);
    world.holds("orders", 10).await;
    world.postgres.kill().unwrap();
    promote(&other).await;
    std::mem::swap(&mut world.postgres, &mut other);
    let reason = world.becomes("orders", "halted").await.unwrap();
    assert!(reason.contains("`outbox-relay rebuild orders`"), "{reason}");
    write_rows(&world, "orders", 5).await;
    write_rows(&world, "payments", 5).await;
    world.holds("payments", 10).await;
    run(&world, &["rebuild", "orders", "--yes"]);
    world.reconcile().await;
    assert!(relay.is_running(), "{}", relay.log());
}

/// The port of a host that accepts connections and says nothing, as one whose disk hangs.
fn silent() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_hosts_the_one_that_takes_writes_is_found_behind_one_that_is_silent() {
    let world = World::new().await;
    let other: Postgres = standby(&world, world.postgres.port());
    caught_up(&world, &other).await;
    let (_listener, silent) = silent();
    let all = url(RELAY, &[silent, other.port(), world.postgres.port()], "");
    let relay = relay(&world, "relay", &all);
    write_rows(&world, "orders", 5).await;
    let here = format!("connected to Postgres at 127.0.0.1:{}/postgres", world.postgres.port());
    relay.logged(&here).await;
    world.reconcile().await;
    let redis = world.urls().1;
    let standbys = url(RELAY, &[other.port(), other.port()], "");
    let none = [("DATABASE_URL", standbys.as_str()), ("REDIS_URL", &redis), ("OUTBOX_START", "1s")];
    fails(&["run"], &none, 1, &["no host of DATABASE_URL", "takes no writes: it is a standby"]);
    let nobody = url("nobody", &[other.port(), world.postgres.port()], "");
    let nobody = [("DATABASE_URL", nobody.as_str()), ("REDIS_URL", &redis)];
    fails(&["run"], &nobody, 1, &["no host of DATABASE_URL", "does not let \"nobody\" in"]);
    let alone = url(RELAY, &[other.port()], "");
    let told = command(&["run"], &[("DATABASE_URL", &alone), ("REDIS_URL", &redis)]);
    assert!(told.err.contains("DATABASE_URL must name the primary"), "{told:#?}");
}
