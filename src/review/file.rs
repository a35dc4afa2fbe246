//! The file of rules: TOML, read with everything that is wrong in it told at once. Pure.

use std::collections::HashMap;
use std::ops::Range;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::rules::{Kind, Rule, Rules};
use crate::setting::{count, duration, shown, size};
use crate::text::{counted, line, shortened};

/// An example of such a file, with what each field means.
pub const EXAMPLE: &str = include_str!("example.toml");

/// Bytes of a file, at most.
pub const LARGEST: usize = 1 << 20;
const RULES: usize = 1_000;
const FIELDS: [&str; 12] = [
    "keys",
    "owner",
    "purpose",
    "kind",
    "longest_expiry",
    "reason",
    "biggest",
    "durable",
    "limit",
    "longest_idle",
    "stale_after",
    "stale",
];

impl Rules {
    /// Reads a file of rules.
    ///
    /// # Errors
    /// One sentence for everything that is wrong, each with its line and what to do.
    pub fn read(text: &str) -> Result<Self, Vec<String>> {
        let (document, errors) = DeTable::parse_recoverable(text);
        if !errors.is_empty() {
            let told = errors.iter().map(|error| {
                let at = error.span().map_or(1, |span| line_of(text, &span));
                format!("line {at}: {}", line(error.message(), 300))
            });
            return Err(told.collect());
        }
        let mut problems = Vec::new();
        let rules = read_all(text, document.get_ref(), &mut problems);
        same_twice(text, &rules, &mut problems);
        match problems.is_empty() {
            true => Ok(Self::new(rules.into_iter().map(|(_, rule)| rule).collect())),
            false => Err(problems),
        }
    }
}

/// All rules that are right, each with where it begins.
fn read_all(
    text: &str,
    document: &DeTable<'_>,
    problems: &mut Vec<String>,
) -> Vec<(Range<usize>, Rule)> {
    for (name, _) in document.iter().filter(|(name, _)| name.get_ref() != "rule") {
        let at = line_of(text, &name.span());
        let name = shown(name.get_ref());
        problems.push(format!("line {at}: {name} is unknown here; each rule begins with [[rule]]"));
    }
    let listed = match document.get("rule").map(Spanned::get_ref) {
        Some(DeValue::Array(listed)) if !listed.is_empty() => listed,
        Some(DeValue::Array(_)) | None if problems.is_empty() => {
            problems.push("there is no rule in it; each begins with [[rule]]".to_owned());
            return Vec::new();
        }
        Some(_) if problems.is_empty() => {
            problems.push("rule must be written [[rule]], with two brackets".to_owned());
            return Vec::new();
        }
        _ => return Vec::new(),
    };
    if listed.len() > RULES {
        let (found, most) = (listed.len(), counted(RULES as u64, "rule", "rules"));
        problems.push(format!("there are {found} rules in it; write at most {most}"));
        return Vec::new();
    }
    let read = listed.iter().enumerate().filter_map(|(index, value)| {
        let DeValue::Table(table) = value.get_ref() else {
            let at = line_of(text, &value.span());
            problems.push(format!("line {at}: a rule must be a table, begun by [[rule]]"));
            return None;
        };
        let mut fields = Fields::new(text, table, value.span(), index, problems);
        fields.rule().map(|rule| (value.span(), rule))
    });
    read.collect()
}

/// Two rules of the same keys: nobody could tell which wins.
fn same_twice(text: &str, rules: &[(Range<usize>, Rule)], problems: &mut Vec<String>) {
    let mut seen: HashMap<&str, &Range<usize>> = HashMap::new();
    for (span, rule) in rules {
        if let Some(first) = seen.insert(&rule.keys, span) {
            let (at, first) = (line_of(text, span), line_of(text, first));
            let keys = shown(&rule.keys);
            problems.push(format!(
                "line {at}, rule {keys}: line {first} has a rule of the same keys; keep one of them"
            ));
        }
    }
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    text.as_bytes().iter().take(span.start).filter(|byte| **byte == b'\n').count() + 1
}

/// The fields of one rule.
struct Fields<'a> {
    text: &'a str,
    table: &'a DeTable<'a>,
    span: Range<usize>,
    /// As people find it.
    name: String,
    problems: &'a mut Vec<String>,
}

