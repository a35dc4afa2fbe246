//! The house rules that no compiler checks, read from the source tree itself.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::support::command::command;

const LONGEST_LINE: usize = 110;
const LONGEST_FILE: usize = 500;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder whose names end so, with their texts, by path from the root.
fn files(folder: &str, ending: &str) -> BTreeMap<String, String> {
    let (mut found, mut folders) = (BTreeMap::new(), vec![root().join(folder)]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path: PathBuf = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(ending) {
                let name = path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
                found.insert(name, std::fs::read_to_string(&path).unwrap());
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} in {folder}: the test looks in the wrong place");
    found
}

/// Lines that are code, with their numbers: no comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    (1..).zip(text.lines()).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Whether a line has `word` as a path that begins there: not as the end of a longer one.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        !before.is_some_and(|c| c.is_alphanumeric() || "_:".contains(c))
    })
}

/// Complaints about lines of code in files outside of `allowed` that name one of `words`.
fn strangers(words: &[&str], allowed: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let sources = files("src", ".rs");
    for (file, text) in &sources {
        if allowed.iter().any(|place| file.starts_with(place)) {
            continue;
        }
        for (number, line) in code(text) {
            if words.iter().any(|word| names(line, word)) {
                found.push(format!("{file}:{number}: {}", line.trim()));
            }
        }
    }
    for place in allowed {
        let mut inside = sources.iter().filter(|(file, _)| file.starts_with(place));
        let named = |text: &str| code(text).any(|(_, line)| words.iter().any(|w| names(line, w)));
        assert!(
            inside.any(|(_, text)| named(text)),
            "nobody in {place} names {words:?}: adapt the test"
        );
    }
    found
}

#[track_caller]
fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

#[test]
fn only_outbox_speaks_to_postgres_and_only_stream_to_redis() {
    let postgres =
        strangers(&["tokio_postgres", "deadpool_postgres"], &["src/outbox/", "src/demo/"]);
    none("only src/outbox may name the Postgres client", &postgres);
    let redis = strangers(&["redis::", "use redis"], &["src/stream/", "src/demo/"]);
    none("only src/stream may name the Redis client", &redis);
}

#[test]
fn outbox_and_stream_never_mention_each_other() {
    for (here, there) in [("src/outbox", "stream"), ("src/stream", "outbox")] {
        let mut found = Vec::new();
        for (file, text) in files(here, ".rs") {
            for (number, line) in code(&text) {
                let paths = ["crate::", "super::super::", "outbox_relay::"];
                let path = |prefix: &str| {
                    let mut ends =
                        line.match_indices(prefix).map(|(at, _)| &line[at + prefix.len()..]);
                    ends.any(|rest| {
                        let name: String =
                            rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                        // What braces hold would have to be read across lines.
                        name == there || rest.starts_with('{')
                    })
                };
                if paths.into_iter().any(path) {
                    found.push(format!("{file}:{number}: {}", line.trim()));
                }
            }
        }
        none(&format!("{here} may not mention {there}"), &found);
    }
}

#[test]
fn only_retry_names_backoff() {
    none("only src/retry.rs may name backoff", &strangers(&["backoff::"], &["src/retry.rs"]));
}

