//! `outbox-relay adopt`: consent to another cluster.

use std::process::ExitCode;

use clap::Args;

use super::print;
use crate::config::ServerArgs;
use crate::error::Result;
use crate::relay::operate::{Adoption, Found};
use crate::text::counted;

#[derive(Args, Debug)]
pub(super) struct AdoptArgs {
    #[command(flatten)]
    pub(super) servers: ServerArgs,
    /// Say what was found and change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(super) async fn run(args: AdoptArgs) -> Result<ExitCode> {
    let (database, server) = args.servers.servers()?;
    let adoption = Adoption::look(&database, &server).await?;
    let found = adoption.found().clone();
    print::text_out(&told(&found))?;
    if args.dry_run || !(found.moved() || found.redis_is_elsewhere()) {
        return Ok(ExitCode::SUCCESS);
    }
    if found.moved() {
        eprintln!("comparing all rows with the log; writers wait until that is done");
    }
    let mut text = String::new();
    if let Some(adopted) = adoption.consent().await? {
        let sealed = counted(adopted.sealed, "row", "rows");
        text.push_str(&format!("sealed {sealed} that the log did not have\n"));
        if adopted.restamped > 0 {
            let rows = counted(adopted.restamped, "row", "rows");
            text.push_str(&format!(
                "{rows} carried transaction ids that are still to come here; made past\n"
            ));
        }
    }
    text.push_str("adopted: start the relay with `outbox-relay run`, then `outbox-relay verify`\n");
    print::text_out(&text).map(|()| ExitCode::SUCCESS)
}

fn told(found: &Found) -> String {
    let redis = match &found.redis {
        Some(system) => format!("last filled from cluster {system}"),
        None => "has no identity yet".to_owned(),
    };
    let verdict = match (found.moved(), found.redis_is_elsewhere()) {
        (false, false) => "nothing to adopt: the outbox lives where it is",
        (false, true) => {
            "this Redis was filled by another copy of the outbox; it becomes this one's"
        }
        (true, _) => {
            "the outbox was restored, copied or upgraded in place; it lives here from now on.\n\
             The copy in the other cluster must not write to this Redis any more"
        }
    };
    format!(
        "outbox    {}\nmade in   cluster {}\nthis is   cluster {}\nRedis     {redis}\n{verdict}\n",
        found.outbox, found.system, found.here
    )
}
