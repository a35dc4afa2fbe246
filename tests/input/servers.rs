//! Servers that answer, but are not what the settings promise; and servers that do not answer.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, RedisOptions, free_port};
use redis::aio::MultiplexedConnection;

use crate::support::command::{Ended, SECRET, command, fails};
use crate::support::journal::Note;
use crate::support::world::{APPLICATION, World};
use crate::support::{contents, eventually, proxy::Proxy};

/// Runs each of `words` with these URLs: it must exit with its code, say each text, and change
/// nothing in either server.
async fn refused(world: &World, words: &[(&str, i32)], urls: (&str, &str), texts: &[&str]) {
    let owner = world.owner().await;
    let mut redis = world.streams().await;
    refused_by(&owner, &mut redis, words, urls, texts).await;
}

async fn refused_by(
    owner: &tokio_postgres::Client,
    redis: &mut MultiplexedConnection,
    words: &[(&str, i32)],
    (database, server): (&str, &str),
    texts: &[&str],
) {
    let before = (contents::of_postgres(owner).await, contents::of_redis(redis).await);
    for (word, code) in words {
        let variables =
            [("DATABASE_URL", database), ("REDIS_URL", server), ("OUTBOX_START", "20s")];
        let ended = fails(&[word], &variables, *code, texts);
        assert!(ended.took < Duration::from_secs(15), "it hoped for long: {ended:#?}");
        let after = (contents::of_postgres(owner).await, contents::of_redis(redis).await);
        assert_eq!(before, after, "{word} changed something");
    }
}

