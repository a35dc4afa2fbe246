//! Events that are given up, and what people do with them.

use outbox_relay::worker::Outcome;

use super::shop::{BOUND, GROUP, Shop};
use crate::support::command::{command, fails};
use crate::support::eventually;
use crate::support::workers::make_group;

#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_job_stops_coming_back_after_its_limit_and_is_found_in_the_dead_letters() {
    let shop = Shop::open().await;
    // It keeps all entries in the stream.
    make_group(&shop.world, "orders", "ledger").await;
    let poison = shop.order(1, 1, "fail 3").await;
    let behind = shop.order(1, 2, "work").await;
    let worker = shop.start(shop.settings("worker-1"));
    shop.done(1).await;
    shop.nothing_is_pending().await;
    assert_eq!(worker.outcomes_of(poison).len(), 3);
    assert_eq!(worker.outcomes_of(behind), [Outcome::Done]);
    // Nor does it come back with a Redis that has lost everything.
    shop.world.redis::<()>(&["FLUSHALL"]).await;
    shop.order(2, 1, "work").await;
    shop.done(2).await;
    shop.nothing_is_pending().await;
    // Nor with a group that somebody sets back.
    shop.world.redis::<redis::Value>(&["XGROUP", "SETID", "orders", GROUP, "0"]).await;
    eventually("it is given again, and skipped", BOUND, || async {
        worker.outcomes_of(poison).last() == Some(&Outcome::DoneBefore)
    })
    .await;
    let outcomes = worker.outcomes_of(poison);
    let failed = |outcome: &&Outcome| matches!(outcome, Outcome::Failed { .. });
    assert_eq!(outcomes.iter().filter(failed).count(), 2, "{outcomes:?}");
    shop.nothing_is_pending().await;

    let urls = shop.world.urls();
    let database = [("DATABASE_URL", urls.0.as_str())];
    let address = crate::metrics::address(&shop.relay).await;
    eventually("the metric counts it", BOUND, || async {
        crate::metrics::value(&address, "outbox_relay_dead_letters").await == Some(1.0)
    })
    .await;
    let status = shop.world.status_text();
    assert!(status.contains("1 event that workers gave up"), "{status}");
    let listed = command(&["dead", "list"], &database);
    assert_eq!(listed.code, Some(0), "{listed:#?}");
    for part in [poison.to_string().as_str(), GROUP, "orders", "key 1", "out of paper", "  3\n"] {
        assert!(listed.out.contains(part), "no {part} in {}", listed.out);
    }
    let listed = command(&["dead", "list", "--json", "--group", GROUP], &database);
    let letters: serde_json::Value = serde_json::from_str(&listed.out).unwrap();
    assert_eq!(letters[0]["event_id"], poison.to_string());
    assert_eq!(letters[0]["payload"]["do"], "fail 3");
    assert_eq!(letters[0]["deliveries"], 3);
    let other = command(&["dead", "list", "--group", "other"], &database);
    assert_eq!((other.code, other.out.as_str()), (Some(0), "no event was given up\n"));

    // One more attempt, which is the fourth, and succeeds.
    let retried = command(&["dead", "retry", &poison.to_string()], &database);
    assert_eq!(retried.code, Some(0), "{retried:#?}");
    shop.done(3).await;
    shop.becomes("it is no dead letter any more", "select count(*) from outbox.dead_letter", 0)
        .await;
    shop.every_event_was_done_once(3).await;
    let again = command(&["dead", "retry", &poison.to_string()], &database);
    assert_eq!((again.code, again.out.as_str()), (Some(1), "there is nothing to try again\n"));
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attempt_that_fails_again_leaves_it_dead_and_what_is_discarded_is_gone() {
    let shop = Shop::open().await;
    let first = shop.order(1, 1, "fail").await;
    shop.order(2, 1, "refuse").await;
    let worker = shop.start(shop.settings("worker-1"));
    shop.becomes("both are dead", "select count(*) from outbox.dead_letter", 2).await;
    let urls = shop.world.urls();
    let database = [("DATABASE_URL", urls.0.as_str())];
    let retried = command(&["dead", "retry", "--all", "--stream", "orders"], &database);
    assert!(retried.code == Some(0) && retried.out.contains("2 events"), "{retried:#?}");
    let dead = |outcome: &&Outcome| matches!(outcome, Outcome::Dead { .. });
    eventually("it has failed again", BOUND, || async {
        worker.outcomes_of(first).iter().filter(dead).count() == 2
    })
    .await;
    let sql = "select count(*) from outbox.dead_letter where retry_at is null";
    shop.becomes("both are dead as before", sql, 2).await;
    assert_eq!(shop.number("select max(deliveries) from outbox.dead_letter").await, 4);

    fails(&["dead", "discard"], &database, 64, &["--all"]);
    let kept = command(&["dead", "discard", &first.to_string()], &database);
    assert_eq!(kept.code, Some(1), "{kept:#?}");
    let gone = command(&["dead", "discard", &first.to_string(), "--yes"], &database);
    assert_eq!((gone.code, gone.out.as_str()), (Some(0), "forgot 1 event\n"));
    assert_eq!(shop.number("select count(*) from outbox.dead_letter").await, 1);
    assert_eq!(shop.number("select count(*) from work.receipts").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn notes_go_when_their_events_cannot_come_again() {
    let shop = Shop::open().await;
    drop(shop.relay);
    shop.world.end_lease().await;
    let short = [("OUTBOX_RETENTION", "2s"), ("OUTBOX_CHECKPOINT", "100ms")];
    let _relay = shop.world.relay("hasty", &short);
    let shop = Shop { relay: _relay, world: shop.world };
    let gate = shop.gate().await;
    shop.order(1, 1, "work").await;
    shop.order(2, 1, "wait").await;
    shop.order(3, 1, "work").await;
    let worker = shop.start(shop.settings("worker-1"));
    shop.waiting(1).await;
    shop.done(2).await;
    // A group that no checkpoint knows has but its age.
    let note = "insert into outbox.done (consumer_group, event_id, done_at) \
                values ('stranger', gen_random_uuid(), now() - interval '1 hour')";
    shop.world.sql(note).await;
    shop.becomes(
        "the stranger's is gone",
        "select count(*) from outbox.done where consumer_group = 'stranger'",
        0,
    )
    .await;
    // What was done before the one that waits was written may go; what came behind it may come again.
    let of = |order: i64| {
        format!(
            "select count(*) from outbox.done where event_id = \
        (select event_id from outbox.entry where key = '{order}')"
        )
    };
    let old = "select count(*) from work.receipts where exists (select from outbox.done d where \
               d.done_at > clock_timestamp() - interval '4 s')";
    shop.becomes("the notes are older than the retention", old, 0).await;
    assert_eq!(shop.number(&of(3)).await, 1);
    drop(gate);
    shop.done(3).await;
    shop.becomes("all notes are gone", "select count(*) from outbox.done", 0).await;
    shop.every_event_was_done_once(3).await;
    worker.stop().await;
}
