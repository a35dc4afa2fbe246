//! The door of names that consumers choose: groups and consumers are any bytes. Each line of an input is a
//! name; the first is the group's, the others are its consumers'.

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};
use outbox_relay::stream::{Appended, Place, Restored, Server};
use redis::aio::MultiplexedConnection;

use super::door::Door;
use crate::support::world::World;

type Pending = Vec<(String, Vec<u8>, u64, u64)>;

/// A group with what its consumers were given, as Redis tells it.
async fn group(redis: &mut MultiplexedConnection, name: &[u8]) -> Vec<(String, Vec<u8>, u64)> {
    let mut command = redis::cmd("XPENDING");
    command.arg("names").arg(name).arg("-").arg("+").arg(100);
    let found: Pending = command.query_async(redis).await.unwrap();
    found.into_iter().map(|(id, consumer, _, count)| (id, consumer, count)).collect()
}

async fn fill(redis: &mut MultiplexedConnection) {
    let mut fill = redis::pipe();
    fill.cmd("DEL").arg("names").ignore();
    for n in 1..=4 {
        fill.cmd("XADD").arg("names").arg(format!("{n}-{n}")).arg("id").arg(n).ignore();
    }
    fill.exec_async(redis).await.unwrap();
}

/// Makes the group; each consumer is given an entry.
async fn make(redis: &mut MultiplexedConnection, names: &[&[u8]]) {
    let mut make = redis::pipe();
    make.cmd("XGROUP").arg("CREATE").arg("names").arg(names[0]).arg("0").ignore();
    for consumer in &names[1..] {
        make.cmd("XREADGROUP").arg("GROUP").arg(names[0]).arg(*consumer).arg("COUNT").arg(1);
        make.arg("STREAMS").arg("names").arg(">").ignore();
    }
    make.exec_async(redis).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_come_back_whatever_they_are_called() {
    let world = World::bare(PostgresOptions::default(), RedisOptions::default());
    let postgres = world.owner().await;
    let mut redis = world.streams().await;
    let relay = Server::from_url(&world.redis.url(), "").unwrap().connect().await.unwrap();
    let mut door = Door::open("names");
    while let Some(input) = door.next() {
        let names: Vec<&[u8]> = input.bytes.split(|byte| *byte == b'\n').take(5).collect();
        fill(&mut redis).await;
        make(&mut redis, &names).await;
        let before = group(&mut redis, names[0]).await;
        let view = relay.view("names").await.unwrap();
        // As a checkpoint keeps it.
        let stored = serde_json::to_value(&view.groups).unwrap();
        let sql = "select $1::jsonb";
        let read: serde_json::Value = postgres.query_one(sql, &[&stored]).await.unwrap().get(0);
        let groups: Vec<outbox_relay::group::Group> = serde_json::from_value(read).unwrap();
        let Place::At(at) = view.place else { panic!("{view:?}") };
        fill(&mut redis).await;
        let restored = relay.restore("names", at, at, &groups).await.unwrap();
        let Restored::Done { gone, .. } = restored else { panic!("{restored:?}") };
        assert_eq!(gone.len(), 1, "{gone:?}");
        let pended = relay.pend("names", at, &groups, &gone).await.unwrap();
        assert_eq!(pended, Appended::Done);
        assert_eq!(group(&mut redis, names[0]).await, before);
        let again = relay.view("names").await.unwrap();
        assert_eq!(again.groups[0].name, view.groups[0].name);
    }
}