#[test]
fn pure_files_do_no_io_read_no_clock_and_log_nothing() {
    let pure = [
        "position",
        "entry",
        "batch",
        "group",
        "relay/decide",
        "relay/plan",
        "relay/pace",
        "relay/rota",
        "relay/progress",
        "relay/partition",
        "relay/primary",
        "stream/slot",
        "stream/topology",
        "hash",
        "outbox/cursor",
        "text",
        "worker/queue",
        "setting",
        "review/rules",
        "review/file",
        "review/judge",
        "review/finding",
        "review/tally",
    ];
    let banned = [
        "tokio",
        "tracing",
        "Instant",
        "SystemTime",
        "std::time::Instant",
        "std::fs",
        "std::net",
        "std::env",
        "std::thread",
        "println!",
        "eprintln!",
        "async fn",
        "uuid::Uuid::new",
    ];
    let mut found = Vec::new();
    for name in pure {
        let file = format!("src/{name}.rs");
        let text =
            std::fs::read_to_string(root().join(&file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        let text = text.split("#[cfg(test)]").next().unwrap();
        for (number, line) in code(text) {
            if banned.iter().any(|word| names(line, word)) {
                found.push(format!("{file}:{number}: {}", line.trim()));
            }
        }
    }
    none("these files must stay pure", &found);
}

#[test]
fn lines_and_files_are_short_enough_to_be_read() {
    let mut found = Vec::new();
    let trees = [("src", ".rs"), ("src", ".lua"), ("tests", ".rs"), ("sql/queries", ".sql")];
    for (file, text) in trees.into_iter().flat_map(|(folder, ending)| files(folder, ending)) {
        for (number, line) in (1..).zip(text.lines()) {
            let columns = line.chars().count();
            if columns > LONGEST_LINE {
                found.push(format!("{file}:{number} has {columns} columns"));
            }
        }
        let lines = text.lines().count();
        if file.starts_with("src/") && lines > LONGEST_FILE {
            found.push(format!("{file} has {lines} lines"));
        }
    }
    none(&format!("at most {LONGEST_LINE} columns, and {LONGEST_FILE} lines in src"), &found);
}

#[test]
fn each_query_says_who_calls_it_and_what_it_locks_and_is_used_once() {
    let (mut found, sources) = (Vec::new(), files("src", ".rs"));
    for (file, text) in files("sql/queries", ".sql") {
        let name = Path::new(&file).file_stem().unwrap().to_string_lossy().into_owned();
        let head: Vec<&str> = text.lines().take_while(|line| line.starts_with("--")).collect();
        if !head.first().is_some_and(|line| line.starts_with(&format!("-- outbox.{name}: "))) {
            found.push(format!("{file} does not start with `-- outbox.{name}: `"));
        }
        for part in ["-- Called by:", "-- Locks:"] {
            if !head.iter().any(|line| line.starts_with(part)) {
                found.push(format!("{file} does not say `{part}`"));
            }
        }
        let uses = |text: &str| {
            text.matches(&format!("include_str!(\"../../sql/queries/{name}.sql\")")).count()
        };
        let users: Vec<&str> =
            sources.iter().flat_map(|(user, text)| vec![user.as_str(); uses(text)]).collect();
        let [user] = users[..] else {
            found.push(format!("{file} is included by {users:?}, not by exactly one"));
            continue;
        };
        let caller = user.trim_start_matches("src/").trim_end_matches(".rs").replace('/', "::");
        if !head.iter().any(|line| line.starts_with("-- Called by:") && line.contains(&caller)) {
            found.push(format!("{file} does not say that {caller} calls it"));
        }
    }
    for (file, text) in files("src", ".lua") {
        for part in ["-- Called by:", "-- Keys:"] {
            if !text.lines().any(|line| line.starts_with(part)) {
                found.push(format!("{file} does not say `{part}`"));
            }
        }
    }
    none("queries", &found);
}

#[test]
fn no_sql_is_put_together_by_format() {
    // Checked by hand: the name of one of two functions, and numbers of milliseconds.
    let allowed = BTreeSet::from([
        "src/outbox/migrate.rs: select outbox.{function}(",
        "src/outbox/connect.rs: set statement_timeout = {",
    ]);
    let words = [
        "select", "insert", "update", "delete", "with", "create", "alter", "drop", "grant", "set",
        "lock", "call", "truncate", "notify", "listen",
    ];
    let (mut found, mut seen) = (Vec::new(), 0);
    for (file, text) in
        files("src", ".rs").iter().filter(|(file, _)| !file.starts_with("src/demo/"))
    {
        for (at, _) in text.match_indices("format!(") {
            let Some(literal) = text[at + 8..].trim_start().strip_prefix('"') else { continue };
            let (first, _) = literal.split_once(' ').unwrap_or((literal, ""));
            if !words.contains(&first.to_lowercase().as_str()) {
                continue;
            }
            let called = format!("{file}: {literal}");
            match allowed.iter().any(|allowed| called.starts_with(allowed)) {
                true => seen += 1,
                false => found.push(format!("{file}: {}", literal.lines().next().unwrap())),
            }
        }
    }
    none("SQL takes its values as parameters", &found);
    assert_eq!(seen, allowed.len(), "the list of what is allowed is old");
}

/// Variable and default of each flag.
type Flags = BTreeMap<String, (String, String)>;

/// What `run --help` says.
fn flags_of_help() -> Flags {
    let help = command(&["run", "--help"], &[]).out;
    let (mut flags, mut flag) = (Flags::new(), String::new());
    for line in help.lines().map(str::trim) {
        // Either may be broken to a line of its own.
        let after = |start: &str| {
            let (_, rest) = line.split_once(start)?;
            Some(rest.split(']').next().unwrap_or_default().to_owned())
        };
        if line.starts_with("--") {
            flag = line.split_whitespace().next().unwrap().to_owned();
            flags.entry(flag.clone()).or_default();
        }
        if let Some(variable) = after("[env: ") {
            flags.get_mut(&flag).unwrap().0 = variable.split('=').next().unwrap().to_owned();
        }
        if let Some(default) = after("[default: ") {
            flags.get_mut(&flag).unwrap().1 = default;
        }
    }
    flags
}

/// What the table in the README says.
fn flags_of_readme() -> Flags {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("README.md");
    let header = "| flag | variable | default | meaning |\n";
    let (_, table) = readme.split_once(header).expect("README.md has a table with these columns");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| {
        let cells: Vec<String> = row.split('|').map(|cell| cell.trim().replace('`', "")).collect();
        assert!(
            cells.len() >= 6 && !cells[4].is_empty(),
            "README.md: {row} says nothing about itself"
        );
        (cells[1].clone(), (cells[2].clone(), cells[3].clone()))
    })
    .collect()
}

#[test]
fn the_readme_lists_exactly_the_settings_of_the_program() {
    let (program, readme) = (flags_of_help(), flags_of_readme());
    assert!(program.contains_key("--lease") && program.len() > 10, "help was misread: {program:?}");
    let mut found = Vec::new();
    for flag in program.keys().chain(readme.keys()).collect::<BTreeSet<_>>() {
        let shown = |(variable, default): &(String, String)| {
            // The program shows an empty default as two quotes.
            (variable.clone(), default.replace("\"\"", ""))
        };
        match (program.get(flag).map(shown), readme.get(flag).map(shown)) {
            (Some(is), Some(says)) if is == says => {}
            (Some(is), Some(says)) => {
                found.push(format!("{flag} is {is:?}, README.md says {says:?}"));
            }
            (Some(is), None) => found.push(format!("{flag} {is:?} is missing in README.md")),
            (None, _) => found.push(format!("{flag} is in README.md and not in the program")),
        }
    }
    none("README.md and `outbox-relay run --help` differ", &found);
}

/// What stands in quotes after `start`, wherever it stands, in lower case.
fn quoted_after(text: &str, start: &str, quote: char) -> Vec<String> {
    let rests = text.match_indices(start).map(|(at, _)| &text[at + start.len()..]);
    let words = rests.filter_map(|rest| rest.strip_prefix(quote)?.split(quote).next());
    words.map(str::to_lowercase).collect()
}

#[test]
fn the_user_in_redis_gets_the_rights_that_the_program_uses_and_no_others() {
    let rights = outbox_relay::stream::rights("");
    let in_cluster = outbox_relay::stream::rights_in_cluster();
    let of_review = outbox_relay::stream::rights_of_review();
    let all = format!("{rights} {in_cluster} {of_review}");
    let granted = all.split(" +").skip(1).map(|name| name.split('|').next().unwrap());
    let granted: BTreeSet<String> = granted.map(str::to_owned).collect();
    // A script is begun with one of two and puts its XADD together; a doctor asks for settings where it may.
    let mut used = BTreeSet::from(["eval", "evalsha", "xadd"].map(str::to_owned));
    for text in files("src/stream", ".lua").values() {
        used.extend(quoted_after(text, "call(", '\''));
    }
    for (file, text) in files("src/stream", ".rs") {
        if !file.ends_with("rights.rs") {
            used.extend(quoted_after(&text, "cmd(", '"'));
        }
    }
    // A drill is held by somebody else.
    assert!(used.remove("flushdb"), "the sources were misread: {used:?}");
    // Sentinels are asked as somebody else, and waiting needs a setting.
    assert!(used.remove("sentinel"), "the sources were misread: {used:?}");
    // Workers read as a user of their own.
    assert!(used.remove("xreadgroup"), "the sources were misread: {used:?}");
    assert!(used.remove("wait") && used.remove("waitaof"), "the sources were misread: {used:?}");
    assert!(used.remove("config") && used.len() > 20, "the sources were misread: {used:?}");
    assert_eq!(granted, used);
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let line = format!("ACL SETUSER relay on >password {rights}\n");
    assert!(readme.contains(&line), "README.md does not say {line}");
    for besides in [in_cluster, of_review] {
        let line = format!("ACL SETUSER relay {besides}\n");
        assert!(readme.contains(&line), "README.md does not say {line}");
    }
}

#[test]
fn the_readme_shows_a_review_as_it_is_printed() {
    let readme = std::fs::read_to_string(root().join("README.md")).unwrap();
    let golden = std::fs::read_to_string(root().join("tests/golden/review.txt")).unwrap();
    let (shown, _) = golden.split_once("---\n").unwrap();
    assert!(readme.contains(shown), "README.md does not show {shown}");
}
