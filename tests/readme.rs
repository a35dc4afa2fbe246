//! The README as a newcomer follows it: its blocks are run in their order, on bare servers.

mod examples;
mod shop;
mod workers;

use std::path::Path;
use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};

use self::examples::{Block, Shell, blocks};
use self::workers::{Worker, calls};
use crate::support::command::to_the_end;
use crate::support::eventually;
use crate::support::relay::Relay;
use crate::support::world::{World, connect};

const BOUND: Duration = Duration::from_secs(60);

/// Follows the README.
struct Reader {
    relay: Option<Relay>,
    shell: Shell,
    /// Entries that the blocks so far have written.
    written: u64,
}

impl Reader {
    fn new() -> Self {
        let world = World::bare(PostgresOptions::default(), RedisOptions::default());
        Self { relay: None, shell: Shell::new(world), written: 0 }
    }

    fn world(&self) -> &World {
        &self.shell.world
    }

    /// The owner makes the schema; everything later is done by the relay's role.
    fn operator(&self) -> &'static str {
        if self.relay.is_none() { "postgres" } else { "relay" }
    }

    async fn follow(&mut self, block: &Block) {
        match block.kind.as_str() {
            "text" => {}
            "rust" => assert_is_compiled(block),
            "sh" => self.shell(block),
            "sh run" => {
                let urls = self.world().urls();
                let variables = [("DATABASE_URL", urls.0.as_str()), ("REDIS_URL", &urls.1)];
                self.relay = Some(Relay::start(self.world().folder.path(), "relay", &variables));
            }
            "sql" => self.sql(block, "shop", 1).await,
            "sql operator" => self.sql(block, "postgres", 0).await,
            "redis" => {
                for line in block.text.lines() {
                    let words: Vec<&str> = line.split(' ').collect();
                    self.world().redis::<redis::Value>(&words).await;
                }
            }
            "python" | "js" | "java" | "go" if block.is_worker() => self.worker(block).await,
            "python" | "js" | "java" | "go" => self.language(block).await,
            other => {
                panic!("README.md:{}: nobody knows how to run a block of {other:?}", block.line)
            }
        }
    }

    fn shell(&self, block: &Block) {
        let shell = self.shell.command(&["sh", "-ec", &block.text], self.operator());
        let ended = to_the_end(shell, BOUND);
        assert_eq!(ended.code, Some(0), "README.md:{}: {ended:#?}", block.line);
    }

    async fn sql(&mut self, block: &Block, role: &str, entries: u64) {
        let client = connect(&self.world().postgres.url_of("postgres", role)).await;
        let ran = client.batch_execute(&block.text).await;
        ran.unwrap_or_else(|error| panic!("README.md:{}: {error:?}", block.line));
        self.arrives(block, entries).await;
    }

    async fn language(&mut self, block: &Block) {
        let Some(command) = self.shell.program_of(block) else { return };
        let ended = to_the_end(command, BOUND);
        assert_eq!(ended.code, Some(0), "README.md:{}: {ended:#?}", block.line);
        self.arrives(block, 1).await;
    }

    /// The example is in the stream.
    async fn arrives(&mut self, block: &Block, entries: u64) {
        self.written += entries;
        let (written, line) = (self.written, block.line);
        let what = format!("the entry of README.md:{line} arrives");
        eventually(&what, BOUND, || async {
            self.world().redis::<u64>(&["XLEN", "orders"]).await == written
        })
        .await;
    }

    /// A worker that reads for ever: it has done its work when every event is noted, also after
    /// Redis has lost everything. The next one takes its place.
    async fn worker(&mut self, block: &Block) {
        let Some(mut command) = self.shell.program_of(block) else { return };
        let _worker = Worker::start(self.world(), &mut command);
        self.told(block).await;
        // A stream that is idle for longer than the call blocks, twice over, is no reason to end.
        let asked = calls(self.world()).await;
        eventually("the worker asks again in vain", BOUND, || async {
            calls(self.world()).await >= asked + 2
        })
        .await;
        self.world().redis::<()>(&["FLUSHALL"]).await;
        let sql = "insert into outbox.entry (stream, key, payload) values ('orders', '42', '1')";
        self.world().sql(sql).await;
        self.written += 1;
        self.told(block).await;
    }

    /// Waits until workers have told of every event once, and acknowledged it.
    async fn told(&self, block: &Block) {
        let written = i64::try_from(self.written).unwrap();
        let what = format!("the worker of README.md:{} has told of every event", block.line);
        eventually(&what, BOUND, || async { self.world().mails().await.noted == written }).await;
        assert_eq!(self.world().mails().await.all, written);
        eventually("every entry is acknowledged", BOUND, || async {
            let pending: Vec<redis::Value> =
                self.world().redis(&["XPENDING", "orders", "workers"]).await;
            pending[0] == redis::Value::Int(0)
        })
        .await;
    }
}

/// An example in Rust stands in the documentation of a module as well, where it is compiled by a test.
fn assert_is_compiled(block: &Block) {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.ends_with("mod.rs") {
                let text = std::fs::read_to_string(path).unwrap();
                let lines = text.lines().filter_map(|line| line.strip_prefix("//!"));
                let shown = lines.filter(|line| !line.starts_with(" # "));
                let shown: Vec<&str> =
                    shown.map(|line| line.strip_prefix(' ').unwrap_or(line)).collect();
                if shown.join("\n").contains(block.text.trim_end()) {
                    return;
                }
            }
        }
    }
    panic!("README.md:{}: no module has this example in its documentation", block.line);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_block_that_can_be_run_does_what_the_readme_says() {
    let mut reader = Reader::new();
    for block in blocks() {
        reader.follow(&block).await;
        if block.text.contains("outbox-relay migrate") {
            reader.world().open_shop(42).await;
        }
    }
    assert!(reader.written >= 2, "the README writes entries");
    let mut relay = reader.relay.take().expect("the README starts a relay");
    assert!(relay.stop().success());
}
