//! What is wrong with Postgres and the schema in it.

use std::collections::BTreeSet;

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};

use super::{BOUND, Said, doctor, doctor_with, found_and_mended, gone, healthy, mend, variables};
use crate::support::command::command;
use crate::support::eventually;
use crate::support::pooler::Pooler;
use crate::support::world::{RELAY, World};
use crate::support::writers::write_rows;

/// The doctor for whom a second is long.
#[track_caller]
fn impatient(world: &World) -> Said {
    doctor_with(&variables(&world.urls()), &["--long-transaction", "1s"])
}

/// What the impatient doctor says once it says something about `what`.
async fn found(world: &World, what: &str) -> Said {
    let name = format!("something is found about {what}");
    eventually(&name, BOUND, || async { impatient(world).about(what).next().is_some() }).await;
    impatient(world)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schema_that_is_not_as_migrate_left_it_is_found_and_mended() {
    let world = healthy().await;
    assert_eq!(doctor(&world).one("no relay has ever led here").fix, "outbox-relay run");
    world
        .sql(
            "alter table outbox.entry disable trigger refuse_entry; \
             drop trigger wake on outbox.entry; \
             alter sequence outbox.entry_id_seq cache 50; \
             revoke update (state) on outbox.stream from relay; \
             revoke execute on function outbox.attach_leaves from relay",
        )
        .await;
    let enable = "alter table outbox.entry enable trigger refuse_entry";
    found_and_mended(&world, "trigger refuse_entry of outbox.entry is disabled", enable).await;
    let said = doctor(&world);
    let missing = said.one("trigger wake of outbox.entry is missing");
    assert!(missing.fix.starts_with("create trigger wake after insert"), "{missing:#?}");
    let urls = world.urls();
    let polls = [&variables(&urls)[..], &[("OUTBOX_WAKE", "off")]].concat();
    assert_eq!(doctor_with(&polls, &[]).about("trigger wake").count(), 0, "it is not needed");
    mend(&world, missing).await;
    let cache = "alter sequence outbox.entry_id_seq cache 1 no cycle";
    found_and_mended(&world, "entry_id_seq has CACHE 50", cache).await;
    let lacks = "role relay lacks rights that a relay needs: execute on function \
                 outbox.attach_leaves, update (state) on outbox.stream";
    found_and_mended(&world, lacks, "outbox-relay migrate --relay-role relay").await;
    world.sql("alter table outbox.entry_0 disable trigger refuse_entry").await;
    let enable = "alter table outbox.entry_0 enable trigger refuse_entry";
    found_and_mended(&world, "trigger refuse_entry", enable).await;
    let _relay = world.relay("relay", &[]);
    gone(&world, "no relay").await;
    assert_eq!(doctor(&world).code, 0, "{:#?}", doctor(&world));
    // The trigger that was made anew wakes, and the one that was enabled refuses.
    write_rows(&world, "orders", 5).await;
    world.reconcile().await;
    let client = world.application().await;
    let refused = "insert into outbox.entry (stream, payload) values ('a b', '1')";
    client.batch_execute(refused).await.expect_err("the name is out of bounds");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_comes_too_late_is_found_and_rows_are_moved_out_of_the_net() {
    let world = healthy().await;
    world.sql("select setval('outbox.entry_id_seq', 19500000)").await;
    let attach = "select outbox.attach_leaves()";
    found_and_mended(&world, "outbox.entry for 499,999 numbers", attach).await;
    // Two groups of rows that no leaf takes, with leaves between them.
    for id in [500_000_000, 1_234_567_890] {
        world.sql(&format!("select setval('outbox.entry_id_seq', {id})")).await;
        write_rows(&world, "orders", 3).await;
        world.sql(attach).await;
    }
    let said = doctor(&world);
    mend(&world, said.one("there are rows in outbox.entry_net")).await;
    gone(&world, "outbox.entry_net").await;
    let homes = "select count(*) from outbox.entry where tableoid::regclass::text like '%net'";
    assert_eq!(world.owner().await.query_one(homes, &[]).await.unwrap().get::<_, i64>(0), 0);
    write_rows(&world, "orders", 3).await;
    let _relay = world.relay("relay", &[]);
    world.reconcile().await;
    assert_eq!(doctor(&world).code, 0, "{:#?}", doctor(&world));
}

#[tokio::test(flavor = "multi_thread")]
async fn seals_and_batches_are_moved_out_of_their_nets() {
    let world = healthy().await;
    let mut relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 3).await;
    world.settled().await;
    relay.stop();
    // As if seals had outrun their leaves.
    world
        .sql(
            "update outbox.batch set seal = 70000000; \
             update outbox.seal set seal = 70000000 where seal = (select max(seal) from outbox.seal)",
        )
        .await;
    let said = doctor(&world);
    mend(&world, said.one("there are rows in outbox.seal_net")).await;
    for net in ["outbox.seal_net", "outbox.batch_net", "room is left"] {
        gone(&world, net).await;
    }
    let _relay = world.relay("again", &[]);
    write_rows(&world, "orders", 3).await;
    world.reconcile().await;
    gone(&world, "no relay").await;
    assert_eq!(doctor(&world).code, 0, "{:#?}", doctor(&world));
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_are_open_or_prepared_for_long_are_found_and_ended() {
    let world = healthy().await;
    world.sql("grant pg_read_all_stats to relay").await;
    let relay = world.relay("relay", &[]);
    let open = world.application().await;
    let insert = "insert into outbox.entry (stream, payload) values ('orders', '1')";
    let begin = format!("set application_name = 'it''s me'; begin; {insert}");
    open.batch_execute(&begin).await.unwrap();
    let prepared = world.owner().await;
    let sql = format!("set outbox.wake = off; begin; {insert}; prepare transaction 'it''s'");
    prepared.batch_execute(&sql).await.unwrap();
    found(&world, "has been prepared").await;
    let said = found(&world, "has had a transaction open").await;
    assert_eq!(doctor(&world).code, 0, "five minutes are not over");
    let session = said.one("has had a transaction open");
    assert!(session.what.contains("(application 'it''s me', role shop)"), "{session:#?}");
    mend(&world, session).await;
    let forgotten = said.one("transaction 'it''s' (role postgres) has been prepared");
    assert_eq!(forgotten.fix, "rollback prepared 'it''s'");
    let timeout = said.one("idle_in_transaction_session_timeout is 0");
    mend(&world, timeout).await;
    mend(&world, forgotten).await;
    eventually("nothing is found", BOUND, || async { impatient(&world).code == 0 }).await;
    write_rows(&world, "orders", 1).await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_transaction_is_found_also_by_a_role_that_may_not_see_when_it_began() {
    let world = healthy().await;
    let _relay = world.relay("relay", &[]);
    let open = world.application().await;
    let insert = "insert into outbox.entry (stream, payload) values ('orders', '1')";
    open.batch_execute(&format!("begin; {insert}")).await.unwrap();
    let what = "has had a transaction open for more than 1.0 s";
    eventually("it is found", BOUND, || async {
        write_rows(&world, "orders", 1).await;
        impatient(&world).about(what).next().is_some()
    })
    .await;
    let said = impatient(&world);
    mend(&world, said.one(what)).await;
    eventually("nothing is found", BOUND, || async { impatient(&world).code == 0 }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_lose_commits_or_stop_them_are_found_and_mended() {
    let postgres = PostgresOptions { fsync: true, ..PostgresOptions::default() };
    let postgres = postgres.with("wal_level", "logical").with("max_connections", "16");
    let postgres = postgres.with("superuser_reserved_connections", "1");
    let redis = RedisOptions::default().with("appendonly", "yes").with("maxmemory", "1gb");
    let mut world = World::with(postgres, redis).await;
    for statement in [
        "alter system set full_page_writes = off",
        "alter system set autovacuum = off",
        "alter system set synchronous_commit = off",
        "alter role shop in database postgres set synchronous_commit = off",
        "select pg_create_logical_replication_slot('forgotten', 'pgoutput')",
        "alter system set synchronous_standby_names = 'elsewhere'",
        "select pg_reload_conf()",
    ] {
        world.sql(statement).await;
    }
    eventually("the settings are read", BOUND, || async {
        doctor(&world).about("full_page_writes").next().is_some()
    })
    .await;
    let set = |text: &str| format!("alter system set {text}; select pg_reload_conf()");
    let standby = "commits wait for a standby (elsewhere), and none is connected";
    found_and_mended(&world, standby, &set("synchronous_standby_names = ''")).await;
    found_and_mended(&world, "full_page_writes is off", &set("full_page_writes = on")).await;
    found_and_mended(&world, "autovacuum is off", &set("autovacuum = on")).await;
    let hasty = "synchronous_commit is off, so commits do not wait for the disk";
    found_and_mended(&world, hasty, &set("synchronous_commit = on")).await;
    let reset = "alter role shop in database postgres reset synchronous_commit";
    let hasty = "commits of role shop in database postgres do not wait for the disk";
    found_and_mended(&world, hasty, reset).await;
    let drop = "select pg_drop_replication_slot('forgotten')";
    found_and_mended(&world, "the replication slot forgotten", drop).await;
    let mut crowd = Vec::new();
    for _ in 0..12 {
        crowd.push(world.owner().await);
    }
    let raise = "alter system set max_connections = 32";
    let said = doctor(&world);
    let crowded = said.one("of 16 connections are in use");
    assert_eq!(crowded.fix, raise, "{said:#?}");
    mend(&world, crowded).await;
    world.postgres.restart().unwrap();
    gone(&world, "connections are in use").await;
    assert_eq!(doctor(&world).whats(), ["no relay has ever led here"]);
}

/// Every right that the role has been granted, but on leaves, as the doctor names them.
async fn granted(world: &World, role: &str) -> BTreeSet<String> {
    let sql = "
        with object as (
            select c.* from pg_class c where c.relnamespace = 'outbox'::regnamespace
            and (not c.relispartition or c.relname like '%\\_net'))
        select format('%s on %soutbox.%s', lower(a.privilege_type),
                      case when o.relkind = 'S' then 'sequence ' else '' end, o.relname)
        from object o, aclexplode(o.relacl) a where a.grantee = $1::text::regrole
        union all
        select format('%s (%s) on outbox.%s', lower(a.privilege_type), c.attname, o.relname)
        from object o join pg_attribute c on c.attrelid = o.oid, aclexplode(c.attacl) a
        where a.grantee = $1::text::regrole
        union all
        select 'execute on function outbox.' || p.proname
        from pg_proc p, aclexplode(p.proacl) a
        where p.pronamespace = 'outbox'::regnamespace and a.grantee = $1::text::regrole
        union all
        select 'usage on schema outbox' from pg_namespace n, aclexplode(n.nspacl) a
        where n.nspname = 'outbox' and a.grantee = $1::text::regrole";
    let rows = world.owner().await.query(sql, &[&role]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_is_told_all_that_migrate_would_grant() {
    let world = healthy().await;
    world.sql("create role fresh login").await;
    let urls = (world.postgres.url_of("postgres", "fresh"), world.redis.url());
    let said = doctor_with(&variables(&urls), &[]);
    assert_eq!(said.code, 2, "without any right the schema cannot be read: {said:#?}");
    let lacks = said.one("role fresh lacks rights that a relay needs: ");
    let (_, listed) = lacks.what.split_once(": ").unwrap();
    let listed: BTreeSet<String> = listed.split(", ").map(str::to_owned).collect();
    assert_eq!(listed, granted(&world, RELAY).await);
    mend(&world, lacks).await;
    let said = doctor_with(&variables(&urls), &[]);
    assert_eq!(said.whats(), ["no relay has ever led here"], "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_outbox_a_halted_stream_and_another_version_are_found() {
    let world = healthy().await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 3).await;
    world.settled().await;
    world.redis::<String>(&["XADD", "orders", "*", "a", "b"]).await;
    write_rows(&world, "orders", 1).await;
    world.becomes("orders", "halted").await;
    let halted = "outbox-relay rebuild orders";
    let said = doctor(&world);
    assert_eq!(said.one("stream orders is halted").fix, halted, "{said:#?}");
    let urls = world.urls();
    let rebuilt = command(&["rebuild", "orders", "--yes"], &variables(&urls));
    assert_eq!(rebuilt.code, Some(0), "{rebuilt:#?}");
    gone(&world, "is halted").await;
    drop(relay);
    world.sql("update outbox.identity set system_identifier = '42'").await;
    found_and_mended(&world, "was made in cluster 42", "outbox-relay adopt").await;
    world.sql("insert into outbox.migration (version, name) values (99, 'later')").await;
    let said = doctor(&world);
    assert_eq!(said.one("has schema version 99").fix, "use a newer outbox-relay");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pooler_that_shares_sessions_is_found() {
    let world = healthy().await;
    let pooler = Pooler::start(world.postgres.port()).await;
    let url = format!("postgres://relay@127.0.0.1:{}/postgres", pooler.port());
    let urls = (url, world.redis.url());
    let said = doctor_with(&variables(&urls), &[]);
    let shared = said.one("a pooler between the relay and Postgres");
    assert!(shared.fix.contains("DATABASE_URL must name Postgres itself"), "{shared:#?}");
    assert_eq!(doctor(&world).about("a pooler").count(), 0);
}
