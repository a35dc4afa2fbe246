//! The schema in Postgres: is it as `migrate` left it, does somebody lead, do streams flow.

use std::time::Duration;

use super::Known;
use super::finding::{Area::Postgres, Report, SHOWN, Weight, names};
use crate::error::Result;
use crate::outbox::{
    Checkup, Cluster, Connection, Holder, IdleTrigger, SchemaVersion, StreamStatus, Survey,
};
use crate::relay::Settings;
use crate::text::{age, grouped};

/// With fewer numbers than this to go, the leaves are not made ahead of need any more.
const ROOM: i64 = 1_000_000;

/// Checks the schema. Returns what it says of the outbox, and transactions that have been open for long
/// although their begin cannot be seen; None if there is no schema.
pub(super) async fn check_schema(
    report: &mut Report,
    settings: &Settings,
    checkup: &Checkup,
    other: Connection,
    cluster: &Cluster,
    long: Duration,
) -> Option<(Known, Vec<Holder>)> {
    let name = settings.database.name();
    let rights = checkup.missing_rights().await;
    let missing = report_of(report, "rights", rights);
    rights_missing(report, cluster, &missing);
    let version = checkup.schema_version().await;
    match report.answer("the version of the schema", version)? {
        SchemaVersion::Missing => {
            report
                .miss(format!("there is no outbox in {name}; make it with `outbox-relay migrate`"));
            return None;
        }
        version => version_found(report, version, &name),
    }
    let identity = checkup.identity().await;
    let outbox = report.answer("the identity of the outbox", identity);
    if let Some((_, made, here)) = outbox.as_ref().filter(|(_, made, here)| made != here) {
        moved(report, &name, made, here);
    }
    let triggers = checkup.idle_triggers().await;
    for trigger in report_of(report, "triggers", triggers) {
        trigger_idle(report, settings, &trigger);
    }
    let sequence = checkup.odd_sequence().await;
    if let Some(odd) = report.answer("the sequence outbox.entry_id_seq", sequence).flatten() {
        sequence_odd(report, odd);
    }
    leaves(report, checkup).await;
    let survey = Survey::new(other);
    leader(report, &survey).await;
    let streams = survey.streams().await;
    let streams = report.answer("the streams", streams)?;
    halted(report, &streams);
    let unseen = checkup.unseen_holders(long).await;
    let unseen = report_of(report, "transactions of others", unseen);
    let streams = streams.into_iter().map(|status| status.stream.into()).collect();
    Some((Known { outbox: outbox?.0, streams }, unseen))
}

fn report_of<T>(report: &mut Report, what: &str, answer: Result<Vec<T>>) -> Vec<T> {
    report.answer(what, answer).unwrap_or_default()
}

fn rights_missing(report: &mut Report, cluster: &Cluster, missing: &[String]) {
    if missing.is_empty() {
        return;
    }
    let role = &cluster.role;
    report.find(
        Postgres,
        Weight::Now,
        format!("role {role} lacks rights that a relay needs: {}", missing.join(", ")),
        "the relay cannot do its work; the owner of the schema can grant them",
        format!("outbox-relay migrate --relay-role {role}"),
    );
}

fn version_found(report: &mut Report, version: SchemaVersion, name: &str) {
    let why = "the relay does not start with a schema of another version than its own";
    let (version, fix) = match version {
        SchemaVersion::Older(version) => (version, "outbox-relay migrate"),
        SchemaVersion::Newer(version) => (version, "use a newer outbox-relay"),
        SchemaVersion::Missing | SchemaVersion::Current => return,
    };
    let what = format!("the outbox in {name} has schema version {version}");
    report.find(Postgres, Weight::Now, what, why, fix);
}

fn moved(report: &mut Report, name: &str, made: &str, here: &str) {
    report.find(
        Postgres,
        Weight::Now,
        format!("the outbox in {name} was made in cluster {made}, and this is cluster {here}"),
        "it was restored, copied or upgraded in place, and transaction ids of one cluster mean nothing in \
         another: the relay waits until somebody says that the outbox lives here",
        "outbox-relay adopt",
    );
}

