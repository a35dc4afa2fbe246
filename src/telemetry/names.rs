//! Names of all metrics, with their help texts and buckets.
//!
//! They are an interface: `tests/golden/metrics.txt` holds them.

pub(super) const DISPATCHED: &str = "outbox_relay_dispatched_total";
pub(super) const REPLAYED: &str = "outbox_relay_replayed_total";
pub(super) const UNDISPATCHED: &str = "outbox_relay_undispatched_entries";
pub(super) const OLDEST_AGE: &str = "outbox_relay_oldest_undispatched_age_seconds";
pub(super) const DELIVERY: &str = "outbox_relay_delivery_seconds";
pub(super) const BATCH: &str = "outbox_relay_batch_entries";
pub(super) const LOSSES: &str = "outbox_relay_redis_losses_total";
pub(super) const ERRORS: &str = "outbox_relay_errors_total";
pub(super) const STATE: &str = "outbox_relay_stream_state";
pub(super) const LIMIT_RATIO: &str = "outbox_relay_stream_limit_ratio";
pub(super) const GROUP_LAG: &str = "outbox_relay_group_lag_entries";
pub(super) const LAST_CHECKPOINT: &str = "outbox_relay_last_checkpoint_timestamp_seconds";
pub(super) const LAST_PURGE: &str = "outbox_relay_last_purge_timestamp_seconds";
pub(super) const TRANSACTION_AGE: &str = "outbox_relay_oldest_transaction_age_seconds";
pub(super) const DEAD_LETTERS: &str = "outbox_relay_dead_letters";
pub(super) const LEADER: &str = "outbox_relay_leader";
pub(super) const LAST_LOOP: &str = "outbox_relay_last_loop_timestamp_seconds";
pub(super) const REVIEW_FINDINGS: &str = "outbox_relay_review_findings";
pub(super) const REVIEW_KEYS: &str = "outbox_relay_review_keys";
pub(super) const LAST_REVIEW: &str = "outbox_relay_last_review_timestamp_seconds";
pub(super) const BUILD: &str = "outbox_relay_build_info";

pub(super) const COUNTERS: [(&str, &str); 4] = [
    (DISPATCHED, "Entries appended to Redis for the first time, by stream."),
    (REPLAYED, "Entries put back into Redis after it had lost them, by stream."),
    (
        LOSSES,
        "Losses found in Redis: of everything, of one stream, of the tail of a stream, of groups.",
    ),
    (ERRORS, "Errors, by the server they are about and by kind; each is also one line in the log."),
];

pub(super) const GAUGES: [(&str, &str); 15] = [
    (UNDISPATCHED, "Committed rows that are not known to be in Redis, by stream; 0 on a standby."),
    (
        OLDEST_AGE,
        "Age of the oldest row not known to be in Redis, by the clock of Postgres; 0 if there is none.",
    ),
    (
        STATE,
        "1 for the state a stream is in, else 0; for the stream \"other\", how many are in it.",
    ),
    (
        LIMIT_RATIO,
        "Share of its limit, of entries or of bytes, that a stream takes up; the highest for \"other\".",
    ),
    (GROUP_LAG, "Entries in Redis that a consumer group has not acknowledged, given to it or not."),
    (LAST_CHECKPOINT, "When consumer groups were last looked at and stored; 0 on a standby."),
    (LAST_PURGE, "When it was last looked whether rows can be purged; 0 on a standby."),
    (
        TRANSACTION_AGE,
        "Age of the oldest open or prepared transaction in the database; 0 if there is none.",
    ),
    (DEAD_LETTERS, "Events that workers have given up, in outbox.dead_letter; 0 on a standby."),
    (LEADER, "1 while this relay holds the lease, 0 while it stands by or holds none."),
    (LAST_LOOP, "When the main loop last moved, whatever the servers do. What /livez looks at."),
    (
        REVIEW_FINDINGS,
        "What the last review found wrong in Redis, by kind: keys, entries, consumers or servers.",
    ),
    (REVIEW_KEYS, "Keys of Redis that the last review looked at; 0 on a standby."),
    (
        LAST_REVIEW,
        "When Redis was last reviewed to the end; 0 on a standby, and without OUTBOX_REVIEW_RULES.",
    ),
    (BUILD, "1; the label names the version."),
];

pub(super) const HISTOGRAMS: [(&str, &str, &[f64]); 2] = [
    (
        DELIVERY,
        "From the insert of a row (created_at) until Redis has confirmed its entry.",
        // A boundary at each time somebody may promise: 5 ms when idle, a second, a minute, an hour.
        &[
            0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
            60.0, 300.0, 3600.0,
        ],
    ),
    (
        BATCH,
        "Rows sealed by one transaction.",
        &[1.0, 2.0, 5.0, 10.0, 50.0, 100.0, 500.0, 1000.0, 5000.0, 20000.0],
    ),
];
