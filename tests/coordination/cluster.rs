//! A Redis Cluster: each key where its slot is, also while that moves.

use std::time::Duration;

use outbox_relay::coordination::Coordination;
use outbox_relay::stream::Server;

use super::{LONG, expiry, keys, next, taken, work};
use crate::support::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn everything_works_in_a_cluster_while_slots_move() {
    let world = World::with_cluster(0).await;
    let cluster = world.cluster.as_ref().unwrap();
    let url = cluster.url().replace("relay:any@", "");
    let here = Coordination::new(Server::from_url(&url, "shop:").unwrap());
    let short = expiry(Duration::from_secs(1));
    let (mut held, mut owners) = (Vec::new(), [0; 3]);
    for order in 0..12 {
        let name = format!("order:{order}");
        held.push(taken(&here.lock(&name, short).unwrap()).await);
        owners[cluster.owner(&format!("shop:lock:{name}")).await] += 1;
        let limit = here.rate_limit(&name, 1, expiry(LONG)).unwrap();
        assert!(limit.allow().await.unwrap().is_allowed());
        assert!(!limit.allow().await.unwrap().is_allowed());
        let mut once = here.once(&name, expiry(LONG)).unwrap();
        assert!(once.first().await.unwrap() && !once.first().await.unwrap());
    }
    assert!(owners.iter().all(|locks| *locks > 0), "{owners:?}: not on every primary");
    let mut found = Vec::new();
    for node in &cluster.nodes {
        found.extend(keys(node).await);
    }
    assert_eq!(found.len(), 36);
    assert!(found.iter().all(|key| key.starts_with("shop:")), "{found:?}");
    let key = "shop:lock:order:0";
    let from = cluster.owner(key).await;
    let to = (from + 1) % 3;
    cluster.begin_move(key, from, to).await;
    assert_eq!(held[0].while_held(work(short.time())).await, Ok(()));
    cluster.end_move(key, from, to).await;
    for held in &held {
        assert_eq!(held.while_held(work(Duration::from_millis(100))).await, Ok(()));
    }
    let again = here.lock("order:0", short).unwrap();
    assert!(again.acquire().await.unwrap().is_none());
    for held in held {
        held.release().await.unwrap();
    }
    next(&again).await.release().await.unwrap();
    for node in &cluster.nodes {
        keys(node).await;
    }
}