fn trigger_idle(report: &mut Report, settings: &Settings, trigger: &IdleTrigger) {
    let (weight, why) = match trigger.name.as_str() {
        "wake" if !settings.wake => return,
        "wake" => (
            Weight::Aside,
            "inserts do not wake the relay: rows wait for its poll; OUTBOX_WAKE=off says that this is meant",
        ),
        _ => (Weight::Soon, "rows that break a bound get in, and halt their streams or fill Redis"),
    };
    let state = if trigger.exists { "is disabled" } else { "is missing" };
    let what = format!("the trigger {} of outbox.entry {state}", trigger.name);
    report.find(Postgres, weight, what, why, &trigger.remedy);
}

fn sequence_odd(report: &mut Report, (cache, cycle): (i64, bool)) {
    let what = match cycle {
        true => "the sequence outbox.entry_id_seq begins again at its end".to_owned(),
        false => format!("the sequence outbox.entry_id_seq has CACHE {cache}"),
    };
    report.find(
        Postgres,
        Weight::Soon,
        what,
        "a session gives old ids to later rows, so that entries of a key come in another order than their \
         commits; sessions that are connected keep what they have drawn",
        "alter sequence outbox.entry_id_seq cache 1 no cycle",
    );
}

async fn leaves(report: &mut Report, checkup: &Checkup) {
    let nets = checkup.nets().await;
    for net in report_of(report, "the nets", nets) {
        report.find(
            Postgres,
            Weight::Soon,
            format!("there are rows in {net}"),
            "no leaf was attached in time for them; they are carried like all others, but cannot be purged \
             leaf by leaf, and keep new leaves from being attached quickly. A relay that runs moves them \
             by itself, unless somebody holds a lock for long",
            "select outbox.leap('1 day'); select outbox.empty_nets()",
        );
    }
    let room = checkup.leaf_room().await;
    let room = report_of(report, "the leaves", room);
    let short: Vec<String> = room
        .iter()
        .filter(|(_, room)| *room < ROOM)
        .map(|(tree, room)| format!("outbox.{tree} for {}", grouped(room.max(&0).unsigned_abs())))
        .collect();
    if !short.is_empty() {
        report.find(
            Postgres,
            Weight::Soon,
            format!("leaves are not made ahead of need: room is left in {} numbers", names(&short)),
            "the relay attaches them while it runs, unless somebody holds a lock for long; without one, rows \
             go into the net",
            "select outbox.attach_leaves()",
        );
    }
}

async fn leader(report: &mut Report, survey: &Survey) {
    let leadership = survey.leadership().await;
    let Some(term) = report.answer("who leads", leadership) else { return };
    let what = match term {
        Some(term) if term.remaining > 0.0 => return,
        Some(term) if !term.holder.is_empty() => format!(
            "no relay leads: the lease of {} ended {} ago",
            term.holder,
            age(Duration::from_secs_f64(-term.remaining))
        ),
        _ => "no relay has ever led here".to_owned(),
    };
    let why = "rows wait in Postgres until one does; if one runs, its log says what keeps it";
    report.find(Postgres, Weight::Now, what, why, "outbox-relay run");
}

fn halted(report: &mut Report, streams: &[StreamStatus]) {
    let halted: Vec<_> = streams.iter().filter(|status| status.state == "halted").collect();
    for status in halted.iter().take(SHOWN) {
        let reason = status.reason.clone().unwrap_or_default();
        let command = reason.split('`').find(|part| part.starts_with("outbox-relay "));
        let fix = command.unwrap_or("outbox-relay status").to_owned();
        let what = format!("stream {} is halted", status.stream);
        report.find(Postgres, Weight::Now, what, reason, fix);
    }
}
