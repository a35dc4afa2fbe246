//! Rows committed in a real Postgres arrive in a real Redis, each exactly once, in order.

use crate::support::journal::{Fate, Note};
use crate::support::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn what_is_committed_arrives_and_what_is_rolled_back_does_not() {
    let world = World::new().await;
    let mut relay = world.relay("relay", &[]);
    let client = world.application().await;
    let (kept, dropped) = (Note::new("orders"), Note::new("orders").fate(Fate::RolledBack));
    kept.insert(&client).await.unwrap();
    client.batch_execute("begin").await.unwrap();
    dropped.insert(&client).await.unwrap();
    client.batch_execute("rollback").await.unwrap();
    world.journal.write([kept, dropped]);
    world.reconcile().await;
    assert!(relay.stop().success());
}
