//! Handlers that fail, hang, panic and kill their worker.

use std::time::Duration;

use outbox_relay::worker::{Outcome, Settings};

use super::shop::{BOUND, Shop};
use crate::support::eventually;

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_fails_is_tried_again_after_growing_waits() {
    let shop = Shop::open().await;
    let event = shop.order(1, 1, "fail 2").await;
    let worker = shop.start(shop.settings("worker-1"));
    shop.done(1).await;
    shop.nothing_is_pending().await;
    let failed = |millis| Outcome::Failed {
        error: "out of paper".to_owned(),
        again_in: Duration::from_millis(millis),
    };
    assert_eq!(worker.outcomes_of(event), [failed(50), failed(100), Outcome::Done]);
    shop.every_event_was_done_once(1).await;
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_a_time_out_and_a_refused_commit_are_failures() {
    let shop = Shop::open().await;
    // Looked at when the transaction commits, and not before.
    let sql = "create function work.refuse() returns trigger language plpgsql as \
               $$ begin if new.step = 99 then raise 'no such step'; end if; return null; end $$; \
               create constraint trigger refuse after insert on work.receipts \
               deferrable initially deferred for each row execute function work.refuse()";
    shop.world.sql(sql).await;
    let events = [
        (shop.order(1, 1, "panic").await, "panicked: the handler has a bug"),
        (shop.order(2, 1, "hang").await, "longer than 2s"),
        (shop.order(3, 1, "sleep 3600").await, "2s"),
        (shop.order(4, 99, "work").await, "no such step"),
        (shop.order(5, 1, "refuse").await, "no such customer"),
        (shop.order(6, 1, "fail").await, "the printer is on fire"),
    ];
    let limit = Duration::from_secs(2);
    let settings = Settings { attempts: 2, limit, ..shop.settings("worker-1") };
    let worker = shop.start(settings);
    let sql = "select count(*) from outbox.dead_letter";
    shop.becomes("all of them are dead letters", sql, events.len() as i64).await;
    shop.nothing_is_pending().await;
    for (event, said) in events {
        let attempts = if said == "no such customer" { 1 } else { 2 };
        let outcomes = worker.outcomes_of(event);
        let counted = outcomes.iter().filter(|one| !matches!(one, Outcome::Interrupted { .. }));
        assert_eq!(counted.count(), attempts, "{said}: {outcomes:?}");
        match outcomes.last() {
            Some(Outcome::Dead { error }) => {
                let late = error.contains("statement timeout");
                assert!(error.contains(said) || (late && said == "2s"), "{error}");
            }
            other => panic!("{said}: {other:?}"),
        }
    }
    assert_eq!(shop.number("select count(*) from work.receipts").await, 0);
    worker.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_kills_its_worker_is_given_up_and_what_ran_beside_it_is_not() {
    let shop = Shop::open().await;
    // The others have begun by the time it dies.
    for order in 1..=6 {
        shop.order(order, 1, "sleep 1").await;
    }
    shop.order(7, 1, "die").await;
    let mut deaths = 0;
    loop {
        let mut worker = shop.process("worker-1");
        let given_up = "select count(*) from outbox.dead_letter";
        let begun = std::time::Instant::now();
        let died = tokio::select! {
            () = worker.dies() => true,
            () = shop.becomes("it is given up", given_up, 1) => false,
        };
        assert!(begun.elapsed() < BOUND);
        if !died {
            shop.done(6).await;
            shop.nothing_is_pending().await;
            break;
        }
        deaths += 1;
        assert!(deaths <= 4, "it is given up after its fourth attempt");
    }
    assert_eq!(deaths, 4);
    let sql = "select count(*) from outbox.dead_letter \
               where key = '7' and deliveries = 4 and error like '%they died%'";
    assert_eq!(shop.number(sql).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_workers_with_the_same_event_do_it_once() {
    let shop = Shop::open().await;
    let gate = shop.gate().await;
    let event = shop.order(1, 1, "wait").await;
    let first = shop.start(shop.settings("worker-1"));
    shop.waiting(1).await;
    // As if it had been taken over from one that was thought to be dead.
    let ids: Vec<(String, Vec<String>)> = shop.world.redis(&["XRANGE", "orders", "-", "+"]).await;
    let second = shop.start(shop.settings("worker-2"));
    let claim = ["XCLAIM", "orders", super::shop::GROUP, "worker-2", "0", &ids[0].0];
    shop.world.redis::<redis::Value>(&claim).await;
    let waits = "select count(*) from pg_stat_activity where application_name = 'outbox-relay worker' \
                 and wait_event_type = 'Lock' and query like '%outbox.done%'";
    shop.becomes("the second one waits for the first", waits, 1).await;
    drop(gate);
    shop.done(1).await;
    shop.nothing_is_pending().await;
    let all = || [first.outcomes_of(event), second.outcomes_of(event)].concat();
    eventually("both have ended", BOUND, || async { all().len() == 2 }).await;
    assert_eq!(first.outcomes_of(event), [Outcome::Done]);
    assert_eq!(second.outcomes_of(event), [Outcome::DoneBefore]);
    shop.every_event_was_done_once(1).await;
    first.stop().await;
    second.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handler_that_swallows_an_error_of_postgres_or_ends_its_transaction_has_not_succeeded() {
    let shop = Shop::open().await;
    let swallows = shop.order(1, 1, "swallow").await;
    let undoes = shop.order(2, 1, "end rollback").await;
    let commits = shop.order(3, 1, "end commit").await;
    let worker = shop.start(Settings { attempts: 1, ..shop.settings("worker-1") });
    let ended = |event, said: &str| match worker.outcomes_of(event).as_slice() {
        [Outcome::Dead { error }] => error.contains(said),
        _ => false,
    };
    eventually("they are given up", BOUND, || async {
        ended(swallows, "aborted") && ended(undoes, "ended its transaction itself")
    })
    .await;
    // Its work is there, and so is the note.
    eventually("it is left as it is", BOUND, || async {
        worker.outcomes_of(commits) == [Outcome::DoneBefore]
    })
    .await;
    shop.nothing_is_pending().await;
    assert_eq!(shop.number("select count(*) from work.receipts").await, 1);
    assert_eq!(shop.number("select count(*) from outbox.dead_letter").await, 2);
    worker.stop().await;
}
