//! What was found so far, by rule and fault, in bounded memory. Pure.

use std::collections::BTreeMap;

use super::finding::{Example, Fault, Finding, NAMED, fix, why};
use super::judge::Found;
use super::rules::{Rule, Rules};
use crate::stream::quoted;

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

/// A key as people see it.
pub(super) fn shown(key: &[u8]) -> String {
    quoted(&String::from_utf8_lossy(key))
}
