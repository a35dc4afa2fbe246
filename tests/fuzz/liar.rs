//! A whole relay whose Redis answers nonsense now and then, and honestly in the end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::door::seconds;
use super::resp::{Read, read};
use crate::support::dice::Dice;
use crate::support::eventually;
use crate::support::relay::Relay;
use crate::support::workers::Workers;
use crate::support::world::World;
use crate::support::writers::{STREAMS, Writers};

/// Answers that no command of the relay gets from a server that works, or only from one in trouble.
const NONSENSE: [&[u8]; 24] = [
    b":0\r\n",
    b":-9223372036854775808\r\n",
    b"$-1\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"_\r\n",
    b"+OK\r\n",
    b"+appended\r\n",
    b"$0\r\n\r\n",
    b"*1\r\n*0\r\n",
    b"*2\r\n$8\r\nappended\r\n$-1\r\n",
    b"*2\r\n$8\r\nappended\r\n$3\r\n0-0\r\n",
    b"*2\r\n:1\r\n:1\r\n",
    b"-ERR unknown\r\n",
    b"-\r\n",
    b"-OOM command not allowed\r\n",
    b"-BUSY Redis is busy\r\n",
    b"-NOSCRIPT No matching script\r\n",
    b"-LOADING Redis is loading the dataset in memory\r\n",
    b"-READONLY You can't write against a read only replica.\r\n",
    b"-MOVED 3999 127.0.0.1:1\r\n",
    b"$5\r\nab",
    b"\x00\xff\x00\r\n",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
];

/// Lies once in this many answers.
const ONE_IN: u64 = 20;

/// Listens until it is dropped.
struct Liar {
    port: u16,
    lies: Arc<AtomicBool>,
    told: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Liar {
    async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (lies, told) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (shared, counter, mut dice) = (lies.clone(), told.clone(), Dice::new());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (lies, told, dice) = (shared.clone(), counter.clone(), dice.split());
                let server = SocketAddr::from(([127, 0, 0, 1], server));
                let lie = Lie { lies, told, dice };
                // Either side may go away at any time.
                tokio::spawn(async move { drop(carry(client, server, lie).await) });
            }
        });
        Self { port, lies, told, task }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a client is told instead of an answer.
struct Lie {
    lies: Arc<AtomicBool>,
    told: Arc<AtomicUsize>,
    dice: Dice,
}

impl Lie {
    fn instead(&mut self) -> Option<&'static [u8]> {
        if !self.lies.load(Ordering::Relaxed) || !self.dice.one_in(ONE_IN) {
            return None;
        }
        self.told.fetch_add(1, Ordering::Relaxed);
        Some(NONSENSE[self.dice.below(NONSENSE.len() as u64) as usize])
    }
}

async fn carry(client: TcpStream, server: SocketAddr, mut lie: Lie) -> std::io::Result<()> {
    let server = TcpStream::connect(server).await?;
    let ((mut asks, mut hears), (mut says, mut takes)) = (client.into_split(), server.into_split());
    let answers = async {
        let (mut said, mut chunk) = (Vec::new(), vec![0; 16 * 1_024]);
        loop {
            while let Read::Whole(_, length) = read(&said) {
                let answer: Vec<u8> = said.drain(..length).collect();
                let instead = lie.instead().unwrap_or(&answer);
                hears.write_all(instead).await?;
                if !matches!(read(instead), Read::Whole(..)) {
                    // Nobody can tell where the next answer begins.
                    return hears.shutdown().await;
                }
            }
            match says.read(&mut chunk).await? {
                0 => return hears.shutdown().await,
                count => said.extend_from_slice(&chunk[..count]),
            }
        }
    };
    tokio::select! {
        answered = answers => answered,
        asked = tokio::io::copy(&mut asks, &mut takes) => asked.map(drop),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_answers_nonsense_loses_and_doubles_nothing() {
    let world = World::new().await;
    let liar = Liar::start(world.redis.port()).await;
    let urls = (world.urls().0, format!("redis://127.0.0.1:{}/", liar.port));
    let more =
        [("OUTBOX_BATCH_ROWS", "20"), ("OUTBOX_CHECKPOINT", "100ms"), ("OUTBOX_AUDIT", "100ms")];
    let mut relay = Relay::start(world.folder.path(), "relay", &world.variables(&urls, &more));
    // At its start it would believe that the Redis is somebody else's, and end.
    relay.logged("leading with token").await;
    liar.lies.store(true, Ordering::Relaxed);
    let mail = Workers::start(&world, "mail", &STREAMS).await;
    let writers = Writers::start(&world, 3);
    let begun = Instant::now();
    let what = "the time is over";
    eventually(what, Duration::from_secs(3_600), || async { begun.elapsed() > seconds() }).await;
    liar.lies.store(false, Ordering::Relaxed);
    writers.write_more(50).await;
    writers.stop().await;
    world.settled().await;
    mail.finish(&world, &STREAMS).await;
    world.reconcile().await;
    assert!(liar.told.load(Ordering::Relaxed) > 2, "it hardly lied");
    assert!(!relay.log().contains("panicked"), "{}", relay.log());
    assert!(relay.is_running());
}
