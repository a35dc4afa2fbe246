//! `outbox-relay demo`: a shop beside two real relays.

use std::process::ExitCode;

use clap::Args;

use crate::demo::{self, DemoOptions};

#[derive(Args, Debug)]
pub(super) struct DemoArgs {
    /// How long the shop is open; longer where losses take longer [5 to 3600]
    #[arg(long, value_name = "COUNT", default_value_t = 20)]
    #[arg(value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
    /// Transactions per second [1 to 2000]
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=2000))]
    rate: u32,
    /// Leave servers and relays up at the end, and say how to connect, until Ctrl-C
    #[arg(long)]
    keep: bool,
}

pub(super) async fn run(args: DemoArgs) -> ExitCode {
    let options = DemoOptions { seconds: args.seconds, rate: args.rate, keep: args.keep };
    match demo::run(options).await {
        Ok(outcome) if outcome.is_clean() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}
