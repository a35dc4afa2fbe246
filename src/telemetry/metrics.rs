//! Every metric: its labels, and when it changes. Its name and help text are in `names`.
//!
//! All series that are known beforehand exist from the start, as 0, so that a rate or an alert never
//! meets a missing one.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder as _};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use super::names::*;
use crate::error::{Error, Kind, Target};
use crate::review::Fault;

/// Groups of a stream with a label of their own.
const GROUPS: usize = 20;

/// The label of streams beyond the limit.
const OTHER: &str = "other";

/// States of a stream, as in `outbox.stream_status`.
const STATES: [&str; 5] = ["active", "rebuilding", "full", "paused", "halted"];

/// Kinds of errors about either server.
const KINDS: [Kind; 4] = [Kind::Unavailable, Kind::Refused, Kind::Busy, Kind::Internal];

/// Something found that is an error without being an [`Error`]: what halts a stream or needs a look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Somebody else wrote to a stream.
    Foreign,
    /// A key holds something that is no stream.
    WrongType,
    /// A row that is sealed is gone.
    RowGone,
    /// Postgres lost rows whose entries are in Redis.
    Phantom,
    /// The search had missed rows.
    Missed,
    /// Somebody removed entries that a group needs.
    Removed,
}

impl Cause {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Foreign, Self::WrongType, Self::RowGone, Self::Phantom, Self::Missed, Self::Removed];

    /// One word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "foreign",
            Self::WrongType => "wrong_type",
            Self::RowGone => "row_gone",
            Self::Phantom => "phantom",
            Self::Missed => "missed",
            Self::Removed => "removed",
        }
    }

    fn target(self) -> Target {
        match self {
            Self::Foreign | Self::WrongType | Self::Removed => Target::Redis,
            Self::RowGone | Self::Phantom | Self::Missed => Target::Postgres,
        }
    }
}

/// What Redis lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Everything.
    All,
    /// One stream.
    Stream,
    /// The last entries of a stream.
    Tail,
    /// Consumer groups or their positions.
    Groups,
}

impl Loss {
    const ALL: [Self; 4] = [Self::All, Self::Stream, Self::Tail, Self::Groups];

    /// One word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Stream => "stream",
            Self::Tail => "tail",
            Self::Groups => "groups",
        }
    }
}

/// What waits in one stream, as sampled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Name of the stream.
    pub stream: String,
    /// Rows that are not known to be in Redis.
    pub undispatched: u64,
    /// The state, as in `outbox.stream_status`.
    pub state: String,
}

/// What the consumer groups of one stream have not acknowledged, and how full it is.
#[derive(Clone, Copy, Debug)]
pub struct StreamLag<'a> {
    /// Name of the stream.
    pub stream: &'a str,
    /// Share of its limit.
    pub ratio: f64,
    /// Each group with its entries.
    pub groups: &'a [(String, u64)],
}

/// The metrics of one relay. Cloning is cheap; all clones are the same metrics.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    recorder: PrometheusRecorder,
    limit: usize,
    named: Mutex<BTreeSet<String>>,
    groups: Mutex<BTreeSet<(String, String)>>,
    delivery: Histogram,
    batch: Histogram,
    last_loop: Gauge,
}

impl Metrics {
    /// All metrics at zero. At most `limit` streams get a label of their own, in the order in which
    /// they are met; the rest share the label `other`.
    pub fn new(limit: usize) -> Self {
        let recorder = recorder();
        let (named, groups) = (Mutex::default(), Mutex::default());
        let (delivery, batch) = (histogram(&recorder, DELIVERY), histogram(&recorder, BATCH));
        let last_loop = recorder.register_gauge(&key(LAST_LOOP, &[]), &METADATA);
        let inner = Inner { recorder, limit, named, groups, delivery, batch, last_loop };
        let metrics = Self(Arc::new(inner));
        for name in [OLDEST_AGE, TRANSACTION_AGE, DEAD_LETTERS, LEADER, LAST_CHECKPOINT, LAST_PURGE]
        {
            metrics.gauge(name, &[]).set(0.0);
        }
        for loss in Loss::ALL {
            metrics.counter(LOSSES, &[("kind", loss.as_str())]).increment(0);
        }
        for (target, kind) in Target::ALL.into_iter().flat_map(|t| KINDS.map(|kind| (t, kind))) {
            metrics.error(target, kind.as_str(), 0);
        }
        metrics.error(Target::Postgres, Kind::Superseded.as_str(), 0);
        for cause in Cause::ALL {
            metrics.error(cause.target(), cause.as_str(), 0);
        }
        metrics.forget_review();
        metrics.stream_at_zero(OTHER);
        metrics.gauge(BUILD, &[("version", env!("CARGO_PKG_VERSION"))]).set(1.0);
        metrics
    }

