//! NOTIFY is a hint: never lost while the relay sleeps, never sent while it is awake or dead.

use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use outbox_relay::outbox::{Database, Lease, Term, Wake};
use tokio_postgres::{AsyncMessage, NoTls};

use crate::support::eventually;
use crate::support::journal::Note;
use crate::support::proxy::Proxy;
use crate::support::relay::Relay;
use crate::support::world::{RELAY, World};

/// Counts notifications on the relay's channel.
struct Bell {
    client: tokio_postgres::Client,
    rung: std::sync::Arc<std::sync::atomic::AtomicUsize>,
}

impl Bell {
    async fn new(world: &World) -> Self {
        let (client, mut connection) =
            tokio_postgres::connect(&world.postgres.url(), NoTls).await.unwrap();
        let rung = std::sync::Arc::<std::sync::atomic::AtomicUsize>::default();
        let counter = rung.clone();
        tokio::spawn(async move {
            let mut messages =
                std::pin::pin!(futures_util::stream::poll_fn(|cx| connection.poll_message(cx)));
            while let Some(Ok(message)) = messages.next().await {
                if matches!(message, AsyncMessage::Notification(_)) {
                    counter.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                }
            }
        });
        client.batch_execute("listen outbox").await.unwrap();
        Self { client, rung }
    }

    /// Notifications of everything that was committed before this call.
    async fn rung(&self) -> usize {
        // The server sends what is pending before it answers.
        self.client.batch_execute("select 1").await.unwrap();
        self.rung.load(std::sync::atomic::Ordering::SeqCst)
    }
}

