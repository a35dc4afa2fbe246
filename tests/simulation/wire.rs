//! The network between a relay and one server: requests of a connection arrive in order, late or never;
//! so do replies.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::dice::Dice;
use crate::error::{Error, Kind, Result, Target};

/// A reply that takes longer is a lost connection.
const PATIENCE: Duration = Duration::from_secs(5);

/// What happens between one relay and one server. Cloning is cheap; all clones are the same.
#[derive(Clone, Debug)]
pub(super) struct Net(Arc<Mutex<Weather>>, Target);

#[derive(Debug)]
struct Weather {
    dice: Dice,
    /// Milliseconds that a message takes at most.
    slow: u64,
    /// Requests wait until then, and are carried out afterwards, whoever still wants the answer.
    held: Option<Instant>,
    /// Requests are carried out and replies are lost until then.
    deaf: Option<Instant>,
    /// Nobody connects until then.
    down: Option<Instant>,
    /// Raised at each cut; connections of another generation are dead.
    generation: u64,
}

impl Net {
    pub(super) fn new(target: Target, dice: Dice) -> Self {
        let weather = Weather { dice, slow: 1, held: None, deaf: None, down: None, generation: 0 };
        Self(Arc::new(Mutex::new(weather)), target)
    }

    fn with<T>(&self, look: impl FnOnce(&mut Weather) -> T) -> T {
        look(&mut self.0.lock().expect("nobody panics with it"))
    }

    pub(super) fn slow(&self, at_most: u64) {
        self.with(|weather| weather.slow = at_most.max(1));
    }

    pub(super) fn hold(&self, length: Duration) {
        self.with(|weather| weather.held = Some(Instant::now() + length));
    }

    pub(super) fn deafen(&self, length: Duration) {
        self.with(|weather| weather.deaf = Some(Instant::now() + length));
    }

    pub(super) fn down(&self, length: Duration) {
        self.with(|weather| {
            weather.down = Some(Instant::now() + length);
            weather.generation += 1;
        });
    }

    /// Ends all connections.
    pub(super) fn cut(&self) {
        self.with(|weather| weather.generation += 1);
    }

    /// Fair weather from now on.
    pub(super) fn heal(&self) {
        self.with(|weather| {
            (weather.slow, weather.held, weather.deaf, weather.down) = (1, None, None, None);
        });
    }

    fn lost(&self, what: &str) -> Error {
        self.1.error(Kind::Unavailable, what)
    }

    async fn travel(&self) {
        loop {
            let held = self.with(|weather| weather.held.filter(|until| *until > Instant::now()));
            match held {
                Some(until) => tokio::time::sleep_until(until).await,
                None => break,
            }
        }
        let (turns, late) = self.with(|weather| {
            let late = match weather.dice.one_in(4) {
                true => weather.dice.below(weather.slow + 1),
                false => 0,
            };
            (weather.dice.below(4), late)
        });
        for _ in 0..turns {
            tokio::task::yield_now().await;
        }
        if late > 0 {
            tokio::time::sleep(Duration::from_millis(late)).await;
        }
    }

    fn is_deaf(&self) -> bool {
        self.with(|weather| weather.deaf.is_some_and(|until| until > Instant::now()))
    }

    /// A connection, if the server can be reached.
    pub(super) async fn connect(&self) -> Result<Wire> {
        self.travel().await;
        let down = self.with(|weather| weather.down.is_some_and(|until| until > Instant::now()));
        match down {
            true => Err(self.lost("connection refused")),
            false => Ok(Wire::new(self.clone())),
        }
    }
}

/// Carries a request out; what comes back delivers the reply.
type Request = Box<dyn FnOnce() -> Reply + Send>;
type Reply = Box<dyn FnOnce() + Send>;

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    requests: mpsc::UnboundedSender<Request>,
    broken: Arc<AtomicBool>,
    net: Net,
    generation: u64,
}

impl Wire {
    fn new(net: Net) -> Self {
        let (requests, arriving) = mpsc::unbounded_channel();
        let (replies, returning) = mpsc::unbounded_channel();
        let generation = net.with(|weather| weather.generation);
        let broken = Arc::<AtomicBool>::default();
        tokio::spawn(carry(net.clone(), generation, arriving, replies));
        tokio::spawn(bring_back(net.clone(), generation, returning));
        Self { requests, broken, net, generation }
    }

    /// The connection has ended.
    pub(super) fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
            || self.net.with(|weather| weather.generation != self.generation)
    }

    /// Sends a request and waits for its reply. After an error it is unknown what was done.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        request: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.is_broken() {
            return Err(self.net.lost("the connection is closed"));
        }
        let (reply, replied) = oneshot::channel();
        let carried = Box::new(move || {
            let answer = request();
            Box::new(move || drop(reply.send(answer))) as Reply
        });
        let _ = self.requests.send(carried);
        match tokio::time::timeout(PATIENCE, replied).await {
            Ok(Ok(answer)) => answer,
            lost => {
                self.broken.store(true, Ordering::Relaxed);
                let what = if lost.is_err() { "timed out" } else { "connection reset" };
                Err(self.net.lost(what))
            }
        }
    }
}

async fn carry(
    net: Net,
    generation: u64,
    mut arriving: mpsc::UnboundedReceiver<Request>,
    replies: mpsc::UnboundedSender<Reply>,
) {
    while let Some(request) = arriving.recv().await {
        net.travel().await;
        // What was on its way at a cut may still arrive.
        let dead = net.with(|weather| weather.generation != generation && !weather.dice.one_in(3));
        if dead {
            return;
        }
        let _ = replies.send(request());
    }
}

async fn bring_back(net: Net, generation: u64, mut returning: mpsc::UnboundedReceiver<Reply>) {
    while let Some(reply) = returning.recv().await {
        net.travel().await;
        if net.with(|weather| weather.generation != generation) {
            return;
        }
        if net.is_deaf() {
            // Kept until the sender has lost patience: it must not look like a closed connection.
            tokio::time::sleep(2 * PATIENCE).await;
            continue;
        }
        reply();
    }
}
