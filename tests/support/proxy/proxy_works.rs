//! Tests of the proxy itself.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::{Direction, Proxy};

/// Longer than anything takes that is not held up on purpose.
const SOON: Duration = Duration::from_secs(5);
/// Long enough to notice, short enough to wait for.
const LATE: Duration = Duration::from_secs(1);
const NOT_YET: Duration = Duration::from_millis(100);

/// A server that notes what it reads, and sends the same back.
struct Echo {
    address: SocketAddr,
    requests: UnboundedReceiver<Vec<u8>>,
    task: JoinHandle<()>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listener");
        let address = listener.local_addr().expect("address");
        let (notes, requests) = unbounded_channel();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream, notes.clone()));
            }
        });
        Self { address, requests, task }
    }

    async fn request(&mut self) -> Vec<u8> {
        let request = timeout(SOON, self.requests.recv()).await;
        request.expect("a request in time").expect("a running server")
    }

    fn is_idle(&mut self) -> bool {
        self.requests.try_recv().is_err()
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Notes the end of the stream as an empty request.
async fn echo(mut stream: TcpStream, notes: UnboundedSender<Vec<u8>>) {
    let mut bytes = vec![0; 1024];
    loop {
        let count = stream.read(&mut bytes).await.unwrap_or(0);
        let _ = notes.send(bytes[..count].to_vec());
        if count == 0 {
            return;
        }
        // A broken connection also ends the reading.
        let _ = stream.write_all(&bytes[..count]).await;
    }
}

async fn connect(proxy: &Proxy) -> TcpStream {
    TcpStream::connect(proxy.addr()).await.expect("connection")
}

async fn ask(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.expect("write");
    let mut reply = vec![0; text.len()];
    let read = timeout(SOON, stream.read_exact(&mut reply)).await;
    read.expect("a reply in time").expect("a reply");
    String::from_utf8(reply).expect("the text sent")
}

/// Whether no byte and no end comes for a while.
async fn hears_nothing(stream: &mut TcpStream) -> bool {
    timeout(NOT_YET, stream.read(&mut [0; 16])).await.is_err()
}

async fn eventually(what: impl Fn() -> bool) {
    let deadline = Instant::now() + SOON;
    while !what() {
        assert!(Instant::now() < deadline, "did not come true");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn without_faults_bytes_pass_both_ways_and_connections_are_counted() {
    let (mut first, mut second) = (Echo::start().await, Echo::start().await);
    let proxy = Proxy::start(first.address);
    let mut client = connect(&proxy).await;
    assert_eq!(ask(&mut client, "one").await, "one");
    proxy.retarget(second.address);
    let mut other = connect(&proxy).await;
    assert_eq!(ask(&mut other, "two").await, "two");
    assert_eq!(ask(&mut client, "three").await, "three");
    assert_eq!((proxy.connections(), proxy.accepted()), (2, 2));
    drop((client, other));
    eventually(|| proxy.connections() == 0).await;
    let expected: [&[u8]; 3] = [b"one", b"three", b""];
    for request in expected {
        assert_eq!(first.request().await, request);
    }
    assert_eq!(second.request().await, b"two");
}

#[tokio::test]
async fn large_streams_arrive_whole() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let sent: Vec<u8> = (0..3_000_000_u32).map(|n| (n % 251) as u8).collect();
    let (mut from, mut to) = connect(&proxy).await.into_split();
    let copy = sent.clone();
    let writer = tokio::spawn(async move {
        to.write_all(&copy).await.expect("write");
        to
    });
    let mut received = vec![0; sent.len()];
    timeout(SOON, from.read_exact(&mut received)).await.expect("in time").expect("all");
    assert!(received == sent);
    drop(writer.await.expect("writer"));
}

#[tokio::test]
async fn a_delay_counts_each_way() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let mut client = connect(&proxy).await;
    proxy.set_delay(NOT_YET);
    let start = Instant::now();
    ask(&mut client, "x").await;
    assert!(start.elapsed() >= 2 * NOT_YET);
    proxy.set_delay(Duration::ZERO);
    assert_eq!(ask(&mut client, "y").await, "y");
}

#[tokio::test]
async fn a_narrow_link_takes_its_time_and_jitter_keeps_the_order() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let mut client = connect(&proxy).await;
    proxy.set_jitter(Duration::from_millis(5));
    proxy.set_bandwidth(10_000);
    let (text, begun) = ("0123456789".repeat(100), Instant::now());
    assert_eq!(ask(&mut client, &text).await, text);
    // 1,000 bytes each way.
    assert!(begun.elapsed() > Duration::from_millis(190), "took {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_switch_changes_the_server_and_keeps_the_client() {
    let (mut first, mut second) = (Echo::start().await, Echo::start().await);
    let proxy = Proxy::start(first.address);
    let mut client = connect(&proxy).await;
    assert_eq!(ask(&mut client, "one").await, "one");
    proxy.switch(second.address);
    assert_eq!(first.request().await, b"one");
    assert_eq!(first.request().await, b"", "its connection has ended");
    assert_eq!(ask(&mut client, "two").await, "two");
    assert_eq!(second.request().await, b"two");
    assert_eq!(proxy.accepted(), 1);
}

#[tokio::test]
async fn a_held_request_arrives_late_though_its_client_has_gone_and_returned() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let mut client = connect(&proxy).await;
    ask(&mut client, "before").await;
    proxy.hold_requests(LATE);
    let start = Instant::now();
    client.write_all(b"held").await.expect("write");
    assert!(hears_nothing(&mut client).await);
    drop(client);
    proxy.hold_only_current();
    let mut again = connect(&proxy).await;
    assert_eq!(ask(&mut again, "new").await, "new");
    assert!(start.elapsed() < LATE, "the new connection was held as well");
    assert_eq!([echo.request().await, echo.request().await], [&b"before"[..], b"new"]);
    assert_eq!(echo.request().await, b"held");
    assert!(start.elapsed() >= LATE);
    assert_eq!(echo.request().await, b"");
    eventually(|| proxy.connections() == 1).await;
}

