//! What was found so far, by rule and fault, in bounded memory. Pure.

use std::collections::BTreeMap;

use super::finding::{Example, Fault, Finding, NAMED, fix, why};
use super::judge::Found;
use super::rules::{Rule, Rules};
use crate::stream::quoted;
use crate::text::shortened;

/// What was found so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// By fault, and by the place of the rule; keys without a rule come last.
    found: BTreeMap<(Fault, usize), Group>,
    servers: Vec<Finding>,
}

#[derive(Debug, Default)]
struct Group {
    count: u64,
    bytes: u64,
    examples: Vec<Example>,
    first: String,
}

/// Characters of a key that are shown.
const NAME: usize = 300;

/// The place of keys that no rule is about.
const NO_RULE: usize = usize::MAX;

impl Tally {
    /// A fault of a key, which takes so much memory.
    pub(crate) fn add(&mut self, rule: Option<usize>, key: &[u8], bytes: u64, found: Found) {
        let group = self.found.entry((found.fault, rule.unwrap_or(NO_RULE))).or_default();
        group.count += found.count;
        group.bytes += bytes;
        if group.examples.len() < NAMED {
            let key = shown(key);
            if group.examples.is_empty() {
                group.first.clone_from(&key);
            }
            group.examples.push(Example { key, seen: found.seen });
        }
    }

    /// A fault of a server.
    pub(super) fn add_server(&mut self, name: &str, fault: Fault, seen: String, fix: String) {
        let example = Example { key: name.to_owned(), seen };
        match self.servers.iter_mut().find(|finding| finding.finding == fault) {
            Some(finding) => {
                finding.count += 1;
                finding.examples.push(example);
                finding.examples.truncate(NAMED);
            }
            None => self.servers.push(Finding {
                finding: fault,
                rule: None,
                owner: None,
                count: 1,
                bytes: 0,
                examples: vec![example],
                why: why(fault).to_owned(),
                fix,
            }),
        }
    }

    /// All of it, the worst first.
    pub(crate) fn findings(self, rules: &Rules) -> Vec<Finding> {
        let mut findings = self.servers;
        findings.extend(self.found.into_iter().map(|((fault, place), group)| {
            let rule: Option<&Rule> = rules.all().get(place);
            Finding {
                finding: fault,
                rule: rule.map(|rule| rule.keys.clone()),
                owner: rule.map(|rule| rule.owner.clone()),
                count: group.count,
                bytes: group.bytes,
                examples: group.examples,
                why: why(fault).to_owned(),
                fix: fix(fault, rule, &group.first),
            }
        }));
        findings.sort_by_key(|finding| finding.finding);
        findings
    }
}

/// A key as people see it, and as redis-cli reads it back unless it is very long.
pub(super) fn shown(key: &[u8]) -> String {
    let name = match std::str::from_utf8(key) {
        Ok(text) => quoted(text),
        Err(_) => format!("\"{}\"", key.escape_ascii()),
    };
    shortened(&name, NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_key_can_be_shown() {
        let shown = [&b"lock:1"[..], b"a b", b"\xff\x00\"", "größe".as_bytes()].map(shown);
        assert_eq!(shown, ["lock:1", "\"a b\"", "\"\\xff\\x00\\\"\"", "\"größe\""]);
        assert_eq!(super::shown(&[b'x'; 10_000]).chars().count(), NAME);
    }

    #[test]
    fn many_keys_with_one_fault_are_one_finding() {
        let rules = Rules::read(crate::review::EXAMPLE).expect("the example is right");
        let mut tally = Tally::default();
        for n in 0..100 {
            let found = Found { fault: Fault::NoExpiry, count: 1, seen: n.to_string() };
            tally.add(None, format!("key:{n}").as_bytes(), 10, found);
        }
        let found = Found { fault: Fault::StaleEntries, count: 7, seen: String::new() };
        tally.add(Some(0), b"jobs:1", 5, found);
        let findings = tally.findings(&rules);
        let told: Vec<_> =
            findings.iter().map(|f| (f.finding, f.count, f.bytes, f.examples.len())).collect();
        assert_eq!(told, [(Fault::StaleEntries, 7, 5, 1), (Fault::NoExpiry, 100, 1_000, NAMED)]);
        assert_eq!(findings[0].rule.as_ref(), Some(&rules.all()[0].keys));
        assert_eq!(findings[1].rule, None);
    }
}
