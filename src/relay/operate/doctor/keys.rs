//! Keys in Redis: those of streams, the relay's own, and those that are nobody's.

use super::Known;
use super::finding::{Area::Redis as InRedis, Report, SHOWN, Weight, names};
use crate::stream::{KeyState, Redis, Scanned, quoted};
use crate::text::{age, counted};

/// Whoever reads old entries again has a week to do so, as `outbox-relay replay` says.
const WEEK: u64 = 7 * 86_400;

pub(super) async fn check_keys(report: &mut Report, redis: &Redis, known: Option<&Known>) {
    let unknown = redis.unknown_keys().await;
    if let Some(scanned) = report.answer("keys below outbox: in Redis", unknown) {
        strangers(report, redis, &scanned);
    }
    let Some(known) = known else {
        return report
            .miss("keys of streams in Redis: Postgres has not said which streams there are");
    };
    let states = redis.key_states(&known.streams).await;
    if let Some(states) = report.answer("keys of streams in Redis", states) {
        let of_keys = known.streams.iter().map(|stream| redis.key(stream)).zip(states);
        streams(report, known, of_keys.collect());
    }
    let stray = redis.stray_streams(&known.streams).await;
    if let Some(scanned) = report.answer("other streams in Redis", stray) {
        strays(report, &scanned);
    }
}

/// Says so if a search had to end before it had seen all keys.
fn cut_off(report: &mut Report, scanned: &Scanned, what: &str) {
    if !scanned.whole {
        report.leave_out(format!("{what}: Redis has too many keys to look at all of them"));
    }
}

/// One command for the first few keys.
fn command(verb: &str, keys: &[String]) -> String {
    let keys: Vec<String> = keys.iter().take(SHOWN).map(|key| quoted(key)).collect();
    format!("{verb} {}", keys.join(" "))
}

fn strangers(report: &mut Report, redis: &Redis, scanned: &Scanned) {
    cut_off(report, scanned, "keys below outbox: in Redis");
    if scanned.keys.is_empty() {
        return;
    }
    let keys: Vec<String> = scanned.keys.iter().map(|key| quoted(key)).collect();
    let count = counted(keys.len() as u64, "key is", "keys are");
    report.find(
        InRedis,
        Weight::Aside,
        format!("{count} below {} and not the relay's: {}", redis.key("outbox:"), names(&keys)),
        "names there are the relay's own, and a later version may use them; find out who writes there before \
         you remove what was written",
        command("UNLINK", &scanned.keys),
    );
}

fn streams(report: &mut Report, known: &Known, states: Vec<(String, KeyState)>) {
    let mut shown = 0;
    for ((key, state), stream) in states.into_iter().zip(&known.streams) {
        let key = quoted(&key);
        let wrong = !matches!(state.kind.as_str(), "stream" | "none");
        if (!wrong && state.expires.is_none()) || shown == SHOWN {
            continue;
        }
        shown += 1;
        match state.expires {
            _ if wrong => report.find(
                InRedis,
                Weight::Now,
                format!("the key {key} of stream {stream} holds a {}, not a stream", state.kind),
                "nothing can be appended to it; rename it first if somebody needs what it holds",
                format!("outbox-relay rebuild {stream} --yes"),
            ),
            expires => report.find(
                InRedis,
                Weight::Now,
                format!("the key {key} of stream {stream} expires in {}", age(expires.unwrap_or_default())),
                "the stream vanishes then with its consumer groups; the relay puts back its entries only",
                format!("PERSIST {key}"),
            ),
        }
    }
}

fn strays(report: &mut Report, scanned: &Scanned) {
    cut_off(report, scanned, "streams in Redis that no row names");
    for key in scanned.keys.iter().take(SHOWN) {
        let key = quoted(key);
        report.find(
            InRedis,
            Weight::Aside,
            format!("no row names the stream at key {key}, and it never expires"),
            "it is left over, or another program writes it: the relay neither fills nor trims it, and it \
             takes memory for ever; see who reads it",
            format!("EXPIRE {key} {WEEK}"),
        );
    }
    let more = scanned.keys.len().saturating_sub(SHOWN) as u64;
    if more > 0 {
        let more = counted(more, "more stream that no row names", "more streams that no row names");
        report.leave_out(format!("{more}; they are shown when the first are gone"));
    }
}