async fn asks(world: &World) -> bool {
    let sql = "select coalesce(pg_sequence_last_value('outbox.wake_until'), 0) \
               > extract(epoch from clock_timestamp())";
    world.owner().await.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_may_have_read_the_flag_before_it_was_set_is_waited_for() {
    let world = World::new().await;
    let database = Database::from_url(&world.postgres.url()).unwrap();
    let wake = Wake::new(database.connect("test").await.unwrap(), Term { token: 0 }).await.unwrap();
    let client = world.application().await;
    client.batch_execute("begin").await.unwrap();
    // It has read the flag, and will commit without a NOTIFY.
    Note::new("a").insert(&client).await.unwrap();
    let armed = wake.arm(Duration::from_secs(5)).await.unwrap();
    assert!(!wake.settled(&armed).await.unwrap());
    client.batch_execute("commit").await.unwrap();
    assert!(wake.settled(&armed).await.unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_has_lost_the_lease_leaves_the_question_of_its_successor() {
    let world = World::new().await;
    let database = Database::from_url(&world.postgres.url()).unwrap();
    let mut wakes = Vec::new();
    for holder in ["first", "second"] {
        let connection = database.connect("lease").await.unwrap();
        let lease = Lease::new(connection, holder.to_owned(), Duration::from_secs(1));
        let lease = lease.await.unwrap();
        let begun = Instant::now();
        let term = loop {
            if let Some(term) = lease.take().await.unwrap() {
                break term;
            }
            assert!(begun.elapsed() < Duration::from_secs(10), "the first lease does not end");
        };
        wakes.push(Wake::new(database.connect("test").await.unwrap(), term).await.unwrap());
    }
    wakes[1].arm(Duration::from_secs(60)).await.unwrap();
    wakes[0].disarm().await.unwrap();
    assert!(asks(&world).await);
    wakes[1].disarm().await.unwrap();
    assert!(!asks(&world).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_wake_up_is_lost_in_thousands_of_sleeps() {
    const ROWS: usize = 1_500;
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    // The first row is not to wait for a relay that is still on its way.
    eventually("the relay asks for wake-ups", Duration::from_secs(30), || asks(&world)).await;
    let mut writers = Vec::new();
    for _ in 0..4 {
        let client = world.application().await;
        client
            .batch_execute("set default_transaction_isolation = 'repeatable read'")
            .await
            .unwrap();
        writers.push(client);
    }
    let mut connection = world.streams().await;
    let mut slow = Vec::new();
    for count in 1..=ROWS {
        let client = &writers[count % writers.len()];
        // The snapshot is taken now, while the relay may still be awake; the row comes later.
        client.batch_execute("begin; select 1").await.unwrap();
        if count % 3 == 0 {
            tokio::time::sleep(Duration::from_micros(count as u64 % 4_000)).await;
        }
        Note::new("a").insert(client).await.unwrap();
        client.batch_execute("commit").await.unwrap();
        let begun = Instant::now();
        loop {
            let length: usize =
                redis::cmd("XLEN").arg("a").query_async(&mut connection).await.unwrap();
            if length == count {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(30), "row {count} did not arrive");
        }
        if begun.elapsed() > Duration::from_millis(800) {
            slow.push((count, begun.elapsed()));
        }
    }
    assert!(slow.is_empty(), "only the poll found {slow:?}");
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_notified_while_the_relay_is_dead_or_busy() {
    let world = World::new().await;
    let bell = Bell::new(&world).await;
    let client = world.application().await;
    Note::new("a").insert(&client).await.unwrap();
    assert_eq!(bell.rung().await, 0, "no relay has ever run");
    // The loop of the relay is slower than the writers, whatever else this machine does.
    let proxy = Proxy::start(std::net::SocketAddr::from(([127, 0, 0, 1], world.postgres.port())));
    proxy.set_delay(Duration::from_millis(2));
    let database = format!("postgres://{RELAY}@127.0.0.1:{}/postgres", proxy.port());
    let urls = (database, world.urls().1);
    let variables = world.variables(&urls, &[("OUTBOX_LEASE", "10s")]);
    let mut relay = Relay::start(world.folder.path(), "relay", &variables);
    let asleep = || async { asks(&world).await };
    eventually("the relay asks for wake-ups", Duration::from_secs(30), asleep).await;
    Note::new("a").insert(&client).await.unwrap();
    assert_eq!(bell.rung().await, 1, "it sleeps and asked");

    let transactions = 3_000;
    let mut busy = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let client = world.application().await;
        busy.spawn(async move {
            for _ in 0..transactions / 4 {
                Note::new("a").insert(&client).await.unwrap();
            }
        });
    }
    while let Some(written) = busy.join_next().await {
        written.unwrap();
    }
    let rung = bell.rung().await;
    assert!(rung < transactions / 4, "{rung} notifications for {transactions} transactions");

    eventually("it asks again", Duration::from_secs(30), asleep).await;
    relay.kill();
    let over = || async { !asks(&world).await };
    eventually("the question runs out", Duration::from_secs(10), over).await;
    let before = bell.rung().await;
    Note::new("a").insert(&client).await.unwrap();
    assert_eq!(bell.rung().await, before, "the relay is dead");
    world.end_lease().await;
    let _relay = world.relay("relay", &[]);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_writer_that_opts_out_can_prepare() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[]);
    eventually("the relay asks", Duration::from_secs(30), || async { asks(&world).await }).await;
    let client = world.application().await;
    let insert = "insert into outbox.entry (stream, payload) values ('a', '1')";
    let prepare = |name: &str| format!("begin; {insert}; prepare transaction '{name}'");
    let refused = client.batch_execute(&prepare("one")).await.unwrap_err();
    assert!(refused.as_db_error().unwrap().message().contains("NOTIFY"), "{refused:?}");
    client.batch_execute("rollback; set outbox.wake = off").await.unwrap();
    client.batch_execute(&prepare("two")).await.unwrap();
    client.batch_execute("commit prepared 'two'").await.unwrap();
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_alone_delivers_and_asks_for_nothing() {
    let world = World::new().await;
    let _relay = world.relay("relay", &[("OUTBOX_WAKE", "off"), ("OUTBOX_POLL", "50ms")]);
    let client = world.application().await;
    for _ in 0..10 {
        let note = Note::new("a");
        note.insert(&client).await.unwrap();
        world.journal.write([note]);
    }
    world.reconcile().await;
    assert!(!asks(&world).await);
    // The trigger may be missing altogether.
    world.sql("drop trigger wake on outbox.entry").await;
    let note = Note::new("a");
    note.insert(&client).await.unwrap();
    world.journal.write([note]);
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_frozen_in_its_sleep_fills_no_queue_and_fails_no_commit() {
    let world = World::new().await;
    let relay = world.relay("relay", &[]);
    eventually("the relay asks", Duration::from_secs(30), || async { asks(&world).await }).await;
    relay.signal(rustix::process::Signal::STOP);
    let client = world.application().await;
    eventually("the question runs out", Duration::from_secs(10), || async {
        let note = Note::new("a");
        note.insert(&client).await.unwrap();
        world.journal.write([note]);
        !asks(&world).await
    })
    .await;
    let usage = "select pg_notification_queue_usage()";
    let before: f64 = world.owner().await.query_one(usage, &[]).await.unwrap().get(0);
    for _ in 0..500 {
        let note = Note::new("a");
        note.insert(&client).await.unwrap();
        world.journal.write([note]);
    }
    let after: f64 = world.owner().await.query_one(usage, &[]).await.unwrap().get(0);
    assert!(after <= before && after < 0.001, "the queue grew from {before} to {after}");
    relay.signal(rustix::process::Signal::CONT);
    world.reconcile().await;
}
