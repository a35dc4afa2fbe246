//! A worker needs few rights, and says which it lacks.

use outbox_relay::error::Kind;
use outbox_relay::stream::worker_rights;
use outbox_relay::worker::{Server, Settings};

use super::shop::Shop;

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_works_with_the_rights_that_the_readme_names_and_no_others() {
    let shop = Shop::open().await;
    let readme =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let line = format!("ACL SETUSER worker on >password {}\n", worker_rights(""));
    assert!(readme.contains(&line), "README.md does not say {line}");
    let rights = worker_rights("");
    let mut words = vec!["ACL", "SETUSER", "worker", "on", "nopass"];
    words.extend(rights.split(' '));
    shop.world.redis::<()>(&words).await;
    let url = format!("redis://worker:any@127.0.0.1:{}/", shop.world.redis.port());
    let server = Server::from_url(&url, "").unwrap();
    shop.order(1, 1, "fail 1").await;
    shop.orders(10..60, "work").await;
    let worker = shop.start_at(server, shop.settings("worker-1"));
    shop.done(51).await;
    shop.nothing_is_pending().await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_cannot_work_says_why_at_once() {
    let shop = Shop::open().await;
    let wrong = Settings { handlers: 0, ..shop.settings("") };
    let error = shop.start(wrong).ended().await.expect_err("it has no name");
    assert!(error.kind() == Kind::Usage && error.to_string().contains("consumer"), "{error}");
    shop.world.sql("revoke insert on outbox.dead_letter from worker").await;
    let error = shop.start(shop.settings("worker-1")).ended().await.expect_err("it may not");
    assert!(
        error.kind() == Kind::Refused && error.to_string().contains("--worker-role"),
        "{error}"
    );
    shop.world.sql("drop table outbox.done, outbox.dead_letter cascade").await;
    let error = shop.start(shop.settings("worker-1")).ended().await.expect_err("it is missing");
    assert!(error.to_string().contains("outbox-relay migrate"), "{error}");
}