impl<'a> Fields<'a> {
    fn new(
        text: &'a str,
        table: &'a DeTable<'a>,
        span: Range<usize>,
        index: usize,
        problems: &'a mut Vec<String>,
    ) -> Self {
        let name = match table.get("keys").map(Spanned::get_ref) {
            Some(DeValue::String(keys)) => format!("rule {}", shown(keys)),
            _ => format!("rule number {}", index + 1),
        };
        Self { text, table, span, name, problems }
    }

    /// The rule, if all of it is right.
    fn rule(&mut self) -> Option<Rule> {
        let before = self.problems.len();
        self.refuse_unknown();
        let keys = self.required("keys").and_then(|keys| self.keep("keys", check_keys(&keys)));
        let owner = self.required("owner").and_then(|text| self.keep("owner", words(&text)));
        let purpose = self.required("purpose").and_then(|text| self.keep("purpose", words(&text)));
        let kind = self.required("kind").and_then(|text| self.keep("kind", check_kind(&text)));
        let longest_expiry = kind.and_then(|kind| self.longest_expiry(kind));
        let biggest = self.required("biggest");
        let biggest = biggest.and_then(|text| self.keep("biggest", size(&text, 1 << 10, 1 << 40)));
        let durable = self.durable(kind);
        let limit = self.limit(kind);
        let longest_idle = self.of_queue("longest_idle", kind).then(|| self.time("longest_idle"));
        let stale_after = self.of_keys("stale_after", kind).then(|| self.time("stale_after"));
        let remove = self.stale(kind);
        if self.problems.len() > before {
            return None;
        }
        Some(Rule {
            keys: keys?,
            owner: owner?,
            purpose: purpose?,
            kind: kind?,
            longest_expiry: longest_expiry?,
            biggest: biggest? as u64,
            durable,
            limit,
            longest_idle: longest_idle.flatten(),
            stale_after: stale_after.flatten(),
            remove,
        })
    }

    fn problem(&mut self, field: &str, problem: &str) {
        let span = self.table.get(field).map_or_else(|| self.span.clone(), Spanned::span);
        let (at, name) = (line_of(self.text, &span), &self.name);
        self.problems.push(format!("line {at}, {name}: {field}: {problem}"));
    }

    fn keep<T>(&mut self, field: &str, value: Result<T, String>) -> Option<T> {
        value.map_err(|problem| self.problem(field, &problem)).ok()
    }

    fn refuse_unknown(&mut self) {
        for (field, _) in self.table {
            if !FIELDS.contains(&field.get_ref().as_ref()) {
                let (at, name) = (line_of(self.text, &field.span()), &self.name);
                let field = line(&shortened(field.get_ref(), 60), 60);
                let fields = FIELDS.join(", ");
                self.problems.push(format!(
                    "line {at}, {name}: {field} is no field of a rule; there are {fields}"
                ));
            }
        }
    }

    fn text(&mut self, field: &str) -> Option<String> {
        match self.table.get(field)?.get_ref() {
            DeValue::String(text) => Some(text.clone().into_owned()),
            _ => {
                self.problem(field, "must be text in quotes");
                None
            }
        }
    }

    fn required(&mut self, field: &str) -> Option<String> {
        if !self.table.contains_key(field) {
            self.problem(field, "is missing; every rule says it");
        }
        self.text(field)
    }

    fn time(&mut self, field: &str) -> Option<Duration> {
        let text = self.text(field)?;
        self.keep(field, time(&text))
    }

    /// The outer None if it is wrong, the inner for keys that may stay.
    fn longest_expiry(&mut self, kind: Kind) -> Option<Option<Duration>> {
        let given = self.table.contains_key("longest_expiry");
        let text = match kind {
            Kind::Queue if !given => "none".to_owned(),
            _ => self.required("longest_expiry")?,
        };
        let has_reason = self.table.contains_key("reason");
        let reason = self.text("reason").map(|reason| words(&reason));
        if text != "none" {
            if has_reason {
                self.problem("reason", "goes with longest_expiry = \"none\"; remove it");
            }
            return self.keep("longest_expiry", time(&text)).map(Some);
        }
        match reason {
            _ if kind == Kind::Lock => {
                let what = "a lock must expire, for its worker may die; write a time like \"10m\"";
                self.problem("longest_expiry", what);
            }
            Some(reason) => {
                self.keep("reason", reason);
            }
            None if kind != Kind::Queue => {
                let what =
                    "is missing; say why keys with longest_expiry = \"none\" may stay for ever";
                self.problem("reason", what);
            }
            None => {}
        }
        Some(None)
    }

