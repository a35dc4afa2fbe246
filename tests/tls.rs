//! TLS to both servers: certificates that are right, wrong, and rotated.

use crate::support::certificates::{
    Authority, Certificate, file, postgres_has, postgres_lets_in, redis_has, shown,
};
use crate::support::command::command;
use crate::support::relay::Relay;
use crate::support::world::{RELAY, World};
use crate::support::writers::write_rows;

/// Both servers speak TLS with `certificate`.
async fn speaking(certificate: &Certificate, clients: &Authority) -> (World, String, String) {
    let world = World::new().await;
    postgres_has(&world, certificate, clients).await;
    let port = redis_has(&world, certificate, clients).await;
    world.redis::<()>(&["CONFIG", "SET", "tls-auth-clients", "no"]).await;
    let database =
        format!("postgres://{RELAY}@localhost:{}/postgres?sslmode=require", world.postgres.port());
    (world, database, format!("rediss://localhost:{port}/"))
}

fn variables<'a>(
    database: &'a str,
    redis: &'a str,
    more: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let mut variables = vec![
        ("DATABASE_URL", database),
        ("REDIS_URL", redis),
        ("OUTBOX_AUDIT", "500ms"),
        ("OUTBOX_LEASE", "2s"),
    ];
    variables.extend_from_slice(more);
    variables
}

