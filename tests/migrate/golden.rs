//! The schema as Postgres itself writes it down: reviewed when it changes, explained in the catalogue.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::command::to_the_end;

const HEADER: &str = "\
-- The schema `outbox` as pg_dump 15 writes it down after `outbox-relay migrate`, for review.
-- Generated; do not edit. Anew with: UPDATE_GOLDEN=1 cargo test --test it golden
";

#[tokio::test(flavor = "multi_thread")]
async fn the_golden_schema_is_what_migrate_makes() {
    let world = super::bare();
    super::migrate(&world, &[]);
    let pg_dump = world.postgres.bin_dir().join("pg_dump");
    let run = |words: &[&str]| {
        let mut command = Command::new(&pg_dump);
        command.args(words);
        to_the_end(command, Duration::from_secs(60))
    };
    let version = run(&["--version"]).out;
    if !version.contains("(PostgreSQL) 15.") {
        eprintln!("SKIPPED: sql/schema.sql is compared by pg_dump 15 only; here is {version}");
        return;
    }
    let url = world.postgres.url();
    let dumped = run(&["--schema-only", "--schema=outbox", "--no-owner", &url]);
    assert_eq!(dumped.code, Some(0), "{dumped:#?}");
    let found = format!("{HEADER}{}", without_versions(&dumped.out));
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/schema.sql");
    if std::env::var_os("UPDATE_GOLDEN").is_some_and(|set| set == "1") {
        std::fs::write(&file, &found).unwrap();
        return;
    }
    let golden = std::fs::read_to_string(&file).unwrap_or_default();
    if let Some(line) = (0..).zip(golden.lines().zip(found.lines())).find(|(_, (a, b))| a != b) {
        panic!("sql/schema.sql is old; line {} differs: {:?}. {HEADER}", line.0 + 1, line.1);
    }
    assert_eq!(golden.lines().count(), found.lines().count(), "sql/schema.sql is old. {HEADER}");
}

/// Leaves out what differs from one patch release, or one run, to the next.
fn without_versions(dump: &str) -> String {
    let volatile = ["-- Dumped from", "-- Dumped by", "\\restrict", "\\unrestrict"];
    let mut text = String::new();
    for line in dump.lines().filter(|line| !volatile.iter().any(|start| line.starts_with(start))) {
        // Leaves one empty line where there were several.
        if !(line.is_empty() && text.ends_with("\n\n")) {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_in_the_schema_says_what_it_is_for() {
    let world = super::bare();
    super::migrate(&world, &[]);
    // Leaves are listed in outbox.leaf; their names are all there is to say.
    let sql = "
        select c.relname::text from pg_class c
        where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p', 'v', 'm', 'S')
          and c.relname not in (select name from outbox.leaf)
          and coalesce(obj_description(c.oid, 'pg_class'), '') = ''
        union all
        select a.attrelid::regclass || '.' || a.attname
        from pg_attribute a join pg_class c on c.oid = a.attrelid
        where c.relnamespace = 'outbox'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0
          and c.relname not in (select name from outbox.leaf) and c.relname !~ '(net|checkpoint_[01])$'
          and not a.attisdropped and col_description(a.attrelid, a.attnum) is null
        union all
        select 'index ' || c.relname from pg_class c join pg_index i on i.indexrelid = c.oid
        join pg_class t on t.oid = i.indrelid
        where c.relnamespace = 'outbox'::regnamespace and t.relname not in (select name from outbox.leaf)
          and t.relname !~ '(net|checkpoint_[01])$' and obj_description(c.oid, 'pg_class') is null
        union all
        select 'trigger ' || t.tgname from pg_trigger t join pg_class c on c.oid = t.tgrelid
        where c.relnamespace = 'outbox'::regnamespace and t.tgparentid = 0 and not t.tgisinternal
          and obj_description(t.oid, 'pg_trigger') is null
        union all
        select p.oid::regprocedure || ' does not say what it locks' from pg_proc p
        where p.pronamespace = 'outbox'::regnamespace
          and obj_description(p.oid, 'pg_proc') !~* 'lock'
        union all
        select p.oid::regprocedure::text from pg_proc p
        where p.pronamespace = 'outbox'::regnamespace and coalesce(obj_description(p.oid, 'pg_proc'), '') = ''
        union all
        select 'type ' || t.typname from pg_type t
        where t.typnamespace = 'outbox'::regnamespace and t.typtype in ('e', 'd')
          and coalesce(obj_description(t.oid, 'pg_type'), '') = ''
        union all
        select 'schema' where coalesce(obj_description('outbox'::regnamespace, 'pg_namespace'), '') = ''";
    let rows = world.owner().await.query(sql, &[]).await.unwrap();
    let silent: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert!(silent.is_empty(), "without a comment in the catalogue: {silent:?}");
}