    fn durable(&mut self, kind: Option<Kind>) -> bool {
        let durable = match self.table.get("durable").map(Spanned::get_ref) {
            None => false,
            Some(DeValue::Boolean(durable)) => *durable,
            Some(_) => {
                self.problem("durable", "must be true or false");
                false
            }
        };
        if durable && kind == Some(Kind::Cache) {
            let what = "a cache may vanish at any time; remove it, or choose another kind";
            self.problem("durable", what);
        }
        durable
    }

    fn limit(&mut self, kind: Option<Kind>) -> Option<u64> {
        if !self.of_queue("limit", kind) {
            return None;
        }
        let text = match self.table.get("limit")?.get_ref() {
            DeValue::Integer(number) => number.as_str().replace('_', ""),
            _ => {
                self.problem("limit", "must be a number of entries without quotes, like 10000");
                return None;
            }
        };
        self.keep("limit", count(&text, 1, 1_000_000_000)).map(|limit| limit as u64)
    }

    /// Whether a field that only queues have may be read.
    fn of_queue(&mut self, field: &str, kind: Option<Kind>) -> bool {
        let wrong = self.table.contains_key(field) && kind.is_some_and(|kind| kind != Kind::Queue);
        if wrong {
            self.problem(field, "is for kind = \"queue\" only; remove it");
        }
        !wrong
    }

    /// Whether a field that queues do not have may be read.
    fn of_keys(&mut self, field: &str, kind: Option<Kind>) -> bool {
        let wrong = self.table.contains_key(field) && kind == Some(Kind::Queue);
        if wrong {
            let what = "a queue itself is never stale, for it holds work; longest_idle says when its \
                        consumers are";
            self.problem(field, what);
        }
        !wrong
    }

    /// Whether what is stale may be removed.
    fn stale(&mut self, kind: Option<Kind>) -> bool {
        let Some(text) = self.text("stale") else { return false };
        let needed = if kind == Some(Kind::Queue) { "longest_idle" } else { "stale_after" };
        match text.as_str() {
            "remove" | "report" if !self.table.contains_key(needed) => {
                self.problem("stale", &format!("needs {needed}, which says when something is"));
                false
            }
            "remove" => true,
            "report" => false,
            _ => {
                let what = format!("{} is neither \"report\" nor \"remove\"", shown(&text));
                self.problem("stale", &what);
                false
            }
        }
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time = duration(text, Duration::from_secs(1), Duration::from_secs(3_650 * 86_400))?;
    match time.subsec_nanos() {
        0 => Ok(time),
        _ => Err(format!("{} is no whole number of seconds", shown(text))),
    }
}

fn words(text: &str) -> Result<String, String> {
    match line(text, 200) {
        words if words.is_empty() => Err("is empty; say it in a few words".to_owned()),
        words => Ok(words),
    }
}

fn check_keys(keys: &str) -> Result<String, String> {
    let start = keys.strip_suffix('*').unwrap_or(keys);
    match () {
        () if keys.is_empty() => {
            Err("is empty; write a key, or how keys begin, like lock:*".into())
        }
        () if keys.len() > 512 => Err("is longer than 512 bytes".into()),
        () if start.contains('*') => Err(format!(
            "{} has a * that is not at its end; a rule is of one key, or of all that begin \
                         alike",
            shown(keys)
        )),
        () => Ok(keys.to_owned()),
    }
}

fn check_kind(text: &str) -> Result<Kind, String> {
    Kind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| {
        let kinds = Kind::ALL.map(Kind::as_str).join(", ");
        format!("{} is none of {kinds}", shown(text))
    })
}

#[cfg(test)]
mod tests;