    /// The text of `/metrics`.
    pub fn render(&self) -> String {
        self.0.recorder.handle().render()
    }

    /// Moves what was observed out of its buffer. To be called about every second: the buffer grows
    /// with each entry delivered.
    pub fn upkeep(&self) {
        self.0.recorder.handle().run_upkeep();
    }

    /// There is a stream of this name; its series begin at zero.
    pub fn knows(&self, stream: &str) {
        self.label(stream);
    }

    /// Entries were appended to `stream` for the first time.
    pub fn dispatched(&self, stream: &str, entries: u64) {
        self.counter(DISPATCHED, &[("stream", &self.label(stream))]).increment(entries);
    }

    /// Entries of `stream` were put back.
    pub fn replayed(&self, stream: &str, entries: u64) {
        self.counter(REPLAYED, &[("stream", &self.label(stream))]).increment(entries);
    }

    /// An entry took this long from its insert into Redis.
    pub fn delivered_after(&self, time: Duration) {
        self.0.delivery.record(time.as_secs_f64());
    }

    /// One transaction sealed so many rows.
    pub fn sealed(&self, rows: usize) {
        self.0.batch.record(rows as f64);
    }

    /// Redis was found to have lost something.
    pub fn lost(&self, loss: Loss) {
        self.counter(LOSSES, &[("kind", loss.as_str())]).increment(1);
    }

    /// An error was handled.
    pub fn failed(&self, error: &Error) {
        if let Some(target) = error.target() {
            self.error(target, error.kind().as_str(), 1);
        }
    }

    /// Something was found that is an error.
    pub fn found(&self, cause: Cause) {
        self.error(cause.target(), cause.as_str(), 1);
    }

    /// This relay leads, or does not.
    pub fn leads(&self, leads: bool) {
        self.gauge(LEADER, &[]).set(f64::from(u8::from(leads)));
    }

    /// Another relay leads, and what this one last saw of groups and purges is no longer true.
    pub fn stands_by(&self) {
        for name in [LAST_CHECKPOINT, LAST_PURGE] {
            self.gauge(name, &[]).set(0.0);
        }
        for label in self.labels() {
            self.gauge(LIMIT_RATIO, &[("stream", &label)]).set(0.0);
        }
        self.lags(std::iter::empty());
        self.forget_review();
    }

    /// The main loop moved now.
    pub fn looped(&self) {
        self.0.last_loop.set(now());
    }

    /// What waits, in all streams, and the ages of the oldest row that waits and of the oldest
    /// transaction.
    pub fn sampled(&self, streams: &[Backlog], oldest: Duration, transaction: Duration) {
        let mut undispatched: HashMap<String, u64> = HashMap::new();
        let mut states: HashMap<(String, &str), u64> = HashMap::new();
        for backlog in streams {
            let label = self.label(&backlog.stream);
            *undispatched.entry(label.clone()).or_default() += backlog.undispatched;
            *states.entry((label, backlog.state.as_str())).or_default() += 1;
        }
        for label in self.labels() {
            let entries = undispatched.get(&label).copied().unwrap_or_default();
            self.gauge(UNDISPATCHED, &[("stream", &label)]).set(entries as f64);
            for state in STATES {
                let count = states.get(&(label.clone(), state)).copied().unwrap_or_default();
                self.gauge(STATE, &[("stream", &label), ("state", state)]).set(count as f64);
            }
        }
        self.gauge(OLDEST_AGE, &[]).set(oldest.as_secs_f64());
        self.gauge(TRANSACTION_AGE, &[]).set(transaction.as_secs_f64());
    }

    /// So many events were given up by workers.
    pub fn given_up(&self, events: u64) {
        self.gauge(DEAD_LETTERS, &[]).set(events as f64);
    }

