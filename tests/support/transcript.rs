//! What a person sees in a night: commands with their output, lines of the log; compared with a golden
//! file in which what differs from run to run is masked.

use std::path::PathBuf;

use super::command::command;
use super::relay::Relay;
use super::world::World;

/// The transcript of one night.
pub(crate) struct Transcript<'a> {
    world: &'a World,
    name: &'static str,
    text: String,
}

impl<'a> Transcript<'a> {
    pub(crate) fn new(world: &'a World, name: &'static str, title: &str) -> Self {
        Self { world, name, text: format!("# {title}\n") }
    }

    /// Runs a command with the URLs of the world in its environment and keeps what it said.
    #[track_caller]
    pub(crate) fn run(&mut self, words: &[&str]) -> Option<i32> {
        let urls = self.world.urls();
        let variables = [
            ("DATABASE_URL", &*urls.0),
            ("REDIS_URL", &*urls.1),
            ("USER", "alice"),
            ("OUTBOX_START", "0s"),
        ];
        self.run_with(words, &variables)
    }

    #[track_caller]
    pub(crate) fn run_with(&mut self, words: &[&str], variables: &[(&str, &str)]) -> Option<i32> {
        let ended = command(words, variables);
        self.text.push_str(&format!("\n$ outbox-relay {}\n{}", words.join(" "), ended.out));
        let quiet = |line: &&str| !line.contains(" INFO ");
        let err: String = ended.err.lines().filter(quiet).map(|line| format!("{line}\n")).collect();
        self.text.push_str(&err);
        if ended.code != Some(0) {
            self.text.push_str(&format!("[exit {}]\n", ended.code.unwrap_or(-1)));
        }
        ended.code
    }

    /// Waits until the relay has logged `text`, and keeps the first line with it.
    pub(crate) async fn logged(&mut self, relay: &Relay, text: &str) {
        relay.logged(text).await;
        let log = relay.log();
        let line = log.lines().find(|line| line.contains(text)).unwrap_or_default();
        let (_, line) = line.split_once("Z ").unwrap_or(("", line));
        self.text.push_str(&format!("\nlog: {}\n", line.trim()));
    }

    /// What somebody does who is not us.
    pub(crate) fn says(&mut self, what: &str) {
        self.text.push_str(&format!("\n> {what}\n"));
    }

    /// Compares with the golden file, or writes it anew.
    #[track_caller]
    pub(crate) fn compare(self) {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/nights");
        let file = folder.join(format!("{}.txt", self.name));
        let found = self.masked();
        for line in
            found.lines().filter(|line| !line.starts_with("log:") && !line.starts_with("error:"))
        {
            assert!(line.chars().count() <= 100, "more than 100 columns: {line}");
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|set| set == "1") {
            std::fs::write(&file, &found).unwrap();
            return;
        }
        let golden = std::fs::read_to_string(&file).unwrap_or_default();
        assert!(
            golden == found,
            "{} is old:\n--- golden\n{golden}\n--- found\n{found}",
            file.display()
        );
    }

    fn masked(&self) -> String {
        let known = [
            (self.world.postgres.port().to_string(), "PORT"),
            (self.world.redis.port().to_string(), "PORT"),
            (rustix::system::uname().nodename().to_string_lossy().into_owned(), "HOST"),
        ];
        let mut text = self.text.clone();
        for (secret, mask) in known.iter().filter(|(secret, _)| !secret.is_empty()) {
            text = text.replace(secret.as_str(), mask);
        }
        text.lines().map(|line| format!("{}\n", masked_line(line))).collect()
    }
}

fn masked_line(line: &str) -> String {
    let mut words: Vec<String> = line.split(' ').map(masked_word).collect();
    for at in 1..words.len() {
        let is_age = words[at - 1].parse::<f64>().is_ok() && words[at - 1].contains('.');
        if is_age && words[at].starts_with('s') {
            words[at - 1] = "#.#".to_owned();
        }
        if words[at] == "ms" {
            words[at - 1] = "###".to_owned();
        }
    }
    // An age is as wide as its column, whatever its digits.
    let mut text = words.join(" ");
    while text.contains("   #.# s") {
        text = text.replace("   #.# s", "  #.# s");
    }
    // The address of a server is padded to a column.
    if let Some((head, tail)) = text
        .split_once("PORT")
        .filter(|_| text.starts_with("Postgres ") || text.starts_with("Redis "))
    {
        let rest: Vec<&str> = tail.split_whitespace().collect();
        let joined = if tail.starts_with(' ') { "  " } else { "" };
        text = format!("{head}PORT{joined}{}", rest.join(" "));
    }
    text
}

/// Masks positions, times, identities and the like; punctuation around them stays.
fn masked_word(word: &str) -> String {
    let is_mark = |c: char| ",;:.()`\"".contains(c);
    let core = word.trim_matches(is_mark);
    let digits = |text: &str| !text.is_empty() && text.chars().all(|c| c.is_ascii_digit());
    let mask = match core {
        _ if core.len() > 14
            && core
                .split_once('-')
                .is_some_and(|(ms, n)| ms.len() == 13 && digits(ms) && digits(n)) =>
        {
            let n = core.split_once('-').map_or("", |(_, n)| n);
            Some(format!("MS-{n}"))
        }
        _ if core.len() >= 20 && core.starts_with("20") && core.ends_with('Z') => {
            Some("TIME".to_owned())
        }
        _ if core.len() == 36 && core.matches('-').count() == 4 => Some("UUID".to_owned()),
        _ if core.starts_with("HOST/") => Some("HOST/PID/RANDOM".to_owned()),
        _ if core.len() >= 17 && digits(core) => Some("CLUSTER".to_owned()),
        _ => None,
    };
    match mask {
        Some(mask) => word.replace(core, &mask),
        None => match word.strip_prefix("id=").filter(|id| id.len() == 36) {
            Some(_) => "id=UUID".to_owned(),
            None => word.to_owned(),
        },
    }
}
