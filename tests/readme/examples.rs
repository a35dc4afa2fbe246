//! The blocks of the README, and a shell in which they are run.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::command::to_the_end;
use crate::support::relay::program;
use crate::support::world::World;

/// Go compiles what it comes with at first.
const BUILD_BOUND: Duration = Duration::from_secs(300);

/// A fenced block: the line it begins at, what it is, and what it holds.
pub(super) struct Block {
    pub(super) line: usize,
    pub(super) kind: String,
    pub(super) text: String,
}

impl Block {
    /// Whether it is a program that reads for ever.
    pub(super) fn is_worker(&self) -> bool {
        self.text.contains("insert into outbox.done")
    }
}

/// All blocks, in their order.
pub(super) fn blocks() -> Vec<Block> {
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

/// Servers, and a shell that finds them, the program and the languages.
pub(super) struct Shell {
    pub(super) world: World,
    path: String,
}

impl Shell {
    pub(super) fn new(world: World) -> Self {
        let folder = world.folder.path().join("bin");
        std::fs::create_dir(&folder).unwrap();
        std::os::unix::fs::symlink(program(), folder.join("outbox-relay")).unwrap();
        let path = std::env::var("PATH").unwrap_or_default();
        let tools = world.postgres.bin_dir();
        let path = format!("{}:{path}:{}", folder.display(), tools.display());
        Self { world, path }
    }

    /// A command in this shell, with the rights of `role` in Postgres.
    pub(super) fn command(&self, words: &[&str], role: &str) -> Command {
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

    /// The command that runs a block, or None with a line that says why not.
    pub(super) fn program_of(&self, block: &Block) -> Option<Command> {
        let kind = block.kind.as_str();
        let folder = packages().join(if kind == "js" { "node" } else { kind });
        if !folder.join("stamp").exists() {
            let why =
                format!("{} has no packages; `make languages` fetches them", folder.display());
            return skipped(block, &why);
        }
        let program = match kind {
            "python" => "python3",
            "js" => "node",
            other => other,
        };
        let mut folders = std::env::split_paths(&self.path);
        if !folders.any(|folder| folder.join(program).is_file()) {
            return skipped(block, &format!("there is no {program}"));
        }
        Some(self.command_of(block, &folder))
    }

    fn command_of(&self, block: &Block, packages: &Path) -> Command {
        let save = |name: &str| {
            let file = self.world.folder.path().join(name);
            std::fs::write(&file, &block.text).unwrap();
            file.to_str().unwrap().to_owned()
        };
        let found = |root: &str| packages.join(root).to_str().unwrap().to_owned();
        let name = format!("block{}", block.line);
        match block.kind.as_str() {
            "python" => {
                let mut command = self.command(&["python3", &save(&format!("{name}.py"))], "shop");
                command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1");
                command
            }
            "js" => {
                let mut command = self.command(&["node", &save(&format!("{name}.js"))], "shop");
                command.env("NODE_PATH", found("node_modules"));
                command
            }
            "java" => {
                let jar = found("usr/share/java/postgresql.jar");
                self.command(&["java", "-cp", &jar, &save("Pay.java")], "shop")
            }
            // Not by `go run`, which is another process than the program.
            _ => {
                let source = save(&format!("{name}.go"));
                let mut build = self.command(&["go", "build", "-o", &name, &source], "shop");
                build.env("GO111MODULE", "off").env("GOPATH", found("usr/share/gocode"));
                build.env("GOCACHE", found("cache"));
                let built = to_the_end(build, BUILD_BOUND);
                assert_eq!(built.code, Some(0), "README.md:{}: {built:#?}", block.line);
                let program = self.world.folder.path().join(name);
                let mut command = self.command(&[program.to_str().unwrap()], "shop");
                let url = self.world.postgres.url_of("postgres", "shop");
                command.env("DATABASE_URL", format!("{url}?sslmode=disable&connect_timeout=10"));
                command
            }
        }
    }
}

fn skipped(block: &Block, why: &str) -> Option<Command> {
    let line = format!("SKIPPED README.md:{} ({}): {why}\n", block.line, block.kind);
    // Not by a macro: those are kept from sight where the test passes.
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    None
}