    /// Consumer groups of all streams as last seen. Of a stream at most 20 have a label of their own; a
    /// group that is gone stays at 0.
    pub fn lags<'a>(&self, streams: impl Iterator<Item = StreamLag<'a>>) {
        let mut lags: HashMap<(String, String), u64> = HashMap::new();
        let mut ratios: HashMap<String, f64> = HashMap::new();
        for lag in streams {
            let label = self.label(lag.stream);
            let ratio = ratios.entry(label.clone()).or_default();
            *ratio = ratio.max(lag.ratio);
            for (group, entries) in lag.groups {
                *lags.entry(self.group_label(&label, group)).or_default() += entries;
            }
        }
        let groups = self.0.groups.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for pair in &groups {
            let entries = lags.get(pair).copied().unwrap_or_default();
            let labels = [("stream", pair.0.as_str()), ("group", pair.1.as_str())];
            self.gauge(GROUP_LAG, &labels).set(entries as f64);
        }
        for (label, ratio) in ratios {
            self.gauge(LIMIT_RATIO, &[("stream", &label)]).set(ratio);
        }
    }

    fn group_label(&self, stream: &str, group: &str) -> (String, String) {
        let mut groups = self.0.groups.lock().unwrap_or_else(PoisonError::into_inner);
        let pair = (stream.to_owned(), group.to_owned());
        let first = (stream.to_owned(), String::new());
        let named = groups.range(first..).take_while(|(of, _)| of == stream).count();
        let pair = match groups.contains(&pair) || stream != OTHER && named < GROUPS {
            true => pair,
            false => (stream.to_owned(), OTHER.to_owned()),
        };
        groups.insert(pair.clone());
        pair
    }

    /// Consumer groups have been looked at and stored now.
    pub fn checkpointed(&self) {
        self.gauge(LAST_CHECKPOINT, &[]).set(now());
    }

    /// It has been looked now whether something can be purged.
    pub fn purged(&self) {
        self.gauge(LAST_PURGE, &[]).set(now());
    }

    /// A review that came to its end has looked at so many keys, and found so much wrong.
    pub fn reviewed(&self, keys: u64, found: &[(Fault, u64)]) {
        self.set_review(keys, found, now());
    }

    fn forget_review(&self) {
        self.set_review(0, &Fault::ALL.map(|fault| (fault, 0)), 0.0);
    }

    fn set_review(&self, keys: u64, found: &[(Fault, u64)], at: f64) {
        for (fault, count) in found {
            self.gauge(REVIEW_FINDINGS, &[("finding", fault.as_str())]).set(*count as f64);
        }
        self.gauge(REVIEW_KEYS, &[]).set(keys as f64);
        self.gauge(LAST_REVIEW, &[]).set(at);
    }

    fn labels(&self) -> Vec<String> {
        let named = self.0.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.iter().cloned().chain([OTHER.to_owned()]).collect()
    }

    /// The label of a stream; a new one begins with all its series at zero.
    fn label(&self, stream: &str) -> String {
        let mut named = self.0.named.lock().unwrap_or_else(PoisonError::into_inner);
        if named.contains(stream) {
            return stream.to_owned();
        }
        if named.len() >= self.0.limit || stream == OTHER {
            return OTHER.to_owned();
        }
        named.insert(stream.to_owned());
        drop(named);
        self.stream_at_zero(stream);
        stream.to_owned()
    }

    fn stream_at_zero(&self, label: &str) {
        for name in [DISPATCHED, REPLAYED] {
            self.counter(name, &[("stream", label)]).increment(0);
        }
        for name in [UNDISPATCHED, LIMIT_RATIO] {
            self.gauge(name, &[("stream", label)]).set(0.0);
        }
        for state in STATES {
            self.gauge(STATE, &[("stream", label), ("state", state)]).set(0.0);
        }
    }

    fn error(&self, target: Target, kind: &str, count: u64) {
        self.counter(ERRORS, &[("target", target.as_str()), ("kind", kind)]).increment(count);
    }

    fn counter(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.0.recorder.register_counter(&key(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.0.recorder.register_gauge(&key(name, labels), &METADATA)
    }
}

/// Seconds since 1970 by our own clock.
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

const METADATA: Metadata<'static> = Metadata::new(module_path!(), Level::INFO, None);

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<Label> =
        labels.iter().map(|(name, value)| Label::new(*name, (*value).to_owned())).collect();
    Key::from_parts(name, labels)
}

fn histogram(recorder: &PrometheusRecorder, name: &'static str) -> Histogram {
    recorder.register_histogram(&key(name, &[]), &METADATA)
}

