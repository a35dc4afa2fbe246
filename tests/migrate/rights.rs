//! What the roles may do, asked of the catalogue over everything there is, and tried.

use std::collections::BTreeSet;

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::support::world::{APPLICATION, RELAY, WORKER, World};

/// Every right that a role has on anything in the schema, as `<object> <right>`.
async fn rights(owner: &Client, role: &str) -> BTreeSet<String> {
    let sql = "
        with object as (
            select c.oid, c.relname, c.relkind from pg_class c
            where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S'))
        select relname || ' ' || p from object,
            unnest('{SELECT,INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]) p
        where relkind <> 'S' and has_table_privilege($1, oid, p)
        union all
        select relname || '.' || attname || ' ' || p from object join pg_attribute on attrelid = oid,
            unnest('{SELECT,INSERT,UPDATE,REFERENCES}'::text[]) p
        where relkind <> 'S' and not attisdropped and has_column_privilege($1, oid, attnum, p)
        union all
        select relname || ' ' || p from object, unnest('{SELECT,USAGE,UPDATE}'::text[]) p
        where relkind = 'S' and has_sequence_privilege($1, oid, p)
        union all
        select oid::regprocedure || ' EXECUTE' from pg_proc
        where pronamespace = 'outbox'::regnamespace and has_function_privilege($1, oid, 'EXECUTE')
        union all
        select 'schema ' || p from unnest('{USAGE,CREATE}'::text[]) p
        where has_schema_privilege($1, 'outbox', p)";
    let rows = owner.query(sql, &[&role]).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_may_do_what_the_contract_says_and_nothing_else() {
    let world = World::new().await;
    let expected = [
        "schema USAGE",
        "entry.event_id INSERT",
        "entry.stream INSERT",
        "entry.key INSERT",
        "entry.type INSERT",
        "entry.payload INSERT",
        "entry.headers INSERT",
        "entry.id SELECT",
        "entry.event_id SELECT",
        "wake_until SELECT",
        "outbox.emit(text,jsonb,text,text,jsonb,uuid,boolean) EXECUTE",
    ];
    let expected: BTreeSet<String> = expected.map(str::to_owned).into();
    assert_eq!(rights(&world.owner().await, APPLICATION).await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_may_note_what_it_has_done_and_nothing_else() {
    let world = World::new().await;
    let expected: BTreeSet<String> = [
        "schema USAGE",
        "done SELECT",
        "done.consumer_group INSERT",
        "done.event_id INSERT",
        "dead_letter SELECT",
        "dead_letter INSERT",
        "dead_letter UPDATE",
        "dead_letter DELETE",
        "outbox.retry_dead_letter(text,uuid) EXECUTE",
        "outbox.discard_dead_letter(text,uuid) EXECUTE",
    ]
    .map(str::to_owned)
    .into();
    let mut rights = rights(&world.owner().await, WORKER).await;
    // A right to a table is one to each of its columns.
    let whole = rights.clone();
    rights.retain(|right| {
        let (object, kind) = right.rsplit_once(' ').unwrap();
        let table = object.split('.').next().unwrap();
        table == object || table == "outbox" || !whole.contains(&format!("{table} {kind}"))
    });
    assert_eq!(rights, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_was_granted_nothing_may_nothing() {
    let world = World::new().await;
    world.sql("create role nobody login").await;
    assert_eq!(rights(&world.owner().await, "nobody").await, BTreeSet::new());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_owns_nothing_deletes_nothing_and_writes_no_entries() {
    let world = World::new().await;
    let owner = world.owner().await;
    let rights = rights(&owner, RELAY).await;
    assert!(rights.contains("batch INSERT") && rights.contains("entry SELECT"), "{rights:?}");
    for right in &rights {
        let (object, kind) = right.rsplit_once(' ').unwrap();
        let forbidden = ["DELETE", "TRUNCATE", "REFERENCES", "TRIGGER", "CREATE"];
        assert!(!forbidden.contains(&kind), "the relay has {right}");
        let entry = object.split('.').next() == Some("entry") || object.starts_with("entry_");
        assert!(kind == "SELECT" || !entry, "the relay has {right}");
        let own = ["identity", "migration", "leaf"];
        assert!(
            kind == "SELECT" || !own.contains(&object.split('.').next().unwrap()),
            "the relay has {right}"
        );
    }
    let sql = "select (select count(*) from pg_shdepend d join pg_roles r on r.oid = d.refobjid \
                       where r.rolname = $1 and d.deptype = 'o'), \
                      (select rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls \
                       from pg_roles where rolname = $1)";
    let row = owner.query_one(sql, &[&RELAY]).await.unwrap();
    assert_eq!((row.get::<_, i64>(0), row.get::<_, bool>(1)), (0, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_function_can_be_led_astray_by_a_search_path() {
    let world = World::new().await;
    let sql = "select p.oid::regprocedure::text, coalesce(p.proconfig::text, '') from pg_proc p \
               where p.pronamespace = 'outbox'::regnamespace and p.prosqlbody is null";
    for row in world.owner().await.query(sql, &[]).await.unwrap() {
        let (function, config): (String, String) = (row.get(0), row.get(1));
        assert!(config.contains("search_path=pg_catalog, pg_temp"), "{function}: {config}");
    }
}

/// The statement must be refused for want of a right, not for anything else.
#[track_caller]
fn denied(sql: &str, result: Result<(), tokio_postgres::Error>) {
    let error = result.expect_err(sql);
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE), "{sql}: {error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_held_to_its_rights() {
    let world = World::new().await;
    let client = world.application().await;
    let insert = "insert into outbox.entry (event_id, stream, key, type, payload, headers) \
                  values (gen_random_uuid(), 's', 'k', 't', '{}', '{}') returning id, event_id";
    client.query_one(insert, &[]).await.unwrap();
    let emit = "select outbox.emit('s', '{}', ordered => true), \
                (select last_value from outbox.wake_until), pg_sequence_last_value('outbox.wake_until')";
    client.query_one(emit, &[]).await.unwrap();
    client.query("select id, event_id from outbox.entry", &[]).await.unwrap();
    let forbidden = [
        "insert into outbox.entry (xid, stream, payload) values ('1', 's', '1')",
        "insert into outbox.entry (created_at, stream, payload) values (now(), 's', '1')",
        "insert into outbox.entry (id, stream, payload) overriding system value values (7, 's', '1')",
        "insert into outbox.entry_0 (event_id, stream, payload) values (gen_random_uuid(), 's', '1')",
        "insert into outbox.entry_net (event_id, stream, payload) values (gen_random_uuid(), 's', '1')",
        "insert into outbox.entry (stream, payload) values ('s', '1') returning payload",
        "select payload from outbox.entry",
        "select * from outbox.entry",
        "update outbox.entry set payload = '2'",
        "delete from outbox.entry",
        "truncate outbox.entry",
        "select id from outbox.entry for update",
        "begin; lock table outbox.entry in share mode",
        "select setval('outbox.wake_until', 99)",
        "select nextval('outbox.wake_until')",
        "select nextval('outbox.entry_id_seq')",
        "select setval('outbox.entry_id_seq', 99)",
        "select outbox.attach_leaves()",
        "select outbox.grant_relay('shop')",
        "create table outbox.mine (a int)",
        "alter table outbox.entry disable trigger all",
        "drop schema outbox cascade",
    ];
    for sql in forbidden {
        denied(sql, client.batch_execute(sql).await);
        client.batch_execute("rollback").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_reads_no_other_table_and_calls_no_other_function() {
    let world = World::new().await;
    let (owner, client) = (world.owner().await, world.application().await);
    let tables = "select c.oid::regclass::text from pg_class c where c.relnamespace = 'outbox'::regnamespace \
                  and c.relkind in ('r', 'p', 'v', 'm', 'S') and c.relname not in ('entry', 'wake_until')";
    let rows = owner.query(tables, &[]).await.unwrap();
    assert!(rows.len() > 15, "only {} tables: the query is wrong", rows.len());
    for row in rows {
        let table: String = row.get(0);
        for sql in [format!("select * from {table}"), format!("delete from {table}")] {
            let result = client.batch_execute(&sql).await;
            let code = result.as_ref().err().and_then(|e| e.code()).cloned();
            // From a sequence, and from such a view, nobody can delete.
            let impossible =
                [SqlState::WRONG_OBJECT_TYPE, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE];
            if !code.is_some_and(|code| impossible.contains(&code)) {
                denied(&sql, result);
            }
        }
    }
}
