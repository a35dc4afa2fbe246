//! The switches of a proxy.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::Direction;
use super::resp::Scanner;

/// What a proxy and its tasks share.
pub(super) struct Shared {
    faults: Mutex<Faults>,
    cuts: watch::Sender<()>,
    black_hole: watch::Sender<bool>,
    open: AtomicUsize,
    /// No request passes.
    still: watch::Sender<bool>,
    /// Connections go on with the server that is upstream now.
    switches: watch::Sender<()>,
    talks: Mutex<Vec<Weak<Talk>>>,
    chances: AtomicU64,
    /// Requests pass one by one, so that a connection can be switched between two of them.
    pub(super) by_request: bool,
}

/// Requests and replies of one connection so far.
#[derive(Default)]
pub(super) struct Talk {
    requests: AtomicU64,
    replies: AtomicU64,
    /// It has left the server that was upstream before.
    pub(super) switched: AtomicBool,
    kept: Mutex<Kept>,
}

/// What was read of a client and has not passed yet.
#[derive(Default)]
struct Kept {
    bytes: Vec<u8>,
    /// So many of them are whole requests.
    whole: usize,
    scanner: Scanner,
}

impl Talk {
    pub(super) fn keep(&self, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(end) = kept.scanner.feed(bytes) {
            kept.whole = kept.bytes.len() + end;
        }
        kept.bytes.extend_from_slice(bytes);
    }

    /// The whole requests, which pass now.
    pub(super) fn pass(&self) -> Vec<u8> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let requests = std::mem::take(&mut kept.scanner.values);
        self.requests.fetch_add(requests, Ordering::SeqCst);
        let end = std::mem::take(&mut kept.whole);
        let rest = kept.bytes.split_off(end);
        std::mem::replace(&mut kept.bytes, rest)
    }

    pub(super) fn answered(&self, replies: u64) {
        self.replies.fetch_add(replies, Ordering::SeqCst);
    }
}

/// The faults that are on.
pub(super) struct Faults {
    pub(super) upstream: SocketAddr,
    pub(super) accepted: u64,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) bandwidth: u64,
    pub(super) hold: Option<Hold>,
    pub(super) swallow: bool,
    pub(super) refuse: bool,
    pub(super) cut_after: Option<(Direction, u64)>,
}

/// Requests to deliver late.
pub(super) struct Hold {
    pub(super) late: Duration,
    /// The last connection it is for; they are numbered from 1.
    pub(super) last: u64,
}

impl Shared {
    pub(super) fn new(upstream: SocketAddr, by_request: bool) -> Self {
        let faults = Faults {
            upstream,
            accepted: 0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            bandwidth: 0,
            hold: None,
            swallow: false,
            refuse: false,
            cut_after: None,
        };
        Self {
            faults: Mutex::new(faults),
            cuts: watch::Sender::new(()),
            black_hole: watch::Sender::new(false),
            open: AtomicUsize::new(0),
            still: watch::Sender::new(false),
            switches: watch::Sender::new(()),
            talks: Mutex::default(),
            chances: AtomicU64::default(),
            by_request,
        }
    }

    /// A new connection's count.
    pub(super) fn talk(&self) -> Arc<Talk> {
        let talk = Arc::<Talk>::default();
        let mut talks = self.talks.lock().unwrap_or_else(PoisonError::into_inner);
        talks.retain(|talk| talk.strong_count() > 0);
        talks.push(Arc::downgrade(&talk));
        talk
    }

    /// Whether every request that has passed is answered.
    pub(super) fn is_quiet(&self) -> bool {
        let count = |count: &AtomicU64| count.load(Ordering::SeqCst);
        let mut quiet = true;
        self.talks(|talk| quiet &= count(&talk.requests) == count(&talk.replies));
        quiet
    }

    pub(super) fn hold_still(&self, on: bool) {
        self.still.send_replace(on);
    }

    pub(super) async fn while_still(&self) {
        // Fails only when the sender is gone, which `self` owns.
        let _ = self.still.subscribe().wait_for(|on| !on).await;
    }

    pub(super) fn switch(&self) {
        self.talks(|talk| talk.switched.store(false, Ordering::SeqCst));
        self.switches.send_replace(());
    }

    pub(super) fn is_switched(&self) -> bool {
        let mut all = true;
        self.talks(|talk| all &= talk.switched.load(Ordering::SeqCst));
        all
    }

    fn talks(&self, each: impl FnMut(Arc<Talk>)) {
        let talks = self.talks.lock().unwrap_or_else(PoisonError::into_inner);
        talks.iter().filter_map(Weak::upgrade).for_each(each);
    }

    /// Tells of the switches after this call.
    pub(super) fn switches(&self) -> watch::Receiver<()> {
        self.switches.subscribe()
    }

    /// A share of the jitter, another one each time.
    fn chance(&self, jitter: Duration) -> Duration {
        let turn = self.chances.fetch_add(1, Ordering::Relaxed);
        jitter
            .mul_f64((turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as f64 / (1u64 << 24) as f64)
    }

    pub(super) fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn cut(&self) {
        self.cuts.send_replace(());
    }

    /// Tells of the cuts after this call.
    pub(super) fn cuts(&self) -> watch::Receiver<()> {
        self.cuts.subscribe()
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn opened(&self) {
        self.open.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn closed(&self) {
        self.open.fetch_sub(1, Ordering::SeqCst);
    }

    pub(super) fn black_hole(&self, on: bool) {
        self.black_hole.send_replace(on);
    }

    pub(super) async fn out_of_the_black_hole(&self) {
        // Fails only when the sender is gone, which `self` owns.
        let _ = self.black_hole.subscribe().wait_for(|on| !on).await;
    }

    /// The number of the next connection, unless it is refused.
    pub(super) fn admit(&self) -> Option<u64> {
        let mut faults = self.faults();
        if faults.refuse {
            return None;
        }
        faults.accepted += 1;
        Some(faults.accepted)
    }

    pub(super) fn lateness(&self, direction: Direction, connection: u64) -> Duration {
        let faults = self.faults();
        let hold = faults.hold.as_ref().filter(|hold| connection <= hold.last);
        let delay = faults.delay + self.chance(faults.jitter);
        match (direction, hold) {
            (Direction::ToServer, Some(hold)) => delay + hold.late,
            _ => delay,
        }
    }

    /// How long it takes to carry `bytes`.
    pub(super) fn carriage(&self, bytes: usize) -> Duration {
        match self.faults().bandwidth {
            0 => Duration::ZERO,
            rate => Duration::from_micros(bytes as u64 * 1_000_000 / rate),
        }
    }

    /// How many of `bytes` may pass, and whether all connections are to be cut after them.
    pub(super) fn allowance(&self, direction: Direction, bytes: usize) -> (usize, bool) {
        let mut faults = self.faults();
        match &mut faults.cut_after {
            Some((cut, left)) if *cut == direction => match usize::try_from(*left) {
                Ok(left) if left <= bytes => {
                    faults.cut_after = None;
                    (left, true)
                }
                _ => {
                    *left -= bytes as u64;
                    (bytes, false)
                }
            },
            _ => (bytes, false),
        }
    }
}
