//! Somebody between the relay and Postgres: a real PgBouncer, and a name that leads to several servers.

use outbox_relay::outbox::Database;

use crate::support::command::command;
use crate::support::pgbouncer::PgBouncer;
use crate::support::proxy::Proxy;
use crate::support::relay::Relay;
use crate::support::world::{RELAY, World};
use crate::support::writers::write_rows;

fn through(port: u16) -> String {
    format!("postgres://{RELAY}@127.0.0.1:{port}/postgres")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_gives_out_a_session_per_transaction_is_refused() {
    let world = World::new().await;
    let Some(pooler) = PgBouncer::start(&world, "transaction").await else { return };
    for words in [&["run", "--http", "127.0.0.1:0"][..], &["verify"], &["status"]] {
        let urls = (through(pooler.port()), world.urls().1);
        let ended = command(words, &[("DATABASE_URL", &urls.0), ("REDIS_URL", &urls.1)]);
        assert_ne!(ended.code, Some(0), "{words:?}: {ended:#?}");
        let said = ended.err.clone() + &ended.out;
        assert!(said.contains("pool_mode = session"), "{words:?}: {ended:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_gives_each_connection_its_session_is_as_good_as_none() {
    let world = World::new().await;
    let Some(pooler) = PgBouncer::start(&world, "session").await else { return };
    let urls = (through(pooler.port()), world.urls().1);
    let mut relay = Relay::start(world.folder.path(), "relay", &world.variables(&urls, &[]));
    write_rows(&world, "orders", 50).await;
    world.settled().await;
    world.redis::<()>(&["FLUSHALL"]).await;
    relay.logged("Redis lost entries 1 to 50 of stream orders").await;
    world.settled().await;
    // Writers wake it through the pooler.
    let sql = "select pg_sequence_last_value('outbox.wake_until') > extract(epoch from clock_timestamp())";
    let asks = || async {
        let row = world.owner().await.query_one(sql, &[]).await.unwrap();
        row.get::<_, Option<bool>>(0) == Some(true)
    };
    let bound = std::time::Duration::from_secs(30);
    crate::support::eventually("it asks to be woken", bound, asks).await;
    write_rows(&world, "orders", 50).await;
    world.settled().await;
    assert!(relay.stop().success());
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_works_with_one_server_though_its_name_leads_to_another() {
    let (one, other) = (World::new().await, World::new().await);
    let front = Proxy::start(([127, 0, 0, 1], one.postgres.port()).into());
    let database = Database::from_url(&through(front.port())).unwrap();
    let first = database.connect("lease").await.unwrap();
    database.settle_on(&first);
    assert!(database.connect_beside("find").await.is_ok());
    front.retarget(([127, 0, 0, 1], other.postgres.port()).into());
    let error = database.connect_beside("find").await.unwrap_err().to_string();
    assert!(error.contains("another server than a moment ago"), "{error}");
    let pool = database.pool(1).unwrap();
    let error = pool.get().await.err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("another server than a moment ago")));
    // The next session works with the other one.
    database.settle_on(&database.connect("lease").await.unwrap());
    assert!(database.connect_beside("find").await.is_ok());
}