#[tokio::test]
async fn a_held_request_survives_a_client_that_resets() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let mut client = connect(&proxy).await;
    proxy.hold_requests(LATE);
    client.write_all(b"held").await.expect("write");
    sleep(NOT_YET).await;
    client.set_zero_linger().expect("linger");
    drop(client);
    proxy.release();
    assert_eq!(ask(&mut connect(&proxy).await, "new").await, "new");
    assert_eq!([echo.request().await, echo.request().await], [&b"new"[..], b""]);
    assert_eq!(echo.request().await, b"held");
}

#[tokio::test]
async fn a_swallowed_reply_is_lost_after_the_request_was_carried_out() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let mut client = connect(&proxy).await;
    proxy.swallow_replies(true);
    client.write_all(b"lost").await.expect("write");
    assert_eq!(echo.request().await, b"lost");
    assert!(hears_nothing(&mut client).await);
    proxy.swallow_replies(false);
    assert_eq!(ask(&mut connect(&proxy).await, "heard").await, "heard");
}

#[tokio::test]
async fn a_cut_resets_what_is_open_and_nothing_else() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let mut client = connect(&proxy).await;
    ask(&mut client, "x").await;
    proxy.cut();
    let end = timeout(SOON, client.read(&mut [0; 16])).await.expect("in time");
    assert_eq!(end.map_err(|e| e.kind()), Err(ErrorKind::ConnectionReset));
    assert_eq!([echo.request().await, echo.request().await], [&b"x"[..], b""]);
    assert_eq!(ask(&mut connect(&proxy).await, "y").await, "y");
}

#[tokio::test]
async fn a_cut_after_bytes_lets_exactly_those_pass() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let mut client = connect(&proxy).await;
    proxy.cut_after_bytes(Direction::ToServer, 7);
    assert_eq!(ask(&mut client, "abc").await, "abc");
    client.write_all(b"defghi").await.expect("write");
    assert_eq!([echo.request().await, echo.request().await], [&b"abc"[..], b"defg"]);
    assert_eq!(echo.request().await, b"");

    let mut client = connect(&proxy).await;
    proxy.cut_after_bytes(Direction::ToClient, 2);
    client.write_all(b"abc").await.expect("write");
    let mut reply = Vec::new();
    timeout(SOON, client.read_to_end(&mut reply)).await.expect("in time").expect_err("a reset");
    assert_eq!(reply, b"ab");
    assert_eq!(ask(&mut connect(&proxy).await, "y").await, "y");
}

#[tokio::test]
async fn a_refused_connection_ends_at_once_and_older_ones_go_on() {
    let echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let mut old = connect(&proxy).await;
    ask(&mut old, "x").await;
    proxy.refuse(true);
    let mut client = connect(&proxy).await;
    let end = timeout(SOON, client.read(&mut [0; 16])).await.expect("in time");
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!(ask(&mut old, "y").await, "y");
    proxy.refuse(false);
    assert_eq!(ask(&mut connect(&proxy).await, "z").await, "z");
}

#[tokio::test]
async fn a_black_hole_answers_nothing_until_it_is_over() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let mut old = connect(&proxy).await;
    ask(&mut old, "old").await;
    assert_eq!(echo.request().await, b"old");
    proxy.black_hole(true);
    let mut new = connect(&proxy).await;
    for client in [&mut old, &mut new] {
        client.write_all(b"lost?").await.expect("write");
        assert!(hears_nothing(client).await);
    }
    assert!(echo.is_idle());
    assert_eq!(proxy.connections(), 2);
    proxy.black_hole(false);
    let mut reply = [0; 5];
    for client in [&mut old, &mut new] {
        timeout(SOON, client.read_exact(&mut reply)).await.expect("in time").expect("a reply");
    }
}

#[tokio::test]
async fn a_dropped_proxy_ends_its_connections_and_loses_what_it_kept() {
    let mut echo = Echo::start().await;
    let proxy = Proxy::start(echo.address);
    let mut client = connect(&proxy).await;
    ask(&mut client, "x").await;
    proxy.hold_requests(SOON * 100);
    client.write_all(b"held").await.expect("write");
    drop(proxy);
    let end = timeout(SOON, client.read(&mut [0; 16])).await.expect("in time");
    assert!(matches!(end, Ok(0) | Err(_)));
    assert_eq!([echo.request().await, echo.request().await], [&b"x"[..], b""]);
}
