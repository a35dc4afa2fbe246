//! The README as a newcomer follows it: its blocks are run in their order, on bare servers.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use outbox_relay::sandbox::{PostgresOptions, RedisOptions};

use crate::support::command::to_the_end;
use crate::support::eventually;
use crate::support::relay::{Relay, program};
use crate::support::world::{World, connect};

const BOUND: Duration = Duration::from_secs(60);

/// A fenced block: the line it begins at, what it is, and what it holds.
struct Block {
    line: usize,
    kind: String,
    text: String,
}

fn blocks() -> Vec<Block> {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let text = std::fs::read_to_string(readme).unwrap();
    let (mut blocks, mut open): (Vec<Block>, Option<Block>) = (Vec::new(), None);
    for (line, text) in (1..).zip(text.lines()) {
        match (text.strip_prefix("```"), open.as_mut()) {
            (Some(kind), None) => {
                open = Some(Block { line, kind: kind.to_owned(), text: String::new() });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => block.text.push_str(&format!("{text}\n")),
            (None, None) => {}
        }
    }
    assert!(open.is_none() && blocks.len() > 10, "README.md was misread");
    blocks
}

/// Where the packages of the examples are; filled by tests/readme/languages.sh.
fn packages() -> PathBuf {
    std::env::var_os("OUTBOX_TEST_LANGUAGES")
        .map_or_else(|| PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("languages"), PathBuf::from)
}

/// Follows the README.
struct Reader {
    world: World,
    path: String,
    relay: Option<Relay>,
    workers: Vec<std::process::Child>,
    /// Entries that the blocks so far have written.
    written: u64,
}

impl Drop for Reader {
    fn drop(&mut self) {
        for worker in &mut self.workers {
            let _ = worker.kill();
            let _ = worker.wait();
        }
    }
}

impl Reader {
    fn new() -> Self {
        let world = World::bare(PostgresOptions::default(), RedisOptions::default());
        let folder = world.folder.path().join("bin");
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(program(), folder.join("outbox-relay")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let tools = world.postgres.bin_dir();
        let path = format!("{}:{path}:{}", folder.display(), tools.display());
        Self { world, path, relay: None, workers: Vec::new(), written: 0 }
    }

    fn command(&self, words: &[&str], role: &str) -> Command {
        let url = self.world.postgres.url_of("postgres", role);
        let jdbc = format!(
            "jdbc:postgresql://127.0.0.1:{}/postgres?user={role}",
            self.world.postgres.port()
        );
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .env("PATH", &self.path)
            .env("DATABASE_URL", url)
            .env("JDBC_URL", jdbc)
            .env("REDIS_URL", self.world.redis.url())
            .env("HOME", self.world.folder.path())
            .current_dir(self.world.folder.path());
        command
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
                let urls = self.world.urls();
                let variables = [("DATABASE_URL", urls.0.as_str()), ("REDIS_URL", &urls.1)];
                self.relay = Some(Relay::start(self.world.folder.path(), "relay", &variables));
            }
            "sql" => self.sql(block, "shop", 1).await,
            "sql operator" => self.sql(block, "postgres", 0).await,
            "redis" => {
                for line in block.text.lines() {
                    let words: Vec<&str> = line.split(' ').collect();
                    self.world.redis::<redis::Value>(&words).await;
                }
            }
            "python" if block.text.contains("while True") => self.worker(block).await,
            "python" | "js" | "java" | "go" => self.language(block).await,
            other => {
                panic!("README.md:{}: nobody knows how to run a block of {other:?}", block.line)
            }
        }
    }

    fn shell(&self, block: &Block) {
        let ended = to_the_end_of(self.command(&["sh", "-ec", &block.text], self.operator()));
        assert_eq!(ended.code, Some(0), "README.md:{}: {ended:#?}", block.line);
    }

    async fn sql(&mut self, block: &Block, role: &str, entries: u64) {
        let client = connect(&self.world.postgres.url_of("postgres", role)).await;
        let ran = client.batch_execute(&block.text).await;
        ran.unwrap_or_else(|error| panic!("README.md:{}: {error:?}", block.line));
        self.arrives(block, entries).await;
    }

    async fn language(&mut self, block: &Block) {
        let Some(command) = self.program_of(block) else { return };
        let ended = to_the_end_of(command);
        assert_eq!(ended.code, Some(0), "README.md:{}: {ended:#?}", block.line);
        self.arrives(block, 1).await;
    }

    /// The example is in the stream.
    async fn arrives(&mut self, block: &Block, entries: u64) {
        self.written += entries;
        let (written, line) = (self.written, block.line);
        let what = format!("the entry of README.md:{line} arrives");
        eventually(&what, BOUND, || async {
            self.world.redis::<u64>(&["XLEN", "orders"]).await == written
        })
        .await;
    }

    /// The command that runs a block, or None with a line that says why not.
    fn program_of(&self, block: &Block) -> Option<Command> {
        let kind = block.kind.as_str();
        let folder = packages().join(if kind == "js" { "node" } else { kind });
        let skipped = |why: String| eprintln!("SKIPPED README.md:{} ({kind}): {why}", block.line);
        if !folder.join("stamp").exists() {
            skipped(format!("{} has no packages; `make languages` fetches them", folder.display()));
            return None;
        }
        let program = match kind {
            "python" => "python3",
            "js" => "node",
            other => other,
        };
        let mut folders = std::env::split_paths(&self.path);
        if !folders.any(|folder| folder.join(program).is_file()) {
            skipped(format!("there is no {program}"));
            return None;
        }
        let save = |name: &str| {
            let file = self.world.folder.path().join(name);
            std::fs::write(&file, &block.text).unwrap();
            file.to_str().unwrap().to_owned()
        };
        let found = |root: &str| folder.join(root).to_str().unwrap().to_owned();
        Some(match kind {
            "python" => {
                let mut command = self.command(&["python3", &save("block.py")], "shop");
                command.env("PYTHONPATH", &folder).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            "js" => {
                let mut command = self.command(&["node", &save("block.js")], "shop");
                command.env("NODE_PATH", found("node_modules"));
                command
            }
            "java" => {
                let jar = found("usr/share/java/postgresql.jar");
                self.command(&["java", "-cp", &jar, &save("Pay.java")], "shop")
            }
            _ => {
                let mut command = self.command(&["go", "run", &save("block.go")], "shop");
                let url = self.world.postgres.url_of("postgres", "shop");
                command.env("DATABASE_URL", format!("{url}?sslmode=disable"));
                command.env("GO111MODULE", "off").env("GOPATH", found("usr/share/gocode"));
                command.env("GOCACHE", self.world.folder.path().join("go"));
                command
            }
        })
    }

    /// A worker that reads for ever: it has done its work when every event is noted, also after
    /// Redis has lost everything.
    async fn worker(&mut self, block: &Block) {
        let Some(mut command) = self.program_of(block) else { return };
        self.workers.push(command.spawn().unwrap());
        let owner = self.world.owner().await;
        let noted = || async {
            let row = owner.query_one("select count(*) from processed", &[]).await.unwrap();
            row.get::<_, i64>(0).unsigned_abs()
        };
        let written = self.written;
        eventually("the worker has noted every event", BOUND, || async {
            noted().await == written
        })
        .await;
        self.acknowledged().await;
        // A stream that is idle for longer than the call blocks, twice over, is no reason to end.
        let calls = self.calls().await;
        eventually("the worker asks again in vain", BOUND, || async {
            self.calls().await >= calls + 2
        })
        .await;
        self.world.redis::<()>(&["FLUSHALL"]).await;
        self.world.sql("insert into outbox.entry (stream, payload) values ('orders', '1')").await;
        self.written += 1;
        let written = self.written;
        eventually("it goes on after a loss", BOUND, || async { noted().await == written }).await;
        self.acknowledged().await;
    }

    /// Waits until the workers have acknowledged what they were given.
    async fn acknowledged(&self) {
        eventually("every entry is acknowledged", BOUND, || async {
            let pending: Vec<redis::Value> =
                self.world.redis(&["XPENDING", "orders", "workers"]).await;
            pending[0] == redis::Value::Int(0)
        })
        .await;
    }

    /// How often XREADGROUP has been called to its end.
    async fn calls(&self) -> u64 {
        let stats: String = self.world.redis(&["INFO", "commandstats"]).await;
        let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_xreadgroup:calls="));
        calls.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or_default()
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

fn to_the_end_of(command: Command) -> crate::support::command::Ended {
    to_the_end(command, BOUND)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_block_that_can_be_run_does_what_the_readme_says() {
    let mut reader = Reader::new();
    for block in blocks() {
        reader.follow(&block).await;
        if block.text.contains("outbox-relay migrate") {
            let tables = "create table orders (id bigint primary key, status text not null); \
                          insert into orders values (42, 'placed'); \
                          create table processed (event_id uuid primary key); \
                          grant all on orders, processed to shop";
            reader.world.sql(tables).await;
        }
    }
    assert!(reader.written >= 2, "the README writes entries");
    let mut relay = reader.relay.take().expect("the README starts a relay");
    assert!(relay.stop().success());
}
