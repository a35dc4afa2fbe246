//! The schema: made once however often it is asked for, with exactly the rights it should give.

mod bounds;
mod golden;
mod leaves;
mod rights;

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};

use crate::support::command::{Ended, command, fails};
use crate::support::contents;
use crate::support::world::{World, connect};
use crate::support::writers::Writers;

fn bare() -> World {
    World::bare(PostgresOptions::default(), RedisOptions::default())
}

/// Runs `migrate` as the owner of a database, with these options.
#[track_caller]
fn migrate(world: &World, options: &[&str]) -> Ended {
    let words = [&["migrate"], options].concat();
    let ended = command(&words, &[("DATABASE_URL", &world.postgres.url())]);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
    ended
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_makes_the_schema_and_a_second_time_changes_nothing() {
    let world = bare();
    world.sql("create role shop login; create role relay login").await;
    let roles = ["--app-role", "shop", "--relay-role", "relay"];
    let name = format!("127.0.0.1:{}/postgres", world.postgres.port());
    let first = migrate(&world, &roles);
    let expected = format!(
        "{name}: created the schema outbox, version 6\n{name}: role shop may insert entries\n\
         {name}: role relay may run the relay\n"
    );
    assert_eq!(first.out, expected);
    let owner = world.owner().await;
    let before = contents::of_postgres(&owner).await;
    assert!(before.contains("outbox.entry_0"), "no leaf was made: {before}");
    let second = migrate(&world, &roles);
    assert!(second.out.contains("is at version 6, as it should be"), "{second:#?}");
    migrate(&world, &[]);
    assert_eq!(before, contents::of_postgres(&owner).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_from_the_first_version_keeps_rows_and_gives_its_relay_the_new_rights() {
    let (upgraded, fresh) = (bare(), bare());
    let first = include_str!("../sql/migrations/0001_outbox.sql");
    upgraded.sql("create role shop login; create role relay login").await;
    upgraded.sql(first).await;
    let record = "insert into outbox.migration (version, name) values (1, 'outbox')";
    let grants = "select outbox.attach_leaves(), outbox.grant_application('shop'), \
                  outbox.grant_relay('relay')";
    upgraded.sql(&format!("{record}; {grants}")).await;
    upgraded.sql("insert into outbox.entry (stream, payload) values ('orders', '1')").await;
    let told = migrate(&upgraded, &[]);
    assert!(told.out.contains("upgraded the schema outbox from version 1 to 6"), "{told:#?}");
    fresh.sql("create role shop login; create role relay login").await;
    migrate(&fresh, &["--app-role", "shop", "--relay-role", "relay"]);
    let sql = "select grantee::text || ' ' || table_name || ' ' || column_name || ' ' || privilege_type \
               from information_schema.column_privileges where table_schema = 'outbox' order by 1";
    let mut rights = Vec::new();
    for world in [&upgraded, &fresh] {
        let rows = world.owner().await.query(sql, &[]).await.unwrap();
        rights.push(rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>());
    }
    assert_eq!(rights[0], rights[1], "an upgrade and a new schema give other rights");
    let _relay = upgraded.relay("relay", &[]);
    upgraded.holds("orders", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_that_migrate_at_the_same_time_make_one_schema() {
    let world = bare();
    world.sql("create role shop login; create role relay login").await;
    let url = world.postgres.url();
    let ended: Vec<Ended> = std::thread::scope(|scope| {
        let words = ["migrate", "--app-role", "shop", "--relay-role", "relay"];
        let url = url.as_str();
        let runs: Vec<_> = (0..10)
            .map(|_| scope.spawn(move || command(&words, &[("DATABASE_URL", url)])))
            .collect();
        runs.into_iter().map(|run| run.join().unwrap()).collect()
    });
    assert!(ended.iter().all(|ended| ended.code == Some(0)), "{ended:#?}");
    let made = ended.iter().filter(|ended| ended.out.contains("created the schema")).count();
    assert_eq!(made, 1, "{ended:#?}");
    let owner = world.owner().await;
    let before = contents::of_postgres(&owner).await;
    migrate(&world, &["--app-role", "shop", "--relay-role", "relay"]);
    assert_eq!(before, contents::of_postgres(&owner).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_not_utf8_is_refused() {
    let world = bare();
    world.sql("create database x encoding 'SQL_ASCII' locale 'C' template template0").await;
    let url = world.postgres.url_of("x", "postgres");
    let told = ["/x has encoding SQL_ASCII", "create database", "encoding 'UTF8'"];
    fails(&["migrate"], &[("DATABASE_URL", &url)], 1, &told);
    let held = contents::of_postgres(&connect(&url).await).await;
    assert!(!held.contains("schema outbox"), "{held}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_role_is_refused_and_nothing_is_changed() {
    let world = bare();
    world.sql("create role shop login").await;
    let (url, owner) = (world.postgres.url(), world.owner().await);
    let variables = [("DATABASE_URL", url.as_str())];
    let before = contents::of_postgres(&owner).await;
    for role in ["absent", "public", "\"shop\"", "SHOP", ""] {
        let words = ["migrate", "--app-role", "shop", "--relay-role", role];
        let told = [format!("no role {role:?}"), "create role".to_owned()];
        fails(&words, &variables, 1, &told.each_ref().map(String::as_str));
        assert_eq!(before, contents::of_postgres(&owner).await, "{role:?} left something behind");
    }
    assert!(!before.contains("schema outbox"));
    migrate(&world, &[]);
    let before = contents::of_postgres(&owner).await;
    fails(&["migrate", "--app-role", "shop", "--app-role", "absent"], &variables, 1, &["absent"]);
    assert_eq!(before, contents::of_postgres(&owner).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn roles_whose_names_need_quotes_get_their_rights() {
    let world = bare();
    let names =
        ["My Shop", "sel\"ect", "select", "drop;--", "it's", "Köln", "%s", "back\\slash", "1"];
    let owner = world.owner().await;
    for name in names {
        let quoted = format!("\"{}\"", name.replace('"', "\"\""));
        world.sql(&format!("create role {quoted}")).await;
        migrate(&world, &["--app-role", name, "--relay-role", name]);
        let insert = "insert into outbox.entry (stream, payload) values ('s', '1')";
        let sql = format!("set role {quoted}; {insert}; select * from outbox.batch; reset role");
        owner.batch_execute(&sql).await.unwrap_or_else(|e| panic!("{name}: {e:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_create_a_schema_is_told_so() {
    let world = bare();
    world.sql("create role weak login").await;
    let url = world.postgres.url_of("postgres", "weak");
    let before = contents::of_postgres(&world.owner().await).await;
    let told = ["permission denied for database postgres", "owner"];
    fails(&["migrate"], &[("DATABASE_URL", &url)], 1, &told);
    assert_eq!(before, contents::of_postgres(&world.owner().await).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrating_again_under_load_disturbs_neither_writers_nor_the_relay() {
    let world = World::new().await;
    let relay = world.relay("relay", &[("OUTBOX_BATCH_ROWS", "20")]);
    let writers = Writers::start(&world, 3);
    for _ in 0..5 {
        writers.write_more(30).await;
        migrate(&world, &["--app-role", "shop", "--relay-role", "relay"]);
    }
    writers.stop().await;
    world.reconcile().await;
    relay.lost_nothing();
    assert!(!relay.log().contains("trying again in"), "no session ended:\n{}", relay.log());
}
