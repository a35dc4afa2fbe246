//! `outbox-relay run`: the relay, until a signal ends it.

use std::process::ExitCode;

use crate::config::RunArgs;
use crate::error::{Error, Kind, Result};
use crate::relay::{self, Health, Stopper};
use crate::telemetry::{Endpoint, Metrics};

pub(super) async fn run(args: &RunArgs) -> Result<ExitCode> {
    let settings = args.settings()?;
    let (stopper, stop) = Stopper::new();
    let signals = stop_on_signals(stopper)?;
    let health = Health::new(Metrics::new(settings.metric_streams));
    let endpoint = Endpoint::bind(settings.http).await?;
    let served = tokio::spawn(endpoint.serve(health.metrics().clone(), health.clone()));
    let ran = Box::pin(relay::run(settings, &health, stop)).await;
    served.abort();
    signals.abort();
    ran.map(|()| ExitCode::SUCCESS)
}

fn stop_on_signals(stopper: Stopper) -> Result<tokio::task::JoinHandle<()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let listen = |kind| {
        signal(kind).map_err(|e| Error::caused_by(Kind::Internal, "cannot listen for signals", e))
    };
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping: entries in flight arrive first; a second signal stops at once");
        stopper.stop();
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        std::process::exit(1);
    }))
}
