//! All that a server holds, as one text, to show that nothing changed.

use redis::aio::MultiplexedConnection;
use tokio_postgres::Client;

/// Rows, sequences, rights and definitions of everything in the schema `outbox`, and the roles.
pub(crate) async fn of_postgres(client: &Client) -> String {
    let mut text = String::new();
    let kinds = "select c.oid::regclass::text, c.relkind::text from pg_class c \
                 where c.relnamespace = to_regnamespace('outbox') and c.relkind in ('r', 'S') order by 1";
    for row in client.query(kinds, &[]).await.unwrap() {
        let (name, kind): (String, String) = (row.get(0), row.get(1));
        let sql = match kind.as_str() {
            "S" => format!("select last_value || ' ' || is_called from {name}"),
            _ => format!(
                "select coalesce(string_agg(t::text, ';' order by t::text), '') from {name} t"
            ),
        };
        let held: String = client.query_one(&sql, &[]).await.unwrap().get(0);
        text.push_str(&format!("{name}: {held}\n"));
    }
    let catalogue = "
        select coalesce(string_agg(line, E'\\n' order by line), '') from (
            select 'role ' || rolname from pg_roles
            union all select 'schema ' || nspname || coalesce(nspacl::text, '') from pg_namespace
            where nspname = 'outbox'
            union all select c.relname || ' ' || c.relowner || coalesce(c.relacl::text, '')
                || coalesce(pg_get_expr(c.relpartbound, c.oid), '') from pg_class c
            where c.relnamespace = to_regnamespace('outbox')
            union all select a.attrelid::regclass || '.' || a.attname || coalesce(a.attacl::text, '')
            from pg_attribute a join pg_class c on c.oid = a.attrelid
            where c.relnamespace = to_regnamespace('outbox') and a.attnum > 0
            union all select p.oid::regprocedure || coalesce(p.proacl::text, '') || md5(p.prosrc)
            from pg_proc p where p.pronamespace = to_regnamespace('outbox')) catalogue (line)";
    text.push_str(client.query_one(catalogue, &[]).await.unwrap().get(0));
    text
}

/// All keys with their values.
pub(crate) async fn of_redis(connection: &mut MultiplexedConnection) -> Vec<(String, Vec<u8>)> {
    let mut keys: Vec<String> = redis::cmd("KEYS").arg("*").query_async(connection).await.unwrap();
    keys.sort();
    let mut held = Vec::with_capacity(keys.len());
    for key in keys {
        let value: Vec<u8> = redis::cmd("DUMP").arg(&key).query_async(connection).await.unwrap();
        held.push((key, value));
    }
    held
}
