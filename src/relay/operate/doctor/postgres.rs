//! Postgres: the server, and who keeps it from working well.

use std::time::Duration;

use super::Known;
use super::finding::{Area::Postgres, Report, SHOWN, Weight};
use super::schema::check_schema;
use crate::error::Result;
use crate::outbox::{Checkup, Cluster, Connection, Holder, OLDEST_SERVER};
use crate::relay::Settings;
use crate::text::{age, grouped};

/// What is wrong with Postgres; and what others need to know of it.
pub(super) async fn check_postgres(
    settings: &Settings,
    long: Duration,
) -> (Report, Option<Cluster>, Option<Known>) {
    let mut report = Report::default();
    let name = settings.database.name();
    let (checkup, other) = match connect(settings).await {
        Ok(connected) => connected,
        Err(error) => {
            report.miss(error.to_string());
            return (report, None, None);
        }
    };
    let shared = checkup.is_shared_with(&other).await;
    if report.answer("whether a pooler is in between", shared) == Some(true) {
        pooler(&mut report);
    }
    let Some(cluster) = report.answer("the settings of Postgres", checkup.cluster().await) else {
        return (report, None, None);
    };
    server(&mut report, &cluster, &name);
    durability(&mut report, &cluster);
    capacity(&mut report, &cluster);
    let hasty = checkup.hasty_roles().await;
    for (whose, remedy) in report.answer("the settings of roles", hasty).unwrap_or_default() {
        hasty_commits(&mut report, &format!("commits of {whose} do"), &remedy);
    }
    let holders = checkup.holders(long).await;
    let mut holders = report.answer("open transactions", holders).unwrap_or_default();
    let slots = checkup.slots().await;
    for slot in report.answer("replication slots", slots).unwrap_or_default() {
        report.find(
            Postgres,
            Weight::Soon,
            format!(
                "nobody uses the replication slot {}, for which {} MiB of WAL are kept",
                slot.name,
                grouped(slot.kept >> 20)
            ),
            "Postgres keeps WAL and dead rows for it until its disk is full; start the one who reads it, or \
             drop it if nobody will",
            slot.remedy,
        );
    }
    let known = check_schema(&mut report, settings, &checkup, other, &cluster, long).await;
    holders.extend(known.as_ref().map(|(_, unseen)| unseen.clone()).unwrap_or_default());
    transactions(&mut report, &cluster, &holders, long);
    (report, Some(cluster), known.map(|(known, _)| known))
}

async fn connect(settings: &Settings) -> Result<(Checkup, Connection)> {
    let database = &settings.database;
    let (first, second) = tokio::try_join!(database.connect("doctor"), database.connect("doctor"))?;
    Ok((Checkup::new(first), second))
}

fn pooler(report: &mut Report) {
    report.find(
        Postgres,
        Weight::Now,
        "a pooler between the relay and Postgres gives one session of Postgres to several connections",
        "LISTEN and settings of a session do not last there, and the relay cannot see that the session it \
         has read from is gone",
        "DATABASE_URL must name Postgres itself, or a pool with pool_mode = session",
    );
}

fn server(report: &mut Report, cluster: &Cluster, name: &str) {
    if cluster.version_number < OLDEST_SERVER {
        report.find(
            Postgres,
            Weight::Now,
            format!("Postgres at {name} has version {}", cluster.version),
            "the schema needs what version 14 brought",
            "upgrade Postgres to 14 or later",
        );
    }
    if cluster.standby {
        report.find(
            Postgres,
            Weight::Now,
            format!("Postgres at {name} is a standby"),
            "nothing can be sealed there, and its snapshots hide open transactions",
            "DATABASE_URL must name the primary",
        );
    }
    if cluster.encoding != "UTF8" {
        report.find(
            Postgres,
            Weight::Now,
            format!("the database {} has encoding {}", cluster.database, cluster.encoding),
            "streams carry UTF-8",
            "create database NAME encoding 'UTF8' template template0",
        );
    }
}

/// A setting of the server, and the statements that set it right without a restart.
fn setting(report: &mut Report, weight: Weight, what: &str, why: &str, statement: &str) {
    let fix = [statement, "; select pg_reload_conf()"].concat();
    report.find(Postgres, weight, what, why, fix);
}

fn durability(report: &mut Report, cluster: &Cluster) {
    if !cluster.fsync {
        let why = "a crash of the machine can lose or corrupt what is committed, also rows whose entries are \
                   in Redis already";
        setting(report, Weight::Now, "fsync is off", why, "alter system set fsync = on");
    }
    if !cluster.full_page_writes {
        let why = "a crash of the machine can leave pages half written, which nothing repairs";
        let fix = "alter system set full_page_writes = on";
        setting(report, Weight::Now, "full_page_writes is off", why, fix);
    }
    if cluster.hasty {
        let fix = "alter system set synchronous_commit = on; select pg_reload_conf()";
        hasty_commits(report, "synchronous_commit is off, so commits do", fix);
    }
    if !cluster.standby_names.is_empty() && !cluster.has_synchronous_standby {
        setting(
            report,
            Weight::Now,
            &format!(
                "commits wait for a standby ({}), and none is connected",
                cluster.standby_names
            ),
            "every commit hangs, of applications and of the relay; start the standby, or do without it",
            "alter system set synchronous_standby_names = ''",
        );
    }
}

fn hasty_commits(report: &mut Report, what: &str, fix: &str) {
    report.find(
        Postgres,
        Weight::Soon,
        format!("{what} not wait for the disk"),
        "a crash of Postgres loses the last of them, business rows and outbox rows alike, although the \
         application was told that they are safe; seals of the relay wait all the same",
        fix,
    );
}

fn capacity(report: &mut Report, cluster: &Cluster) {
    if !cluster.autovacuum {
        let why = "dead rows pile up, and every read walks them";
        let fix = "alter system set autovacuum = on";
        setting(report, Weight::Soon, "autovacuum is off", why, fix);
    }
    if cluster.connections * 5 > cluster.max_connections * 4 {
        let doubled = (2 * cluster.max_connections).to_string();
        report.find(
            Postgres,
            Weight::Soon,
            format!("{} of {} connections are in use", cluster.connections, cluster.max_connections),
            "without a free one neither a relay nor an application gets in; the setting needs a restart, a \
             pool for the application does not",
            ["alter system set max_connections = ", &doubled].concat(),
        );
    }
}

fn transactions(report: &mut Report, cluster: &Cluster, holders: &[Holder], long: Duration) {
    for holder in holders.iter().take(SHOWN) {
        let Holder { name, who, .. } = holder;
        let time = match holder.age {
            Some(time) => format!("for {}", age(time)),
            None => format!("for more than {}", age(long)),
        };
        let (what, why) = match holder.prepared {
            false => (
                format!("session {name} ({who}) has had a transaction open {time}"),
                "its rows come when it ends, and meanwhile Postgres cannot clean up",
            ),
            true => (
                format!("transaction {name} ({who}) has been prepared {time}"),
                "it waits for its second phase, also across restarts: its rows come when it is committed, \
                 and meanwhile Postgres cannot clean up; if its coordinator decided so, commit it instead",
            ),
        };
        report.find(Postgres, Weight::Soon, what, why, &holder.remedy);
    }
    if holders.iter().any(|holder| !holder.prepared) && cluster.idle_unbounded {
        setting(
            report,
            Weight::Aside,
            "idle_in_transaction_session_timeout is 0",
            "a session that does nothing may keep its transaction open for ever",
            "alter system set idle_in_transaction_session_timeout = '10min'",
        );
    }
}
