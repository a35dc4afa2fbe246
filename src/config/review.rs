//! What reviews are told: the file of rules, how often, and whether they may remove.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

use super::Problems;
use crate::relay::Reviews;
use crate::review::{LARGEST, Rules};
use crate::setting::{duration, switch};

/// How a relay reviews Redis.
#[derive(Args, Clone, Debug, Default)]
pub struct ReviewArgs {
    /// Rules for all that Redis holds; with them the leader looks at it as `outbox-relay review` does
    #[arg(long, env = "OUTBOX_REVIEW_RULES", value_name = "FILE")]
    pub review_rules: Option<PathBuf>,
    /// With rules, Redis is reviewed this often [1m to 7d]
    #[arg(long, env = "OUTBOX_REVIEW_EVERY", value_name = "TIME", default_value = "1h")]
    pub review_every: String,
    /// A review removes what its rule says may go once it is stale [on, off]
    #[arg(long, env = "OUTBOX_REVIEW_REMOVE", value_name = "SWITCH", default_value = "off")]
    pub review_remove: String,
}

impl ReviewArgs {
    /// The outer None if something is wrong, the inner if there are no rules.
    pub(super) fn read(&self, problems: &mut Problems) -> Option<Option<Reviews>> {
        let (least, most) = (Duration::from_secs(60), Duration::from_secs(7 * 86_400));
        let every = duration(&self.review_every, least, most);
        let every = problems.keep("OUTBOX_REVIEW_EVERY", every);
        let remove = problems.keep("OUTBOX_REVIEW_REMOVE", switch(&self.review_remove));
        let Some(file) = &self.review_rules else { return every.and(remove).map(|_| None) };
        let rules = problems.rules(file)?;
        Some(Some(Reviews { rules, every: every?, remove: remove? }))
    }
}

impl Problems {
    /// The rules in a file, or everything that is wrong with them remembered.
    pub(crate) fn rules(&mut self, file: &Path) -> Option<Rules> {
        let text = self.keep("OUTBOX_REVIEW_RULES", read(file))?;
        let told = |problems: Vec<String>| {
            for problem in problems {
                self.0.push(format!("OUTBOX_REVIEW_RULES: {}: {problem}", file.display()));
            }
        };
        Rules::read(&text).map_err(told).ok()
    }
}

fn read(file: &Path) -> Result<String, String> {
    let cannot = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", file.display());
    let found = std::fs::metadata(file).map_err(|error| cannot(&error))?;
    if found.len() > LARGEST as u64 {
        return Err(cannot(&format_args!("it is larger than {} MiB", LARGEST >> 20)));
    }
    std::fs::read_to_string(file).map_err(|error| cannot(&error))
}
