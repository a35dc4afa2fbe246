//! Carries the bytes of a proxy's connections.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::Direction;
use super::faults::{Shared, Talk};
use super::resp::Scanner;

const CHUNK_BYTES: usize = 16 * 1024;
const QUEUED_CHUNKS: usize = 4096;
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(10);

/// Chunks with the time to deliver them.
type Queue = mpsc::Sender<(Instant, Vec<u8>)>;

/// The other end of a [`Queue`].
type Chunks = mpsc::Receiver<(Instant, Vec<u8>)>;

/// Serves connections until it is aborted, which ends them too.
pub(super) async fn accept_all(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((client, _)) = accepted else {
                    sleep(ACCEPT_AGAIN_AFTER).await;
                    continue;
                };
                if let Some(number) = shared.admit() {
                    connections.spawn(Connection::new(&shared, number).serve(client));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

struct Connection {
    shared: Arc<Shared>,
    number: u64,
    cuts: watch::Receiver<()>,
    talk: Arc<Talk>,
}

impl Connection {
    fn new(shared: &Arc<Shared>, number: u64) -> Self {
        shared.opened();
        Self { shared: Arc::clone(shared), number, cuts: shared.cuts(), talk: shared.talk() }
    }

    async fn serve(self, mut client: TcpStream) {
        let (mut cuts, mut server) = (self.cuts.clone(), None);
        let is_cut = tokio::select! {
            biased;
            _ = cuts.changed() => true,
            () = self.carry(&mut client, &mut server) => false,
        };
        if is_cut {
            for stream in [Some(client), server].into_iter().flatten() {
                // Makes the drop that follows send a reset.
                let _ = stream.set_zero_linger();
            }
        }
    }

    /// Ends when the server has closed its side: neither Redis nor PostgreSQL does so by halves.
    async fn carry(&self, client: &mut TcpStream, server: &mut Option<TcpStream>) {
        let mut switches = self.shared.switches();
        loop {
            self.shared.out_of_the_black_hole().await;
            self.shared.while_still().await;
            switches.mark_unchanged();
            drop(server.take());
            self.talk.switched.store(true, Ordering::SeqCst);
            let upstream = self.shared.faults().upstream;
            let Ok(stream) = TcpStream::connect(upstream).await else {
                return;
            };
            let server = server.insert(stream);
            let _ = (client.set_nodelay(true), server.set_nodelay(true));
            let (from_client, to_client) = client.split();
            let (from_server, to_server) = server.split();
            let requests = async {
                self.pipe(Direction::ToServer, from_client, to_server).await;
                pending::<()>().await;
            };
            tokio::select! {
                biased;
                _ = switches.changed() => {}
                () = requests => return,
                () = self.pipe(Direction::ToClient, from_server, to_client) => return,
            }
        }
    }

    async fn pipe(&self, direction: Direction, from: ReadHalf<'_>, to: WriteHalf<'_>) {
        let (queue, chunks) = mpsc::channel(QUEUED_CHUNKS);
        tokio::join!(self.read(direction, from, queue), self.write(direction, to, chunks));
    }

    /// Queues what comes with the time to deliver it; an empty chunk is the end.
    async fn read(&self, direction: Direction, mut from: ReadHalf<'_>, queue: Queue) {
        let by_request = self.shared.by_request && direction == Direction::ToServer;
        let mut due = Instant::now();
        loop {
            let bytes = match by_request {
                true => self.requests(&mut from).await,
                false => chunk(&mut from).await,
            };
            let count = bytes.len();
            self.shared.out_of_the_black_hole().await;
            due = due.max(Instant::now() + self.shared.lateness(direction, self.number));
            due += self.shared.carriage(count);
            let swallow = direction == Direction::ToClient && self.shared.faults().swallow;
            if swallow && count > 0 {
                continue;
            }
            if queue.send((due, bytes)).await.is_err() || count == 0 {
                return;
            }
        }
    }

    /// Whole requests, when some may pass; nothing at the end.
    async fn requests(&self, from: &mut ReadHalf<'_>) -> Vec<u8> {
        loop {
            self.shared.while_still().await;
            let whole = self.talk.pass();
            if !whole.is_empty() {
                return whole;
            }
            let bytes = chunk(from).await;
            if bytes.is_empty() {
                return bytes;
            }
            self.talk.keep(&bytes);
        }
    }

    async fn write(&self, direction: Direction, mut to: WriteHalf<'_>, mut chunks: Chunks) {
        let mut replies = Scanner::default();
        let by_request = self.shared.by_request && direction == Direction::ToClient;
        while let Some((due, bytes)) = chunks.recv().await {
            // Even a moment in the past costs a tick of the timer.
            if due > Instant::now() {
                sleep_until(due).await;
            }
            if bytes.is_empty() {
                let _ = to.shutdown().await;
                return;
            }
            let (count, cut) = self.shared.allowance(direction, bytes.len());
            // With the receiver gone the rest is still taken, so that the sender can finish.
            let _ = to.write_all(&bytes[..count]).await;
            if by_request {
                replies.feed(&bytes[..count]);
                self.talk.answered(std::mem::take(&mut replies.values));
            }
            if cut {
                self.shared.cut();
                return pending().await;
            }
        }
    }
}

/// What comes next; nothing at the end. A client that is reset has gone as well; what it sent before still
/// counts.
async fn chunk(from: &mut ReadHalf<'_>) -> Vec<u8> {
    let mut bytes = vec![0; CHUNK_BYTES];
    let count = from.read(&mut bytes).await.unwrap_or(0);
    bytes.truncate(count);
    bytes
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.closed();
    }
}