/// What `doctor` says of both servers, on one line.
fn doctor(variables: &[(&str, &str)]) -> String {
    let ended = command(&["doctor"], variables);
    let said = ended.out + &ended.err;
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Sessions of the relay, and how many of them are encrypted.
async fn sessions(world: &World) -> (i64, i64) {
    let sql = "select count(*), count(*) filter (where ssl) from pg_stat_ssl \
               join pg_stat_activity using (pid) where application_name like 'outbox-relay %'";
    let row = world.owner().await.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

/// Everything that was written has arrived; seen without TLS, as it was set up at first.
async fn checked(world: &World) {
    postgres_lets_in(world, "host all all all trust\n").await;
    world.reconcile().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_goes_over_tls_to_both_servers() {
    let authority = Authority::new("ours");
    let (world, database, redis) = speaking(&authority.issue("localhost"), &authority).await;
    postgres_lets_in(&world, "hostssl all all all trust\n").await;
    let ca = shown(&file(&world, "ca.crt", &authority.pem));
    let files = [("DATABASE_TLS_CA", ca.as_str()), ("REDIS_TLS_CA", ca.as_str())];
    let variables = variables(&database, &redis, &files);
    let mut relay = Relay::start(world.folder.path(), "relay", &variables);
    write_rows(&world, "orders", 20).await;
    world.settled().await;
    let (all, encrypted) = sessions(&world).await;
    assert!(all > 0 && all == encrypted, "{encrypted} of {all} sessions are encrypted");
    // A loss makes it read the log, on connections of a pool.
    world.redis::<()>(&["FLUSHALL"]).await;
    relay.logged("Redis lost").await;
    world.settled().await;
    let (all, encrypted) = sessions(&world).await;
    assert!(all > 0 && all == encrypted, "{encrypted} of {all} sessions are encrypted");
    assert!(relay.stop().success());
    checked(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_not_right_is_refused_with_what_is_wrong() {
    let (ours, other) = (Authority::new("ours"), Authority::new("theirs"));
    let (world, database, redis) = speaking(&ours.issue("localhost"), &ours).await;
    let ca = shown(&file(&world, "ca.crt", &ours.pem));
    let files = [("DATABASE_TLS_CA", ca.as_str()), ("REDIS_TLS_CA", ca.as_str())];
    let cases = [
        (other.issue("localhost"), "signed by nobody who is trusted here"),
        (ours.issue_expired("localhost"), "its certificate has expired"),
        (ours.issue("db.example"), "its certificate is for db.example, not for localhost"),
    ];
    for (certificate, wrong) in cases {
        postgres_has(&world, &certificate, &ours).await;
        redis_has(&world, &certificate, &ours).await;
        let told = doctor(&variables(&database, &redis, &files));
        assert_eq!(told.matches(wrong).count(), 2, "{wrong}: {told}");
    }
    let any = [("DATABASE_TLS_ACCEPT_ANY_NAME", "on"), ("REDIS_TLS_ACCEPT_ANY_NAME", "on")];
    let told = doctor(&variables(&database, &redis, &[&files[..], &any[..]].concat()));
    assert!(!told.contains("cannot connect"), "{told}");
    // Any name, but not any authority.
    let ca = shown(&file(&world, "other.crt", &other.pem));
    let files = [("DATABASE_TLS_CA", ca.as_str()), ("REDIS_TLS_CA", ca.as_str())];
    let told = doctor(&variables(&database, &redis, &[&files[..], &any[..]].concat()));
    assert_eq!(told.matches("signed by nobody who is trusted here").count(), 2, "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_wants_a_certificate_gets_it() {
    let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
    let (world, database, redis) = speaking(&authority.issue("localhost"), &authority).await;
    postgres_lets_in(&world, "hostssl all all all cert\n").await;
    world.redis::<()>(&["CONFIG", "SET", "tls-auth-clients", "yes"]).await;
    let ca = shown(&file(&world, "ca.crt", &authority.pem));
    let files = [("DATABASE_TLS_CA", ca.as_str()), ("REDIS_TLS_CA", ca.as_str())];
    let told = doctor(&variables(&database, &redis, &files));
    assert!(told.contains("REDIS_TLS_CERT"), "{told}");
    assert!(told.contains("DATABASE_TLS_CERT"), "{told}");

    let shows = |issued: &Certificate, name: &str| {
        let pem = shown(&file(&world, &format!("{name}.crt"), &issued.pem));
        (pem, shown(&file(&world, &format!("{name}.key"), &issued.key)))
    };
    let wrong = shows(&other.issue(RELAY), "wrong");
    let with = |files: &[(&'static str, String)], client: &(String, String)| {
        let mut all = files.to_vec();
        for server in ["DATABASE", "REDIS"] {
            let name = |end: &str| -> &'static str { format!("{server}_TLS_{end}").leak() };
            all.push((name("CERT"), client.0.clone()));
            all.push((name("KEY"), client.1.clone()));
        }
        all
    };
    let owned: Vec<(&'static str, String)> =
        files.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let wrong = with(&owned, &wrong);
    let wrong: Vec<(&str, &str)> =
        wrong.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let told = doctor(&variables(&database, &redis, &wrong));
    assert!(told.matches("does not accept our certificate").count() == 2, "{told}");

    let right = with(&owned, &shows(&authority.issue(RELAY), "right"));
    let right: Vec<(&str, &str)> =
        right.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut relay =
        Relay::start(world.folder.path(), "relay", &variables(&database, &redis, &right));
    write_rows(&world, "orders", 20).await;
    world.settled().await;
    assert!(relay.stop().success());
    checked(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn where_only_one_side_speaks_tls_it_says_so() {
    let authority = Authority::new("ours");
    let world = World::new().await;
    let port = world.postgres.port();
    let (plain, required) = (
        format!("postgres://{RELAY}@localhost:{port}/postgres"),
        format!("postgres://{RELAY}@localhost:{port}/postgres?sslmode=require"),
    );
    let tls = format!("rediss://localhost:{}/", world.redis.port());
    let told = doctor(&variables(&required, &tls, &[]));
    assert!(told.contains("it speaks no TLS; set ssl = on"), "{told}");
    assert!(told.contains("if it speaks no TLS on this port, write redis://"), "{told}");

    postgres_has(&world, &authority.issue("localhost"), &authority).await;
    postgres_lets_in(&world, "hostssl all all all trust\n").await;
    let told = doctor(&variables(&plain, &world.redis.url(), &[]));
    assert!(told.contains("write sslmode=require there if it wants TLS"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_certificates_and_authorities_are_rotated_without_a_restart() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let (world, _, redis) = speaking(&old.issue("localhost"), &old).await;
    postgres_lets_in(&world, "hostssl all all all scram-sha-256\n").await;
    world.sql(&format!("alter role {RELAY} password 'Rot1Old'")).await;
    let user = ["ACL", "SETUSER", "turn", "on", ">Rot1Old", "~*", "+@all"];
    world.redis::<()>(&user).await;
    let redis_port = redis.trim_end_matches('/').rsplit_once(':').unwrap().1.to_owned();
    let write = |password: &str| {
        let port = world.postgres.port();
        let database =
            format!("postgres://{RELAY}:{password}@localhost:{port}/postgres?sslmode=require\n");
        let redis = format!("rediss://turn:{password}@localhost:{redis_port}/\n");
        (file(&world, "database", &database), file(&world, "redis", &redis))
    };
    let (database, redis) = write("Rot1Old");
    let (database, redis) = (shown(&database), shown(&redis));
    let ca = shown(&file(&world, "ca.crt", &old.pem));
    let variables = [
        ("DATABASE_URL_FILE", database.as_str()),
        ("REDIS_URL_FILE", redis.as_str()),
        ("DATABASE_TLS_CA", ca.as_str()),
        ("REDIS_TLS_CA", ca.as_str()),
        ("OUTBOX_LEASE", "2s"),
    ];
    let mut relay = Relay::start(world.folder.path(), "relay", &variables);
    write_rows(&world, "orders", 20).await;
    world.settled().await;

    // The servers have the new ones, the relay the old: it says so and waits.
    world.sql(&format!("alter role {RELAY} password 'Rot1New'")).await;
    world.redis::<()>(&["ACL", "SETUSER", "turn", "resetpass", ">Rot1New"]).await;
    postgres_has(&world, &new.issue("localhost"), &new).await;
    redis_has(&world, &new.issue("localhost"), &new).await;
    let end =
        format!("select pg_terminate_backend(pid) from pg_stat_activity where usename = '{RELAY}'");
    world.sql(&end).await;
    world.redis::<i64>(&["CLIENT", "KILL", "USER", "turn"]).await;
    relay.logged("signed by nobody who is trusted here").await;
    file(&world, "ca.crt", &new.pem);
    relay.logged("check user and password").await;
    write("Rot1New");
    write_rows(&world, "orders", 20).await;
    world.settled().await;
    assert!(relay.is_running());
    assert!(!relay.log().contains("Rot1"), "{}", relay.log());
    assert!(relay.stop().success());
    checked(&world).await;
}
