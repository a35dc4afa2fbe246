//! A pooler before Postgres: gives a session of it to whichever client asks next, for one transaction.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// Sessions that nobody uses now, the last one used first.
type Idle = Arc<Mutex<Vec<TcpStream>>>;

/// Listens until it is dropped.
pub(crate) struct Pooler {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Pooler {
    /// Before the Postgres at `server`, as the role that each client names.
    pub(crate) async fn start(server: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let idle = Idle::default();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let idle = idle.clone();
                // A client that goes away ends with an error.
                tokio::spawn(async move { drop(serve(client, server, idle).await) });
            }
        });
        Self { port, task }
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A message, with its kind unless it is the first of a client, and its length.
async fn message(from: &mut TcpStream, first: bool) -> std::io::Result<Vec<u8>> {
    let mut message = vec![0; if first { 4 } else { 5 }];
    from.read_exact(&mut message).await?;
    let length = u32::from_be_bytes(message[message.len() - 4..].try_into().unwrap()) as usize;
    let head = message.len();
    message.resize(head + length - 4, 0);
    from.read_exact(&mut message[head..]).await?;
    Ok(message)
}

async fn serve(mut client: TcpStream, port: u16, idle: Idle) -> std::io::Result<()> {
    let hello = message(&mut client, true).await?;
    // Let in, and ready.
    client.write_all(&[b'R', 0, 0, 0, 8, 0, 0, 0, 0, b'Z', 0, 0, 0, 5, b'I']).await?;
    let mut held: Option<TcpStream> = None;
    loop {
        let asked = message(&mut client, false).await?;
        if asked[0] == b'X' {
            return Ok(());
        }
        if held.is_none() {
            held = idle.lock().unwrap().pop();
        }
        let server = match &mut held {
            Some(server) => server,
            None => held.insert(begin(port, &hello).await?),
        };
        server.write_all(&asked).await?;
        if !matches!(asked[0], b'Q' | b'S') {
            continue;
        }
        loop {
            let said = message(server, false).await?;
            client.write_all(&said).await?;
            if said[0] == b'Z' {
                if said[5] == b'I' {
                    idle.lock().unwrap().extend(held.take());
                }
                break;
            }
        }
    }
}

/// A session of the server.
async fn begin(port: u16, hello: &[u8]) -> std::io::Result<TcpStream> {
    let mut server = TcpStream::connect(("127.0.0.1", port)).await?;
    server.write_all(hello).await?;
    while message(&mut server, false).await?[0] != b'Z' {}
    Ok(server)
}
