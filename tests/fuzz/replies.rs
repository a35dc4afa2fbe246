//! The door of Redis: a server that answers a handshake as it should, and a command with the bytes of the
//! input, whatever they are. The first word of an input's name is what the client asks.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use outbox_relay::entry::Entry;
use outbox_relay::error::{Error, Target};
use outbox_relay::group::{Group, Pending};
use outbox_relay::position::Position;
use outbox_relay::stream::{
    Append, Appended, Canary, Claim, Limits, OldEnd, Owner, Place, Redis, Replaced, Restored,
    Server,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::door::Door;
use super::resp::{self, Read, Resp};

/// A client that waits longer hangs.
const BOUND: Duration = Duration::from_secs(15);
/// An error is a line that a person reads.
const LONGEST_ERROR: usize = 1_001;
/// Times that a connection answers: a client may ask a second time, with the script's text.
const ANSWERS: usize = 3;

/// Answers each command with the same bytes.
struct Fake {
    address: SocketAddr,
    answer: Arc<Mutex<Vec<u8>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, answer) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<u8>>>::default());
        let shared = answer.clone();
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that goes away ends with an error.
                let answer = shared.clone();
                tokio::spawn(async move { drop(serve(client, answer).await) });
            }
        });
        Self { address, answer, task }
    }

    async fn client(&self) -> Redis {
        let url = format!("redis://{}/", self.address);
        Server::from_url(&url, "").unwrap().connect().await.unwrap()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut client: TcpStream, answer: Arc<Mutex<Vec<u8>>>) -> std::io::Result<()> {
    let (mut asked, mut chunk, mut answers) = (Vec::new(), [0; 4_096], 0);
    let mut greeted = false;
    loop {
        while let Read::Whole(command, length) = resp::read(&asked) {
            asked.drain(..length);
            let words = command.texts().unwrap_or_default();
            match words.first().map(String::as_str) {
                Some("PING") => client.write_all(b"+PONG\r\n").await?,
                // Whether it is a node of a cluster, before anything else.
                Some("INFO") if !std::mem::replace(&mut greeted, true) => {
                    client.write_all(b"$0\r\n\r\n").await?;
                }
                Some("CLIENT" | "SELECT" | "HELLO") => client.write_all(b"+OK\r\n").await?,
                _ => {
                    let bytes = answer.lock().unwrap().clone();
                    client.write_all(&bytes).await?;
                    answers += 1;
                    // Of what is no whole reply, the end is the rest.
                    if !matches!(resp::read(&bytes), Read::Whole(..)) || answers == ANSWERS {
                        return client.shutdown().await;
                    }
                }
            }
        }
        match client.read(&mut chunk).await? {
            0 => return Ok(()),
            count => asked.extend_from_slice(&chunk[..count]),
        }
    }
}

const AT: Position = Position { ms: 1_763_838_000_000, n: 7 };

fn appends() -> Vec<Append> {
    let entry = Entry {
        id: 1,
        event_id: uuid::Uuid::nil(),
        stream: "orders".into(),
        key: None,
        kind: None,
        payload: "1".into(),
        headers: None,
        created_at: "2026-11-22T19:00:00Z".parse().unwrap(),
    };
    let expected = Position { ms: AT.ms, n: AT.n - 1 };
    let (stream, ms) = ("orders".into(), vec![AT.ms]);
    vec![Append { stream, expected, first_n: AT.n, ms, entries: vec![entry] }]
}

fn groups() -> Vec<Group> {
    let pending = Pending { position: AT, consumer: "one".into(), given_ms: 1, deliveries: 1 };
    let (name, delivered) = ("mail".into(), AT);
    let pending = Some(vec![pending]);
    vec![Group {
        name,
        delivered,
        read: Some(7),
        given: 7,
        waiting: 1,
        pending,
        ..Group::default()
    }]
}

fn owner() -> Owner {
    Owner { id: "ours".into(), system: "42".into(), former: Vec::new() }
}

/// What the client makes of an answer: whether it takes something for done, and what was said then.
type Taken = Result<Option<&'static [&'static str]>, Error>;

