//! A TCP proxy that can be told to misbehave, for tests of network faults.
//!
//! Needs a tokio runtime. Faults are switched at run time through `&self` and hold until switched
//! back. Calls only flip the switch: a chunk that a task is carrying at that moment may pass.

// Each test uses the faults it is about.
#![allow(dead_code)]

mod carrier;
mod faults;
mod proxy_works;
mod resp;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use self::carrier::accept_all;
use self::faults::{Hold, Shared};

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: replies.
    ToClient,
}

/// Listens on a free port of 127.0.0.1 and carries each connection to the upstream server.
///
/// Dropping it ends all its connections and tasks; bytes still kept are lost.
pub(crate) struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    acceptor: AbortHandle,
}

impl Proxy {
    /// Starts a proxy without faults. Panics outside a tokio runtime or without a free port.
    pub(crate) fn start(upstream: SocketAddr) -> Self {
        Self::begin(Shared::new(upstream, false))
    }

    /// As [`Proxy::start`], before a Redis without a password, of which database 0 is used: its
    /// connections can be [switched](Self::go_on).
    pub(crate) fn before_redis(upstream: SocketAddr) -> Self {
        Self::begin(Shared::new(upstream, true))
    }

    fn begin(shared: Shared) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("free port");
        listener.set_nonblocking(true).expect("non-blocking listener");
        let address = listener.local_addr().expect("address of the listener");
        let listener = TcpListener::from_std(listener).expect("a tokio runtime");
        let shared = Arc::new(shared);
        let acceptor = tokio::spawn(accept_all(listener, Arc::clone(&shared))).abort_handle();
        Self { address, shared, acceptor }
    }

    /// Where clients connect to.
    pub(crate) fn addr(&self) -> SocketAddr {
        self.address
    }

    /// The port on 127.0.0.1 that clients connect to.
    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// How many connections are open. One whose client has gone counts until its kept bytes are
    /// delivered and the server has closed its side.
    pub(crate) fn connections(&self) -> usize {
        self.shared.open()
    }

    /// How many connections were accepted since the start, without the refused ones.
    pub(crate) fn accepted(&self) -> u64 {
        self.shared.faults().accepted
    }

    /// Connects clients that come from now on to another server.
    pub(crate) fn retarget(&self, upstream: SocketAddr) {
        self.shared.faults().upstream = upstream;
    }

    /// Delivers what is read from now on that much later, each way; zero ends it. Order is kept,
    /// and later bytes are not slowed down by earlier ones.
    pub(crate) fn set_delay(&self, delay: Duration) {
        self.shared.faults().delay = delay;
    }

    /// As [`set_delay`](Self::set_delay), each time by something between nothing and `most`.
    pub(crate) fn set_jitter(&self, most: Duration) {
        self.shared.faults().jitter = most;
    }

    /// Carries so many bytes per second on each connection, each way; 0 ends it.
    pub(crate) fn set_bandwidth(&self, bytes_per_second: u64) {
        self.shared.faults().bandwidth = bytes_per_second;
    }

    /// Carries on with another server, behind the backs of the clients: their connections stay open.
    /// What the old server was asked and had not answered is lost.
    pub(crate) fn switch(&self, upstream: SocketAddr) {
        self.retarget(upstream);
        self.shared.switch();
    }

    /// Lets no further request pass, and waits until those that have are answered; connections that
    /// get no answer within a second are cut.
    pub(crate) async fn hold_still(&self) {
        self.shared.hold_still(true);
        let begun = tokio::time::Instant::now();
        while !self.shared.is_quiet() {
            if begun.elapsed() > Duration::from_secs(1) {
                self.shared.cut();
                return;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Ends [`hold_still`](Self::hold_still): all connections go on with the server that is upstream
    /// now, and their clients notice nothing.
    pub(crate) fn go_on(&self) {
        self.shared.switch();
        self.shared.hold_still(false);
    }

    /// Whether all connections have gone on since [`go_on`](Self::go_on).
    pub(crate) fn is_switched(&self) -> bool {
        self.shared.is_switched()
    }

    /// Keeps requests read from now on, on all connections, and delivers them `late` after they
    /// were read, even if the client has closed its side meanwhile. Replies pass.
    ///
    /// This is a request that arrives after its sender has given up and reconnected. Bytes that
    /// follow kept ones on the same connection wait for them, and so does the end of the stream.
    pub(crate) fn hold_requests(&self, late: Duration) {
        self.shared.faults().hold = Some(Hold { late, last: u64::MAX });
    }

    /// Limits [`hold_requests`](Self::hold_requests) to the connections made so far; new ones
    /// pass freely. Does nothing when no hold is on.
    pub(crate) fn hold_only_current(&self) {
        let mut faults = self.shared.faults();
        let accepted = faults.accepted;
        if let Some(hold) = faults.hold.as_mut() {
            hold.last = hold.last.min(accepted);
        }
    }

    /// Ends [`hold_requests`](Self::hold_requests) for what is read from now on. What is kept
    /// already is still delivered at its time.
    pub(crate) fn release(&self) {
        self.shared.faults().hold = None;
    }

    /// Whether to read replies and drop them: the server carries a command out, and the client
    /// never hears of it. After this a connection is no longer in step; the client should drop
    /// it.
    pub(crate) fn swallow_replies(&self, on: bool) {
        self.shared.faults().swallow = on;
    }

    /// Resets all connections, both sides; kept bytes are lost. New ones pass.
    pub(crate) fn cut(&self) {
        self.shared.cut();
    }

    /// Cuts all connections, once, when `bytes` more have passed in `direction`, counted over
    /// all of them. Exactly that many arrive; with 0, nothing more does.
    pub(crate) fn cut_after_bytes(&self, direction: Direction, bytes: u64) {
        self.shared.faults().cut_after = Some((direction, bytes));
    }

    /// Takes back a [`cut_after_bytes`](Self::cut_after_bytes) that has not come to pass.
    pub(crate) fn forget_cut(&self) {
        self.shared.faults().cut_after = None;
    }

    /// Whether to accept new connections and close them at once.
    pub(crate) fn refuse(&self, on: bool) {
        self.shared.faults().refuse = on;
    }

    /// Whether to let everything hang: new connections are accepted and nothing is read from
    /// them, and those that exist carry nothing. All go on when switched off.
    pub(crate) fn black_hole(&self, on: bool) {
        self.shared.black_hole(on);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.acceptor.abort();
    }
}