/// A recorder of our own instead of the global one, so that two relays in one process, as in tests,
/// do not count together.
fn recorder() -> PrometheusRecorder {
    let mut builder = PrometheusBuilder::new();
    for (name, _, buckets) in HISTOGRAMS {
        let matcher = Matcher::Full(name.to_owned());
        // Fails only without buckets, and each has some.
        builder = builder.set_buckets_for_metric(matcher, buckets).unwrap_or_default();
    }
    let recorder = builder.build_recorder();
    for (name, help) in COUNTERS {
        recorder.describe_counter(name.into(), None, help.into());
    }
    for (name, help) in GAUGES {
        recorder.describe_gauge(name.into(), None, help.into());
    }
    for (name, help, _) in HISTOGRAMS {
        recorder.describe_histogram(name.into(), None, help.into());
    }
    recorder
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(metrics: &Metrics, series: &str) -> Option<f64> {
        let text = metrics.render();
        let line = text.lines().find(|line| line.starts_with(&format!("{series} ")))?;
        line.rsplit_once(' ')?.1.parse().ok()
    }

    fn backlog(stream: &str, undispatched: u64, state: &str) -> Backlog {
        Backlog { stream: stream.to_owned(), undispatched, state: state.to_owned() }
    }

    #[test]
    fn everything_known_beforehand_is_there_at_zero() {
        let metrics = Metrics::new(100);
        for series in [
            r#"outbox_relay_redis_losses_total{kind="groups"}"#,
            r#"outbox_relay_errors_total{target="redis",kind="unavailable"}"#,
            r#"outbox_relay_errors_total{target="postgres",kind="phantom"}"#,
            r#"outbox_relay_stream_state{stream="other",state="halted"}"#,
            "outbox_relay_delivery_seconds_count",
            "outbox_relay_leader",
        ] {
            assert_eq!(value(&metrics, series), Some(0.0), "{series} in {}", metrics.render());
        }
    }

    #[test]
    fn streams_beyond_the_limit_share_a_label() {
        let metrics = Metrics::new(2);
        for stream in ["a", "b", "c", "d"] {
            metrics.dispatched(stream, 5);
        }
        let of = |stream| value(&metrics, &format!("{DISPATCHED}{{stream=\"{stream}\"}}"));
        assert_eq!(
            (of("a"), of("b"), of("c"), of("other")),
            (Some(5.0), Some(5.0), None, Some(10.0))
        );
        let streams =
            [backlog("a", 1, "active"), backlog("c", 2, "halted"), backlog("d", 3, "halted")];
        metrics.sampled(&streams, Duration::from_secs(7), Duration::ZERO);
        let waiting = |stream| value(&metrics, &format!("{UNDISPATCHED}{{stream=\"{stream}\"}}"));
        assert_eq!(
            (waiting("a"), waiting("b"), waiting("other")),
            (Some(1.0), Some(0.0), Some(5.0))
        );
        let halted = format!("{STATE}{{stream=\"other\",state=\"halted\"}}");
        assert_eq!(value(&metrics, &halted), Some(2.0));
        assert_eq!(value(&metrics, OLDEST_AGE), Some(7.0));
    }

    #[test]
    fn a_standby_does_not_tell_what_it_saw_when_it_led() {
        let metrics = Metrics::new(1);
        let groups = [("mail".to_owned(), 7_u64)];
        metrics.lags(std::iter::once(StreamLag { stream: "a", ratio: 0.5, groups: &groups }));
        metrics.checkpointed();
        metrics.purged();
        let ratio = format!("{LIMIT_RATIO}{{stream=\"a\"}}");
        let lag = format!("{GROUP_LAG}{{stream=\"a\",group=\"mail\"}}");
        assert_eq!((value(&metrics, &ratio), value(&metrics, &lag)), (Some(0.5), Some(7.0)));
        metrics.stands_by();
        for series in [LAST_CHECKPOINT, LAST_PURGE, &*ratio, &*lag] {
            assert_eq!(value(&metrics, series), Some(0.0), "{series}");
        }
    }

    #[test]
    fn a_histogram_has_the_buckets_that_were_asked_for() {
        let metrics = Metrics::new(1);
        metrics.delivered_after(Duration::from_millis(3));
        metrics.upkeep();
        let below = |le: &str| value(&metrics, &format!("{DELIVERY}_bucket{{le=\"{le}\"}}"));
        assert_eq!(
            (below("0.0025"), below("0.005"), below("3600")),
            (Some(0.0), Some(1.0), Some(1.0))
        );
    }
}