const ALL: [(&str, i32); 3] = [("run", 1), ("verify", 2), ("migrate", 1)];
const BOTH: [(&str, i32); 2] = [("run", 1), ("verify", 2)];

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_postgres_user_password_or_database_is_refused() {
    let world = World::new().await;
    world
        .sql(
            "set password_encryption = 'scram-sha-256'; create role locked login password 'right'; \
              create role nologin nologin",
        )
        .await;
    let file = world.postgres.data_dir().join("pg_hba.conf");
    let rules = std::fs::read_to_string(&file).unwrap();
    let rules = format!(
        "host all locked 127.0.0.1/32 scram-sha-256\nhost all barred 127.0.0.1/32 reject\n{rules}"
    );
    std::fs::write(&file, rules).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
    world.sql("select pg_reload_conf()").await;
    let (port, redis) = (world.postgres.port(), world.redis.url());
    eventually("the rules are read", Duration::from_secs(20), || async {
        let url = format!("postgres://locked@127.0.0.1:{port}/postgres");
        tokio_postgres::connect(&url, tokio_postgres::NoTls).await.is_err()
    })
    .await;
    let name = format!("127.0.0.1:{port}/postgres");
    let cases = [
        (format!("locked:{SECRET}"), "\"locked\" in; check user and password in DATABASE_URL"),
        ("locked".into(), "DATABASE_URL has none"),
        ("nobody".into(), "\"nobody\" in; check user and password in DATABASE_URL"),
        ("nologin".into(), "\"nologin\" in; check user and password in DATABASE_URL"),
        ("barred".into(), "\"barred\" in; check user and password in DATABASE_URL"),
    ];
    for (user, told) in cases {
        let url = format!("postgres://{user}@{name}");
        refused(&world, &ALL, (&url, &redis), &[told, &name]).await;
    }
    let url = format!("postgres://postgres:{SECRET}@127.0.0.1:{port}/absent");
    let told = ["no such database", "check DATABASE_URL", "/absent"];
    refused(&world, &ALL, (&url, &redis), &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_redis_password_is_refused() {
    let world = World::with(
        PostgresOptions::default(),
        RedisOptions::default().with("requirepass", "right"),
    )
    .await;
    let (database, port) = (world.urls().0, world.redis.port());
    let right = format!("redis://:right@127.0.0.1:{port}/");
    let client = redis::Client::open(right.as_str()).unwrap();
    let mut redis = client.get_multiplexed_async_connection().await.unwrap();
    let owner = world.owner().await;
    let name = format!("127.0.0.1:{port}");
    for user in [format!(":{SECRET}@"), format!("u:{SECRET}@"), String::new()] {
        let url = format!("redis://{user}127.0.0.1:{port}/0");
        let told = ["Redis", name.as_str(), "check user and password in REDIS_URL"];
        refused_by(&owner, &mut redis, &BOTH, (&database, &url), &told).await;
    }
    let verified = command(&["verify"], &[("DATABASE_URL", &database), ("REDIS_URL", &right)]);
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_user_without_rights_is_refused() {
    let world = World::new().await;
    let words = ["ACL", "SETUSER", "weak", "on", ">weak", "~orders", "+@read", "+@connection"];
    world.redis::<String>(&words).await;
    let url = format!("redis://weak:weak@127.0.0.1:{}/0", world.redis.port());
    refused(&world, &BOTH, (&world.urls().0, &url), &["Redis", "right", "give"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_the_schema_or_with_a_newer_one_is_refused() {
    let world = World::new().await;
    let redis = world.redis.url();
    world.sql("create database plain").await;
    let plain = world.postgres.url_of("plain", "postgres");
    refused(
        &world,
        &BOTH,
        (&plain, &redis),
        &["/plain", "there is no outbox", "outbox-relay migrate"],
    )
    .await;
    world.sql("insert into outbox.migration (version, name) values (99, 'future')").await;
    let owner = world.postgres.url();
    refused(&world, &ALL, (&owner, &redis), &["version 99", "use a newer outbox-relay"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_schema_is_refused_and_migrate_named() {
    let world = World::new().await;
    world.sql("delete from outbox.migration").await;
    let told = ["version 0", "outbox-relay migrate"];
    refused(&world, &BOTH, (&world.urls().0, &world.redis.url()), &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_that_was_granted_nothing_is_refused() {
    let world = World::new().await;
    world.sql("create role nobody login").await;
    let redis = world.redis.url();
    for user in ["nobody", APPLICATION] {
        let url = world.postgres.url_of("postgres", user);
        refused(
            &world,
            &BOTH,
            (&url, &redis),
            &["permission denied", "outbox-relay migrate --relay-role"],
        )
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_of_another_outbox_is_refused_and_both_are_named() {
    let world = World::new().await;
    let row =
        world.owner().await.query_one("select id::text from outbox.identity", &[]).await.unwrap();
    let ours: String = row.get(0);
    let theirs = "0a7e1b52-93a4-4c0f-8d11-6f5e4d3c2b1a";
    world.redis::<i64>(&["HSET", "outbox:identity", "id", theirs, "system", "1"]).await;
    let told = ["this Redis belongs to outbox", theirs, &ours, "REDIS_URL"];
    refused(&world, &BOTH, (&world.urls().0, &world.redis.url()), &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_identity_key_of_another_type_is_refused_and_named() {
    let world = World::new().await;
    world.redis::<String>(&["SET", "outbox:identity", "mine"]).await;
    let told = ["outbox:identity", "WRONGTYPE", "OUTBOX_PREFIX"];
    refused(&world, &BOTH, (&world.urls().0, &world.redis.url()), &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_copied_database_is_refused_and_both_clusters_are_named() {
    let world = World::new().await;
    let sql = "select system_identifier::text from pg_control_system()";
    let here: String = world.owner().await.query_one(sql, &[]).await.unwrap().get(0);
    world.sql("update outbox.identity set system_identifier = '42'").await;
    let told = ["made in cluster 42", &here];
    refused(&world, &BOTH, (&world.urls().0, &world.redis.url()), &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_standby_is_refused_as_a_source() {
    let mut world = World::new().await;
    let signal = world.postgres.data_dir().join("standby.signal");
    world.postgres.stop_fast().unwrap();
    std::fs::write(&signal, "").unwrap();
    world.postgres.restart().unwrap();
    let recovers: bool =
        world.owner().await.query_one("select pg_is_in_recovery()", &[]).await.unwrap().get(0);
    assert!(recovers, "the server is no standby: the test shows nothing");
    let told = ["is a standby", "DATABASE_URL must name the primary"];
    refused(&world, &ALL, (&world.postgres.url(), &world.redis.url()), &told).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_evicts_streams_or_is_a_replica_is_refused() {
    let world = World::new().await;
    let database = world.urls().0;
    for policy in ["allkeys-lru", "allkeys-lfu", "allkeys-random"] {
        world.redis::<String>(&["CONFIG", "SET", "maxmemory-policy", policy]).await;
        let told = [policy, "CONFIG SET maxmemory-policy noeviction"];
        refused(&world, &[("run", 1)], (&database, &world.redis.url()), &told).await;
    }
    let other = World::bare(PostgresOptions::default(), RedisOptions::default());
    let port = world.redis.port().to_string();
    other.redis::<String>(&["REPLICAOF", "127.0.0.1", &port]).await;
    eventually("the replica follows", Duration::from_secs(30), || async {
        let role: Vec<redis::Value> = other.redis(&["ROLE"]).await;
        format!("{:?}", role.get(3)).contains("connected")
    })
    .await;
    world.redis::<String>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]).await;
    let variables = [
        ("DATABASE_URL", database.as_str()),
        ("REDIS_URL", &other.redis.url()),
        ("OUTBOX_START", "1s"),
    ];
    fails(&["run"], &variables, 1, &["is a replica", "REDIS_URL must name the primary"]);
}

/// Ends within a bound, and names the place that does not answer.
fn unreachable(database: &str, redis: &str, place: &str, words: &[(&str, i32)], bound: u64) {
    for (word, code) in words {
        let variables = [("DATABASE_URL", database), ("REDIS_URL", redis), ("OUTBOX_START", "1s")];
        let ended: Ended = fails(&[word], &variables, *code, &[place]);
        assert!(ended.took < Duration::from_secs(bound), "{place}: {ended:#?}");
        if *word == "run" {
            assert!(
                ended.took >= Duration::from_secs(1),
                "{place}: it gave up at once: {ended:#?}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_server_at_start_is_an_error_after_the_wait_that_was_set() {
    let world = World::new().await;
    let (database, redis) = world.urls();
    let port = free_port().unwrap();
    let secret_postgres = format!("postgres://u:{SECRET}@127.0.0.1:{port}/d");
    let place = format!("Postgres at 127.0.0.1:{port}/d");
    unreachable(&secret_postgres, &redis, &place, &ALL, 10);
    let place = format!("Redis at 127.0.0.1:{port}");
    unreachable(&database, &format!("redis://:{SECRET}@127.0.0.1:{port}/0"), &place, &BOTH, 10);
    let absent = format!("postgres://u:{SECRET}@no-such-host.invalid/d");
    unreachable(&absent, &redis, "Postgres at no-such-host.invalid:5432/d", &ALL, 30);
    let absent = format!("redis://:{SECRET}@no-such-host.invalid/0");
    unreachable(&database, &absent, "Redis at no-such-host.invalid:6379", &BOTH, 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_accepts_and_never_answers_is_given_up_as_well() {
    let world = World::new().await;
    let (database, redis) = world.urls();
    let local = |port: u16| std::net::SocketAddr::from(([127, 0, 0, 1], port));
    let proxies = [world.postgres.port(), world.redis.port()].map(|port| Proxy::start(local(port)));
    for proxy in &proxies {
        proxy.black_hole(true);
    }
    let [postgres_port, redis_port] = proxies.each_ref().map(Proxy::port);
    let silent = format!("redis://:{SECRET}@127.0.0.1:{redis_port}/0");
    unreachable(&database, &silent, &format!("Redis at 127.0.0.1:{redis_port}"), &BOTH, 20);
    let silent = format!("postgres://relay:{SECRET}@127.0.0.1:{postgres_port}/postgres");
    let place = format!("Postgres at 127.0.0.1:{postgres_port}/postgres");
    unreachable(&silent, &redis, &place, &ALL, 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn urls_from_files_and_flags_work_like_variables() {
    let world = World::new().await;
    let (database, redis) = world.urls();
    let file = |name: &str, text: &str| {
        let path = world.folder.path().join(name);
        std::fs::write(&path, format!("{text}\n")).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (database_file, redis_file) = (file("database", &database), file("redis", &redis));
    let files = [("DATABASE_URL_FILE", database_file.as_str()), ("REDIS_URL_FILE", &redis_file)];
    assert_eq!(command(&["verify"], &files).code, Some(0));
    let flags = ["verify", "--database-url", &database, "--redis-url", &redis];
    assert_eq!(command(&flags, &[]).code, Some(0));
    let flags = ["verify", "--database-url-file", &database_file, "--redis-url-file", &redis_file];
    assert_eq!(command(&flags, &[]).code, Some(0));
    let mut relay = crate::support::relay::Relay::start(world.folder.path(), "files", &files);
    let note = Note::new("orders");
    note.insert(&world.application().await).await.unwrap();
    world.journal.write([note]);
    world.reconcile().await;
    assert!(relay.stop().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_wins_over_its_variable() {
    let world = World::new().await;
    let (database, redis) = world.urls();
    let port = free_port().unwrap();
    let wrong = [
        ("DATABASE_URL", format!("postgres://u@127.0.0.1:{port}/d")),
        ("REDIS_URL", format!("redis://127.0.0.1:{port}")),
    ];
    let wrong = wrong.each_ref().map(|(name, value)| (*name, value.as_str()));
    let ended = command(&["verify", "--database-url", &database, "--redis-url", &redis], &wrong);
    assert_eq!(ended.code, Some(0), "{ended:#?}");
}
