//! Redis behind sentinels: who the primary is can change, and is asked for each connection.

use outbox_relay::sandbox::{Redis, RedisOptions};

use crate::support::command::command;
use crate::support::relay::Relay;
use crate::support::sentinels::{PRIMARY, Sentinels};
use crate::support::world::{RELAY, World, relay_in_redis};
use crate::support::writers::{Writers, write_rows};

#[tokio::test(flavor = "multi_thread")]
async fn the_primary_is_killed_and_it_goes_on_at_the_one_that_the_sentinels_name() {
    let mut world = World::new().await;
    let upstream = format!("127.0.0.1 {}", world.redis.port());
    let options = RedisOptions::default().with("user", &relay_in_redis());
    let mut replica = Redis::start(options.with("replicaof", &upstream)).unwrap();
    let mut sentinels = Sentinels::watch(&world.redis).await;
    let url = format!("redis+sentinel://{RELAY}:any@{}/{PRIMARY}/0", sentinels.hosts());
    let urls = (world.urls().0, url);
    let mut relay = Relay::start(world.folder.path(), "relay", &world.variables(&urls, &[]));
    write_rows(&world, "orders", 20).await;
    world.settled().await;
    sentinels.know_each_other().await;

    let writers = Writers::start(&world, 3);
    writers.write_more(100).await;
    // Two of three are enough, also for the relay.
    sentinels.kill_one();
    world.redis.kill().unwrap();
    writers.write_more(100).await;
    sentinels.name(replica.port()).await;
    std::mem::swap(&mut world.redis, &mut replica);
    writers.write_more(100).await;
    writers.stop().await;
    world.settled().await;
    assert!(relay.is_running());
    assert!(relay.stop().success());
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sentinels_that_do_not_know_the_primary_or_do_not_answer_are_named() {
    let world = World::new().await;
    let sentinels = Sentinels::watch(&world.redis).await;
    let hosts = sentinels.hosts();
    let first = hosts.split(',').next().unwrap().to_owned();
    let told = |redis: &str| {
        let words = ["run", "--start", "0s", "--http", "127.0.0.1:0"];
        let ended = command(&words, &[("DATABASE_URL", &world.urls().0), ("REDIS_URL", redis)]);
        assert_eq!(ended.code, Some(1), "{ended:#?}");
        ended.err
    };
    let unknown = told(&format!("redis+sentinel://{hosts}/another"));
    assert!(unknown.contains("no sentinel names a primary"), "{unknown}");
    assert!(unknown.contains(&format!("{first} knows no primary another")), "{unknown}");
    drop(sentinels);
    let gone = told(&format!("redis+sentinel://:secret@{hosts}/{PRIMARY}"));
    assert!(gone.contains(&format!("{PRIMARY} (sentinels {}", hosts.replace(',', ", "))), "{gone}");
    assert!(gone.contains("refused") && !gone.contains("secret"), "{gone}");
}
