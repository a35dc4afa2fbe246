//! Postgres with a standby: a failover that loses commits, two primaries, a wait that was cut short.

use std::time::Duration;

use outbox_relay::sandbox::Postgres;
use tokio_postgres::Client;
use uuid::Uuid;

use crate::support::eventually;
use crate::support::journal::{Fate, Note, check_chain, read_stream};
use crate::support::proxy::Proxy;
use crate::support::relay::Relay;
use crate::support::standby::{caught_up, promote, standby, wait_for_standby};
use crate::support::world::{RELAY, World};
use crate::support::writers::write_rows;

const BOUND: Duration = Duration::from_secs(30);

fn before(postgres: &Postgres) -> Proxy {
    Proxy::start(([127, 0, 0, 1], postgres.port()).into())
}

/// Rows whose commits do not wait for a standby.
async fn write_locally(world: &World, client: &Client, stream: &str, count: usize, fate: Fate) {
    client.batch_execute("set synchronous_commit = local").await.unwrap();
    let notes: Vec<Note> = (0..count).map(|_| Note::new(stream).fate(fate)).collect();
    for note in &notes {
        note.insert(client).await.unwrap();
    }
    world.journal.write(notes);
}

/// The backend of the relay for `purpose` once it waits for a standby.
async fn waits(world: &World, purpose: &str) -> i32 {
    let sql = "select pid from pg_stat_activity \
               where application_name = 'outbox-relay ' || $1 and wait_event = 'SyncRep'";
    let client = world.owner().await;
    let found = || async { client.query_opt(sql, &[&purpose]).await.unwrap().is_some() };
    eventually(&format!("{purpose} waits for the standby"), BOUND, found).await;
    client.query_one(sql, &[&purpose]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_that_lags_is_promoted_and_what_it_never_got_is_listed() {
    let mut world = World::new().await;
    let (link, front) = (before(&world.postgres), before(&world.postgres));
    let mut other = standby(&world, link.port());
    let url = format!("postgres://{RELAY}@127.0.0.1:{}/postgres", front.port());
    let urls = (url, world.urls().1);
    let mut relay = Relay::start(world.folder.path(), "relay", &world.variables(&urls, &[]));
    write_rows(&world, "orders", 20).await;
    world.settled().await;
    caught_up(&world, &other).await;
    link.refuse(true);
    link.cut();
    let lost: Vec<Note> = (0..10).map(|_| Note::new("orders")).collect();
    for note in &lost {
        note.insert(&world.application().await).await.unwrap();
    }
    world.settled().await;
    world.postgres.stop_immediate().unwrap();
    promote(&other).await;
    front.retarget(([127, 0, 0, 1], other.port()).into());
    std::mem::swap(&mut world.postgres, &mut other);
    relay.logged("Postgres lost history: entries 21 to 30 of stream orders").await;
    write_rows(&world, "orders", 5).await;
    world.settled().await;
    let entries = read_stream(&world, "orders").await;
    check_chain("orders", &entries);
    assert_eq!(entries.len(), 35, "the stream goes on behind them");
    let sql = "select event_id::uuid from outbox.phantom where stream = 'orders'";
    let rows = world.owner().await.query(sql, &[]).await.unwrap();
    let mut listed: Vec<Uuid> = rows.iter().map(|row| row.get(0)).collect();
    let mut expected: Vec<Uuid> = lost.iter().map(|note| note.event_id).collect();
    listed.sort_unstable();
    expected.sort_unstable();
    assert_eq!(listed, expected);
    // Redis goes back to a moment when it ended with one of them, as from a snapshot.
    let mut remove = vec!["XDEL", "orders"];
    remove.extend(entries[25..].iter().map(|entry| entry.id.as_str()));
    world.redis::<u64>(&remove).await;
    world.redis::<()>(&["XSETID", "orders", &entries[24].id]).await;
    relay.logged("Redis lost entries 26 to 35 of stream orders").await;
    eventually("it goes on behind them", BOUND, || async {
        world.redis::<u64>(&["XLEN", "orders"]).await == 30
    })
    .await;
    assert!(relay.is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_primary_that_lives_on_beside_the_new_one_cannot_seal() {
    let mut world = World::new().await;
    let link = before(&world.postgres);
    let mut other = standby(&world, link.port());
    let mut old_relay = world.relay("old", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    wait_for_standby(&world, "*").await;
    caught_up(&world, &other).await;
    link.refuse(true);
    link.cut();
    let hasty = world.application().await;
    write_locally(&world, &hasty, "orders", 10, Fate::Unknown).await;
    waits(&world, "seal").await;
    promote(&other).await;
    std::mem::swap(&mut world.postgres, &mut other);
    let new_relay = world.relay("new", &[]);
    new_relay.logged("leading with token").await;
    write_rows(&world, "orders", 20).await;
    write_rows(&world, "payments", 20).await;
    world.reconcile().await;
    assert_eq!(world.redis::<u64>(&["XLEN", "orders"]).await, 30, "the old one has sent nothing");
    new_relay.lost_nothing();
    assert!(old_relay.is_running(), "{}", old_relay.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_seal_whose_wait_for_the_standby_was_cancelled_is_not_sent() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 5).await;
    world.settled().await;
    wait_for_standby(&world, "ghost").await;
    let probe = world.owner().await;
    eventually("commits wait", BOUND, || async {
        let commit = probe.batch_execute("select pg_logical_emit_message(true, 'any', 'text')");
        tokio::time::timeout(Duration::from_millis(100), commit).await.is_err()
    })
    .await;
    let hasty = world.application().await;
    write_locally(&world, &hasty, "orders", 5, Fate::Committed).await;
    for (purpose, said) in [("seal", "a seal with a warning"), ("lease", "a lease with a warning")]
    {
        waits(&world, purpose).await;
        let cancel = "select pg_cancel_backend(pid) from pg_stat_activity \
                      where application_name = 'outbox-relay ' || $1 and wait_event = 'SyncRep'";
        eventually("it is told, or sent", BOUND, || async {
            // Each time anew: one of an earlier session may wait beside it.
            world.owner().await.query(cancel, &[&purpose]).await.unwrap();
            relay.log().contains(said) || world.redis::<u64>(&["XLEN", "orders"]).await > 5
        })
        .await;
        assert_eq!(world.redis::<u64>(&["XLEN", "orders"]).await, 5, "it may be on one disk only");
    }
    waits(&world, "lease").await;
    assert_eq!(world.redis::<u64>(&["XLEN", "orders"]).await, 5, "it may be on one disk only");
    wait_for_standby(&world, "").await;
    world.reconcile().await;
    relay.lost_nothing();
}
