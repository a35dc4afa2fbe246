//! The switches of a proxy.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;

use super::Direction;
use crate::support::dice::Dice;

/// What a proxy and its tasks share.
pub(super) struct Shared {
    faults: Mutex<Faults>,
    cuts: watch::Sender<()>,
    switches: watch::Sender<()>,
    black_hole: watch::Sender<bool>,
    open: AtomicUsize,
}

/// The faults that are on.
pub(super) struct Faults {
    pub(super) upstream: SocketAddr,
    pub(super) accepted: u64,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    pub(super) bandwidth: u64,
    pub(super) dice: Dice,
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

impl Faults {
    fn wavering(&mut self) -> Duration {
        match self.jitter.as_micros() as u64 {
            0 => Duration::ZERO,
            most => Duration::from_micros(self.dice.below(most)),
        }
    }
}

impl Shared {
    pub(super) fn new(upstream: SocketAddr) -> Self {
        let faults = Faults {
            upstream,
            accepted: 0,
            delay: Duration::ZERO,
            jitter: Duration::ZERO,
            bandwidth: 0,
            dice: Dice::of(1),
            hold: None,
            swallow: false,
            refuse: false,
            cut_after: None,
        };
        Self {
            faults: Mutex::new(faults),
            cuts: watch::Sender::new(()),
            switches: watch::Sender::new(()),
            black_hole: watch::Sender::new(false),
            open: AtomicUsize::new(0),
        }
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

    pub(super) fn switch(&self) {
        self.switches.send_replace(());
    }

    /// Tells of the changes of the server after this call.
    pub(super) fn switches(&self) -> watch::Receiver<()> {
        self.switches.subscribe()
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
        let mut faults = self.faults();
        let late = faults.delay + faults.wavering();
        let hold = faults.hold.as_ref().filter(|hold| connection <= hold.last);
        match (direction, hold) {
            (Direction::ToServer, Some(hold)) => late + hold.late,
            _ => late,
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
