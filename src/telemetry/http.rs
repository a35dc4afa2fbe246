//! `/metrics`, `/livez` and `/readyz`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::{debug, info};

use super::metrics::Metrics;
use crate::error::{Error, Kind, Result};

/// Requests served at a time; more wait to be accepted.
const CONNECTIONS: usize = 64;
/// Who does not send a request within this time is cut off.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers to whether the relay is alive, and ready: `Ok` with a word, or `Err` with what is wrong.
pub trait Probes: Send + Sync + 'static {
    /// The loop moves, whatever Postgres and Redis do.
    fn live(&self) -> Result<String, String>;
    /// Postgres and Redis answer. A standby is ready.
    fn ready(&self) -> Result<String, String>;
}

/// A port that is listened on.
#[derive(Debug)]
pub struct Endpoint(TcpListener);

impl Endpoint {
    /// Begins to listen, and logs where.
    ///
    /// # Errors
    /// `Refused` if the address cannot be had.
    pub async fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await.map_err(|error| {
            let context = format!(
                "cannot listen on {address} for /metrics, /livez and /readyz; choose another address \
                 with OUTBOX_HTTP, such as 127.0.0.1:0 for any free port"
            );
            Error::caused_by(Kind::Refused, context, error)
        })?;
        let bound = listener.local_addr().unwrap_or(address);
        info!(address = %bound, "serving /metrics, /livez and /readyz on http://{bound}");
        Ok(Self(listener))
    }

    /// Serves until it is dropped.
    pub async fn serve(self, metrics: Metrics, probes: impl Probes) {
        let (probes, places) = (Arc::new(probes), Arc::new(Semaphore::new(CONNECTIONS)));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let stream = match self.0.accept().await {
                Ok((stream, _)) => stream,
                // As when file descriptors run out: it passes.
                Err(error) => {
                    debug!("cannot accept an HTTP connection: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            };
            let (metrics, probes) = (metrics.clone(), probes.clone());
            let service = service_fn(move |request: Request<Incoming>| {
                let response = answer(request.method(), request.uri().path(), &metrics, &*probes);
                async move { Ok::<_, Infallible>(response) }
            });
            tokio::spawn(async move {
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(PATIENCE)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = connection.await {
                    debug!("an HTTP connection ended: {error}");
                }
                drop(place);
            });
        }
    }
}

fn answer(
    method: &Method,
    path: &str,
    metrics: &Metrics,
    probes: &impl Probes,
) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match path {
        "/metrics" => text(StatusCode::OK, metrics.render()),
        "/livez" => probe(probes.live()),
        "/readyz" => probe(probes.ready()),
        _ => text(StatusCode::NOT_FOUND, "there are /metrics, /livez and /readyz\n".to_owned()),
    }
}

fn probe(answer: Result<String, String>) -> Response<Full<Bytes>> {
    match answer {
        Ok(word) => text(StatusCode::OK, format!("{word}\n")),
        Err(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    // The version is that of the Prometheus text format, and harmless for the others.
    let kind = hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response
}
