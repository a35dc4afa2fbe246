//! `outbox-relay doctor`: what is wrong, why it matters, and what mends it.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use super::print;
use crate::config::{Problems, RunArgs};
use crate::error::Result;
use crate::relay::Settings;
use crate::relay::operate::{Diagnosis, Finding, doctor};
use crate::setting::duration;
use crate::text::{counted, wrapped};

#[derive(Args, Debug)]
pub(super) struct DoctorArgs {
    #[command(flatten)]
    run: RunArgs,
    /// A transaction that is open for this long is worth a word [1s to 30d]
    #[arg(long, value_name = "TIME", default_value = "5m")]
    long_transaction: String,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

impl DoctorArgs {
    /// The settings that a relay would have, and what a long transaction is.
    ///
    /// # Errors
    /// `Usage` with every problem.
    pub(super) fn read(&self) -> Result<(Settings, Duration)> {
        let mut problems = Problems::default();
        let settings = self.run.read(&mut problems);
        let (least, most) = (Duration::from_secs(1), Duration::from_secs(30 * 86_400));
        let long = duration(&self.long_transaction, least, most);
        let long = problems.keep("--long-transaction", long);
        problems.end(settings.zip(long))
    }
}

/// Exit 0 if nothing is wrong, 1 if something is, 2 if something that matters could not be checked.
pub(super) async fn run(args: DoctorArgs) -> Result<ExitCode> {
    let (settings, long) = args.read()?;
    let diagnosis = doctor(&settings, long).await;
    match args.json {
        true => print::json(&diagnosis)?,
        false => print::text_out(&told(&diagnosis))?,
    }
    Ok(match (diagnosis.incomplete, diagnosis.findings.is_empty()) {
        (true, _) => ExitCode::from(2),
        (false, true) => ExitCode::SUCCESS,
        (false, false) => ExitCode::FAILURE,
    })
}

fn told(diagnosis: &Diagnosis) -> String {
    let mut text = String::new();
    diagnosis.findings.iter().for_each(|finding| text.push_str(&finding_told(finding)));
    for unchecked in &diagnosis.unchecked {
        text.push_str(&labelled("not checked", unchecked));
    }
    if !diagnosis.unchecked.is_empty() {
        text.push('\n');
    }
    let findings = diagnosis.findings.len() as u64;
    text.push_str(&match (diagnosis.incomplete, findings) {
        (false, 0) => "nothing is wrong with Postgres, Redis and the configuration\n".to_owned(),
        (false, _) => format!("{}, the worst first\n", counted(findings, "finding", "findings")),
        (true, _) => {
            format!("{}; not all could be checked\n", counted(findings, "finding", "findings"))
        }
    });
    text
}

fn finding_told(finding: &Finding) -> String {
    let area = format!("{:?}", finding.area).to_lowercase();
    let mut text = labelled(&area, &finding.what);
    text.push_str(&labelled("  why", &finding.why));
    // On one line, however long: a command that is broken cannot be pasted.
    text.push_str(&format!("{:<15}{}\n\n", "  fix", finding.fix));
    text
}

/// A sentence behind a word, its further lines below its first.
fn labelled(label: &str, sentence: &str) -> String {
    format!("{label:<15}{}\n", wrapped(sentence, 15).trim_start())
}
