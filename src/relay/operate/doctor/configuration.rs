//! The relay's own settings, where they are allowed and not wise.

use std::time::Duration;

use super::finding::{Area::Configuration, Report, Weight};
use crate::outbox::Cluster;
use crate::relay::Settings;
use crate::text::age;

/// A loss of Redis data should be noticed within this time.
const NOTICED: Duration = Duration::from_secs(60);

pub(super) fn check_configuration(
    settings: &Settings,
    cluster: Option<&Cluster>,
    report: &mut Report,
) {
    if settings.lease < settings.poll * 3 {
        report.find(
            Configuration,
            Weight::Soon,
            format!(
                "OUTBOX_LEASE is {}, less than three times OUTBOX_POLL, {}",
                age(settings.lease),
                age(settings.poll)
            ),
            "a relay that is held up for a moment loses its lease, and a standby takes over for nothing",
            format!("OUTBOX_LEASE={}ms", settings.poll.as_millis() * 3),
        );
    }
    if settings.audit > NOTICED {
        report.find(
            Configuration,
            Weight::Aside,
            format!("OUTBOX_AUDIT is {}", age(settings.audit)),
            "a loss in a stream that gets no entries is noticed only then, and its consumers miss them until \
             then",
            "OUTBOX_AUDIT=5s",
        );
    }
    let Some(cluster) = cluster.filter(|cluster| cluster.superuser || cluster.owner) else {
        return;
    };
    let what = match cluster.superuser {
        true => "a superuser",
        false => "the owner of the schema",
    };
    report.find(
        Configuration,
        Weight::Aside,
        format!("DATABASE_URL connects as {}, {what}", cluster.role),
        "the relay needs to read the schema and to write the log, and no more; make a role for it, and let \
         DATABASE_URL name that",
        "outbox-relay migrate --relay-role relay",
    );
}
