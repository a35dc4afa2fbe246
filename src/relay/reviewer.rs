//! Reviews what Redis holds every so often, while this relay leads: on connections of its own, beside the
//! sessions, so that nothing waits for it.

use std::time::Duration;

use tracing::{info, warn};

use super::health::Health;
use super::operate;
use super::{Reviews, Settings};
use crate::review::{Finding, Removal, Review, Wish};
use crate::text::{counted, grouped};

/// How often it is looked whether this relay leads.
const EVERY: Duration = Duration::from_secs(1);
/// Keys looked at in one review.
const KEYS: u64 = 1_000_000;

/// Reviews until it is dropped.
pub(super) async fn review(settings: &Settings, health: &Health) {
    let Some(reviews) = &settings.reviews else { return std::future::pending().await };
    let mut told = None;
    loop {
        while !health.is_leading() {
            tokio::time::sleep(EVERY).await;
        }
        tokio::select! {
            () = rounds(settings, reviews, health, &mut told) => {}
            () = deposed(health) => {}
        }
    }
}

/// Ends when this relay leads no more.
async fn deposed(health: &Health) {
    while health.is_leading() {
        tokio::time::sleep(EVERY).await;
    }
}

async fn rounds(
    settings: &Settings,
    reviews: &Reviews,
    health: &Health,
    told: &mut Option<Vec<String>>,
) {
    let removal = if reviews.remove { Removal::Yes } else { Removal::No };
    let wish = Wish { rules: reviews.rules.clone(), keys: KEYS, removal };
    loop {
        let database = Some(&settings.database);
        let mut silent = |_, _| {};
        let looked = operate::review(database, &settings.server, &wish, &mut silent);
        let review = Box::pin(looked).await;
        // What is known from before is better than a part.
        if !review.failed {
            health.metrics().reviewed(review.keys, &review.counts());
        }
        tell(&review, told);
        tokio::time::sleep(reviews.every).await;
    }
}

/// Says what a review found when that changes, and always what it removed.
fn tell(review: &Review, told: &mut Option<Vec<String>>) {
    let removed = &review.removed;
    if removed.keys + removed.consumers > 0 {
        let keys = counted(removed.keys, "stale key", "stale keys");
        let consumers = counted(removed.consumers, "idle consumer", "idle consumers");
        info!(
            keys = removed.keys,
            consumers = removed.consumers,
            "the review removed {keys} and {consumers}: {}",
            first(&removed.names),
        );
    }
    let mut lines: Vec<String> = review.unchecked.clone();
    if !review.whole && !review.failed {
        lines.push("there are more keys, which were not looked at".to_owned());
    }
    lines.extend(review.findings.iter().map(finding));
    if told.as_ref() == Some(&lines) {
        return;
    }
    let keys = counted(review.keys, "key", "keys");
    match lines.is_empty() {
        true => info!(keys = review.keys, "reviewed {keys} of Redis: all as the rules say"),
        false => warn!(
            keys = review.keys,
            findings = review.findings.len(),
            "reviewed {keys} of Redis: {}; `outbox-relay review` says why it matters and what mends it",
            lines.join("; "),
        ),
    }
    *told = Some(lines);
}

fn finding(finding: &Finding) -> String {
    let (fault, count) = (finding.finding.as_str(), grouped(finding.count));
    match &finding.rule {
        Some(keys) => format!("{count} {fault} of {keys}"),
        None => format!("{count} {fault}"),
    }
}

/// The first few names.
fn first(names: &[String]) -> String {
    let shown = names.iter().take(10).map(String::as_str).collect::<Vec<_>>().join(", ");
    match names.len() > 10 {
        true => format!("{shown}, …"),
        false => shown,
    }
}