async fn ask(what: &str, redis: &Redis) -> Taken {
    let streams: [Arc<str>; 1] = ["orders".into()];
    let limits = Limits { entries: 10, bytes: 1_000, trim_ungrouped: false };
    Ok(match what {
        "append" => {
            let appended = redis.append(&appends(), limits).await?;
            appended.contains(&Appended::Done).then_some(&["appended", "1763838000000-7"])
        }
        "pend" => {
            let pended = redis.pend("orders", AT, &groups(), &[]).await?;
            (pended == Appended::Done).then_some(&["done"])
        }
        "restore" => {
            let restored = redis.restore("orders", AT, AT, &groups()).await?;
            matches!(restored, Restored::Done { .. }).then_some(&["restored"])
        }
        "rebuild" => {
            let old = OldEnd { foreign: None, ours: AT };
            let replaced = redis.replace_by_copy("orders", &old).await?;
            matches!(replaced, Replaced::Done { .. }).then_some(&["done"])
        }
        "positions" => {
            let places = redis.positions(&streams).await?;
            matches!(places[0], Place::At(_)).then_some(&["stream"])
        }
        "view" => {
            let view = redis.view("orders").await?;
            matches!(view.place, Place::At(_)).then_some(&["stream"])
        }
        "canary" => {
            redis.canary(redis.shard("orders"), &owner(), 1).await?.map(|Canary { .. }| &[][..])
        }
        "claim" => {
            let claim = redis.claim(redis.shard("orders"), &owner()).await?;
            (claim == Claim::Ours).then_some(&["ours", "42"])
        }
        "trim" => redis.trim(&[("orders".into(), AT, true)]).await.map(|_| None)?,
        "range" => redis.range("orders", Position::START, AT, 10).await.map(|_| None)?,
        "last" => redis.last_before("orders", AT).await.map(|_| None)?,
        "life" => redis.life().await.map(|_| None)?,
        "instance" => redis.instances().await.map(|_| None)?,
        "eviction" => redis.refuse_unfit().await.map(|()| None)?,
        "expiring" => {
            let begun = redis.begin_expiring("orders", BOUND).await?;
            (begun == Appended::Done).then_some(&["appended", "0-0"])
        }
        "renew" => redis.renew_canary(redis.shard("orders")).await.map(|_| None)?,
        other => panic!("an input's name begins with {other}"),
    })
}

const ASKED: [&str; 16] = [
    "append",
    "pend",
    "restore",
    "rebuild",
    "positions",
    "view",
    "canary",
    "claim",
    "trim",
    "range",
    "last",
    "life",
    "instance",
    "eviction",
    "expiring",
    "renew",
];

/// Fails if the client takes for done what was not said, or does not say plainly what is wrong.
fn judge(what: &str, bytes: &[u8], taken: Taken) {
    match taken {
        Ok(None) => {}
        Ok(Some(said)) => {
            let Read::Whole(reply, _) = resp::read(bytes) else {
                panic!("{what} believes what is no reply");
            };
            let texts = match &reply {
                Resp::Array(parts) => Resp::Array(parts.iter().take(said.len()).cloned().collect()),
                _ => panic!("{what} believes {reply:?}"),
            };
            assert_eq!(texts.texts().unwrap_or_default(), said, "{what} believes {reply:?}");
        }
        Err(error) => {
            let text = error.to_string();
            assert_eq!(error.target(), Some(Target::Redis), "{text}");
            assert!(text.contains("Redis"), "{what}: an error that does not name Redis: {text}");
            let length = text.chars().count();
            assert!(length <= LONGEST_ERROR, "{what}: an error of {length} characters");
            assert!(!text.chars().any(char::is_control), "{what}: a control character: {text:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_answer_of_redis_is_taken_for_another() {
    let fake = Fake::start().await;
    let mut door = Door::open("replies");
    while let Some(input) = door.next() {
        fake.answer.lock().unwrap().clone_from(&input.bytes);
        let own = input.name.split('-').next().unwrap_or_default();
        let asked = match input.is_mutated || own == "any" {
            true if own == "any" => ASKED[door.dice().below(ASKED.len() as u64) as usize],
            _ => own,
        };
        // What is in the corpus answers everything.
        let all = if input.is_mutated { vec![asked] } else { ASKED.to_vec() };
        for what in all {
            let redis = fake.client().await;
            let taken = tokio::time::timeout(BOUND, ask(what, &redis)).await;
            judge(what, &input.bytes, taken.unwrap_or_else(|_| panic!("{what} hangs")));
        }
    }
}
