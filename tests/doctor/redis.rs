//! What is wrong with Redis and the keys in it.

use super::{doctor, doctor_with, for_doctor, found_and_mended, gone, healthy, mend, variables};
use crate::support::command::command;
use crate::support::world::World;
use crate::support::writers::write_rows;

async fn exists(world: &World, key: &str) -> bool {
    world.redis::<u64>(&["EXISTS", key]).await == 1
}

/// A world that is well, with a relay that has carried `orders`.
async fn at_work() -> (World, crate::support::relay::Relay) {
    let world = healthy().await;
    let relay = world.relay("relay", &[]);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    (world, relay)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_drops_or_refuses_what_it_is_given_is_found_and_mended() {
    let (world, relay) = at_work().await;
    world.redis::<String>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let fix = "CONFIG SET maxmemory-policy noeviction";
    found_and_mended(&world, "maxmemory-policy is allkeys-lru", fix).await;
    world.redis::<String>(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]).await;
    assert_eq!(doctor(&world).code, 0, "streams do not expire");
    world.redis::<String>(&["CONFIG", "SET", "appendfsync", "no"]).await;
    found_and_mended(&world, "appendfsync is no", "CONFIG SET appendfsync everysec").await;
    let info: String = world.redis(&["INFO", "memory"]).await;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).unwrap();
    let used: u64 = used.trim().parse().unwrap();
    let limit = (used + used / 10).to_string();
    world.redis::<String>(&["CONFIG", "SET", "maxmemory", &limit]).await;
    let said = doctor(&world);
    let full = said.one("Redis uses ");
    assert!(full.what.contains(" MiB of ") && full.fix.starts_with("CONFIG SET maxmemory "));
    mend(&world, full).await;
    gone(&world, "Redis uses ").await;
    world.redis::<String>(&["REPLICAOF", "127.0.0.1", "1"]).await;
    assert_eq!(doctor(&world).one("is a replica").fix, "REDIS_URL must name the primary");
    world.redis::<String>(&["REPLICAOF", "NO", "ONE"]).await;
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_who_may_not_do_what_the_relay_does_is_told_what_to_be_given() {
    let (world, _relay) = at_work().await;
    let words = ["ACL", "SETUSER", "weak", "on", ">weak", "~*", "+@all", "-xsetid", "-hset"];
    world.redis::<String>(&words).await;
    let url = format!("redis://weak:weak@127.0.0.1:{}/0", world.redis.port());
    let urls = (world.urls().0, url);
    let ask = || doctor_with(&variables(&urls), &[]);
    let said = ask();
    let lacks = said.one("user weak may not run xsetid, hset");
    assert_eq!((lacks.fix.as_str(), said.code), ("ACL SETUSER weak +xsetid +hset", 1));
    mend(&world, lacks).await;
    assert_eq!(ask().code, 0, "{:#?}", ask());
    // From nothing but what a connection needs, by doing what is said.
    let words = ["ACL", "SETUSER", "weak", "reset", "on", ">weak", "+ping", "~outbox:identity"];
    world.redis::<String>(&words).await;
    let said = ask();
    assert_eq!(said.code, 2, "it cannot look at keys: {said:#?}");
    mend(&world, said.one("user weak may not run")).await;
    let said = ask();
    let keys = said.one("user weak may not use keys of the relay");
    assert_eq!(keys.fix, "ACL SETUSER weak ~*");
    mend(&world, keys).await;
    let said = ask();
    assert_eq!(said.code, 1, "{said:#?}");
    mend(&world, said.one("user weak may not run hsetnx, hset, hincrby")).await;
    assert_eq!(ask().code, 0, "{:#?}", ask());
    // That is all that the commands need.
    write_rows(&world, "orders", 1).await;
    world.settled().await;
    for words in [
        &["verify"][..],
        &["status"],
        &["rebuild", "orders", "--yes"],
        &["replay", "--stream", "orders", "--from", "1", "--into", "again"],
    ] {
        let ended = command(words, &variables(&urls));
        assert_eq!(ended.code, Some(0), "{ended:#?}");
    }
    let keys: Vec<String> = world.redis(&["KEYS", "outbox:*"]).await;
    assert_eq!(keys, ["outbox:identity"], "the doctor leaves nothing behind");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_does_with_the_rights_that_the_doctor_asks_for() {
    let world = healthy().await;
    let words = ["ACL", "SETUSER", "tried", "reset", "on", ">tried", "~*", "+ping"];
    world.redis::<String>(&words).await;
    let url = format!("redis://tried:tried@127.0.0.1:{}/0", world.redis.port());
    let urls = (world.urls().0, url);
    let said = doctor_with(&variables(&urls), &[]);
    mend(&world, said.one("user tried may not run")).await;
    let said = doctor_with(&variables(&urls), &[]);
    mend(&world, said.one("user tried may not run")).await;
    let given = world.variables(&urls, &[]);
    let relay = crate::support::relay::Relay::start(world.folder.path(), "relay", &given);
    write_rows(&world, "orders", 10).await;
    world.settled().await;
    world.redis::<()>(&["FLUSHALL"]).await;
    world.holds("orders", 10).await;
    world.reconcile().await;
    assert_eq!(relay.lost("orders"), [(1, 10)]);
    let said = doctor_with(&variables(&urls), &[]);
    assert_eq!(said.code, 0, "{said:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_that_will_vanish_or_are_nobodys_are_found_and_mended() {
    let (world, relay) = at_work().await;
    world.redis::<u64>(&["EXPIRE", "orders", "86400"]).await;
    found_and_mended(&world, "the key orders of stream orders expires in", "PERSIST orders").await;
    world.redis::<String>(&["SET", "outbox:mine", "1"]).await;
    world.redis::<u64>(&["SADD", "outbox:{x}", "1"]).await;
    let what = "2 keys are below outbox: and not the relay's: outbox:mine, outbox:{x}";
    found_and_mended(&world, what, "UNLINK outbox:mine outbox:{x}").await;
    let urls = for_doctor(&world);
    let words = ["replay", "--stream", "orders", "--from", "1", "--into", "again"];
    assert_eq!(command(&words, &variables(&urls)).code, Some(0));
    assert_eq!(doctor(&world).code, 0, "a replay expires by itself");
    world.redis::<u64>(&["PERSIST", "again"]).await;
    let what = "no row names the stream at key again, and it never expires";
    found_and_mended(&world, what, "EXPIRE again 604800").await;
    // Other people's streams may be there where the relay has no prefix of its own.
    world.redis::<String>(&["XADD", "theirs", "*", "a", "b"]).await;
    assert_eq!(doctor(&world).code, 0, "{:#?}", doctor(&world));
    world.reconcile().await;
    relay.lost_nothing();
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_prefix_all_streams_below_it_are_the_relays() {
    let world = healthy().await;
    let prefix = [("OUTBOX_PREFIX", "s[h]op:")];
    let _relay = world.relay("relay", &prefix);
    write_rows(&world, "orders", 1).await;
    world.settled().await;
    let urls = for_doctor(&world);
    let variables = [&variables(&urls)[..], &prefix].concat();
    let said = doctor_with(&variables, &[]);
    assert_eq!(said.code, 0, "{said:#?}");
    for key in ["theirs", "shop:theirs"] {
        world.redis::<String>(&["XADD", key, "*", "id", "1", "at", "2", "payload", "3"]).await;
    }
    world.redis::<String>(&["SET", "outbox:theirs", "1"]).await;
    assert_eq!(doctor_with(&variables, &[]).code, 0, "that is not below the prefix");
    world.redis::<String>(&["XADD", "s[h]op:order", "*", "a", "b"]).await;
    let said = doctor_with(&variables, &[]);
    mend(&world, said.one("no row names the stream at key s[h]op:order")).await;
    assert_eq!(doctor_with(&variables, &[]).code, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_type_and_a_redis_of_another_outbox_are_found() {
    let (world, mut relay) = at_work().await;
    relay.stop();
    world.redis::<u64>(&["DEL", "orders"]).await;
    world.redis::<String>(&["SET", "orders", "1"]).await;
    let what = "the key orders of stream orders holds a string, not a stream";
    found_and_mended(&world, what, "outbox-relay rebuild orders --yes").await;
    let other = uuid::Uuid::new_v4().to_string();
    world.redis::<i64>(&["HSET", "outbox:identity", "id", &other]).await;
    let said = doctor(&world);
    let elsewhere = said.one("is not this outbox's");
    assert!(elsewhere.why.contains(&other) && elsewhere.fix.contains("OUTBOX_PREFIX"));
    assert!(exists(&world, "orders").await);
}
