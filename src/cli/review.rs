//! `outbox-relay review`: what Redis holds, against a file of rules.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::print::{self, Progress};
use crate::config::{DatabaseArgs, Problems, RedisArgs};
use crate::error::Result;
use crate::outbox::Database;
use crate::relay::operate::review;
use crate::review::{EXAMPLE, Finding, Removal, Removed, Review, Wish, bytes};
use crate::setting::count;
use crate::stream::Server;
use crate::text::{counted, grouped, shortened, wrapped};

const RULE: usize = 26;
const OWNER: usize = 24;

#[derive(Args, Debug)]
pub(super) struct ReviewArgs {
    #[command(flatten)]
    redis: RedisArgs,
    /// Says which streams are the relay's; without it those that look like it are taken for them
    #[command(flatten)]
    database: DatabaseArgs,
    /// Rules for all that Redis holds: `--example` prints some
    #[arg(long, env = "OUTBOX_REVIEW_RULES", value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Keys looked at, at most; of a cluster, each primary has its share [1 to 1000000000]
    #[arg(long, value_name = "COUNT", default_value = "1000000")]
    keys: String,
    /// Remove what its rule says may go once it is stale, each after a last look
    #[arg(long)]
    remove: bool,
    /// With --remove, only list what would be removed
    #[arg(long, requires = "remove")]
    dry_run: bool,
    /// Print an example of a file of rules, and end
    #[arg(long)]
    example: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

impl ReviewArgs {
    /// What is asked for.
    ///
    /// # Errors
    /// `Usage` with every problem.
    pub(super) fn read(&self) -> Result<(Option<Database>, Server, Wish)> {
        let mut problems = Problems::default();
        let server = self.redis.read(&mut problems);
        let database = self.database.read_if_given(&mut problems);
        let missing = "is not set; set it or --rules; `outbox-relay review --example` prints some";
        let rules = self.rules.as_deref().ok_or_else(|| missing.to_owned());
        let rules = problems.keep("OUTBOX_REVIEW_RULES", rules);
        let rules = rules.and_then(|file| problems.rules(file));
        let keys = problems.keep("--keys", count(&self.keys, 1, 1_000_000_000));
        let removal = match (self.remove, self.dry_run) {
            (false, _) => Removal::No,
            (true, true) => Removal::Dry,
            (true, false) => Removal::Yes,
        };
        let wish = rules.zip(keys).map(|(rules, keys)| Wish { rules, keys: keys as u64, removal });
        let all = database.zip(server).zip(wish);
        problems.end(all.map(|((database, server), wish)| (database, server, wish)))
    }
}

/// Exit 0 if nothing is wrong, 1 if something is, 2 if not all could be checked.
pub(super) async fn run(args: ReviewArgs) -> Result<ExitCode> {
    if args.example {
        print::text_out(EXAMPLE)?;
        return Ok(ExitCode::SUCCESS);
    }
    let (database, server, wish) = args.read()?;
    let mut progress = Progress::new("looking at", "keys");
    let mut tell = |done, all| progress.tell("Redis", done, all);
    let review = review(database.as_ref(), &server, &wish, &mut tell).await;
    match args.json {
        true => print::json(&review)?,
        false => print::text_out(&told(&review))?,
    }
    Ok(match (review.unchecked.is_empty(), review.findings.is_empty()) {
        (false, _) => ExitCode::from(2),
        (true, true) => ExitCode::SUCCESS,
        (true, false) => ExitCode::FAILURE,
    })
}

fn told(review: &Review) -> String {
    let mut text = String::new();
    if !review.findings.is_empty() {
        text.push_str(&row(["finding", "rule", "count", "memory", "owner"]));
    }
    review.findings.iter().for_each(|finding| text.push_str(&finding_told(finding)));
    text.push_str(&removed_told(&review.removed));
    for unchecked in &review.unchecked {
        text.push_str(&labelled("not checked", unchecked));
    }
    let (keys, relay) = (counted(review.keys, "key", "keys"), grouped(review.relay_keys));
    let part = if review.whole { "all there are" } else { "NOT ALL there are" };
    text.push_str(&format!("{keys} of Redis at {}, {part}; {relay} of the relay\n", review.redis));
    let findings = counted(review.findings.len() as u64, "finding", "findings");
    text.push_str(&match (review.unchecked.is_empty(), review.findings.is_empty()) {
        (true, true) => "all of them are as the rules say\n".to_owned(),
        (true, false) => format!("{findings}, the worst first\n"),
        (false, _) => format!("{findings}; not all could be checked\n"),
    });
    text
}

/// A line of the table.
fn row(cells: [&str; 5]) -> String {
    let [finding, rule, count, memory, owner] = cells;
    let line = format!("{finding:<16} {rule:<RULE$} {count:>11} {memory:>12}  {owner}");
    format!("{}\n", line.trim_end())
}

fn finding_told(finding: &Finding) -> String {
    let rule = finding.rule.as_deref().map_or("-".to_owned(), |keys| shortened(keys, RULE));
    let owner = finding.owner.as_deref().map_or("-".to_owned(), |owner| shortened(owner, OWNER));
    let memory = if finding.bytes > 0 { bytes(finding.bytes) } else { "-".to_owned() };
    let cells = [finding.finding.as_str(), &rule, &grouped(finding.count), &memory, &owner];
    let mut text = row(cells);
    for example in &finding.examples {
        text.push_str(&format!("{}\n", wrapped(&format!("{}: {}", example.key, example.seen), 4)));
    }
    text.push_str(&labelled("    why", &finding.why));
    // On one line, however long: a command that is broken cannot be pasted.
    text.push_str(&format!("{:<13}{}\n\n", "    fix", finding.fix));
    text
}

fn removed_told(removed: &Removed) -> String {
    let all = removed.keys + removed.consumers;
    if all == 0 {
        return String::new();
    }
    let did = if removed.dry_run { "would remove" } else { "removed" };
    let keys = counted(removed.keys, "key", "keys");
    let consumers = counted(removed.consumers, "consumer", "consumers");
    let mut text = format!("{did} {keys} and {consumers}:\n");
    for name in &removed.names {
        text.push_str(&format!("    {name}\n"));
    }
    let more = all - removed.names.len() as u64;
    if more > 0 {
        text.push_str(&format!("    and {} more\n", grouped(more)));
    }
    text.push('\n');
    text
}

/// A sentence behind a word, its further lines below its first.
fn labelled(label: &str, sentence: &str) -> String {
    format!("{label:<13}{}\n", wrapped(sentence, 13).trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::review::{Fault, Found, Rules, Tally};

    #[test]
    fn the_table_is_the_golden_one() {
        let rules = Rules::read(EXAMPLE).expect("the example is right");
        let mut tally = Tally::default();
        let mut add = |key: &str, fault: Fault, count: u64, seen: &str| {
            let place = rules.of(key.as_bytes()).map(|(place, _)| place);
            let found = Found { fault, count, seen: seen.to_owned() };
            tally.add(place, key.as_bytes(), 72, found);
        };
        add("lock:order:42:receipt", Fault::StaleLock, 1, "never expires, untouched for 2 h 4 m");
        add(
            "lock:order:7:receipt",
            Fault::StaleLock,
            1,
            "expires in 1 d 3 h, untouched for 12.0 s",
        );
        add(
            "jobs:mail",
            Fault::StaleEntries,
            3,
            "group mail: 3 entries pending, the longest for 5 h 0 m",
        );
        add("tmp:report", Fault::NoOwner, 1, "a hash, never expires, untouched for 41 d 6 h");
        let findings = tally.findings(&rules);
        let shown = Review {
            redis: "cache-1:6379".to_owned(),
            keys: 120_034,
            relay_keys: 12,
            findings,
            whole: true,
            ..Review::default()
        };
        let names =
            vec!["lock:order:9".to_owned(), "jobs:mail consumer w-1 of group mail".to_owned()];
        let removed = Removed { dry_run: true, keys: 2, consumers: 1, names };
        let unchecked = vec!["which streams the relay fills: Postgres does not answer".to_owned()];
        let part =
            Review { redis: "cache-1:6379".to_owned(), removed, unchecked, ..Review::default() };
        let clean = Review { redis: "cache-1:6379".to_owned(), whole: true, ..Review::default() };
        let told = [shown, part, clean].map(|review| told(&review)).join("---\n");
        assert!(told.lines().all(|line| line.chars().count() <= 100), "{told}");
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/review.txt");
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|set| set == "1") {
            std::fs::write(&file, &told).expect("the golden file can be written");
        }
        assert_eq!(told, std::fs::read_to_string(&file).unwrap_or_default(), "{told}");
    }
}
