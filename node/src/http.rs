//! HTTP: JSON for people and scripts, health for orchestrators, metrics for Prometheus. Translates only; answers
//! come from [`crate::api`].
//!
//! Everything that goes wrong is `application/problem+json` (RFC 9457) with the number that `seriatim explain` knows.

mod failure;
mod health;
mod proofs;
mod query;
mod reads;
mod submit;
mod updates;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use proto::{Problem, ProblemKind};
use tls::Identity;
use tokio_util::io::ReaderStream;
use tonic::transport::server::Connected;
use tower::util::MapRequest;
use validator::ValidatorService;

use crate::api::Api;
use crate::connections::Connections;
use crate::metrics::{self, ProverMetrics};

use failure::Failure;

/// A request's head is complete within this time, the first of a connection and every further one: a connection that
/// asks nothing for so long is closed.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

/// Where a prover's metrics come from.
pub type ProverFigures = Arc<dyn Fn() -> ProverMetrics + Send + Sync>;
/// Where the newest copy of a prover's replay comes from, opened.
pub type ReplayCopies = Arc<dyn Fn() -> std::io::Result<Option<std::fs::File>> + Send + Sync>;

/// What a prover's server asks of the role.
#[derive(Clone)]
pub struct ProverSource {
    /// Its metrics.
    pub figures: ProverFigures,
    /// Its newest copy.
    pub copies: ReplayCopies,
}

impl std::fmt::Debug for ProverSource {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("ProverSource")
    }
}

type Validator = (ValidatorService, Option<Identity>);
type Prover = (ProverSource, Option<Identity>);

/// What a node serves.
pub fn node_router(api: &Api) -> Router {
    let v1 = Router::new()
        .route("/submissions", post(submit::submit))
        .route("/status", get(reads::status))
        .route("/cluster", get(reads::cluster))
        .route("/transactions/{id}", get(reads::transaction))
        .route("/receipts/{id}", get(reads::receipt))
        .route("/holdings/{party}", get(reads::holdings))
        .route("/heads/latest", get(reads::latest_head))
        .route("/consistency", get(reads::proof))
        .route("/updates", get(updates::updates))
        .route("/evidence/{batch}", get(proofs::evidence))
        .route("/proofs", get(proofs::status))
        .route("/attestations", get(proofs::attestations))
        .route("/attestations/watch", get(proofs::watch))
        .route("/attestations/{batch}", get(proofs::attestations_of))
        .route("/errors", get(reads::errors))
        .route("/errors/{code}", get(reads::error));
    Router::new()
        .nest("/v1", v1)
        .merge(health::node_router())
        .route("/metrics", get(node_metrics))
        .fallback(failure::no_such_path)
        .method_not_allowed_fallback(failure::no_such_method)
        .with_state(api.clone())
}

/// What a validator serves; the identity is what secures its connections.
pub fn validator_router(service: &ValidatorService, identity: Option<&Identity>) -> Router {
    Router::new()
        .merge(health::validator_router())
        .route("/metrics", get(validator_metrics))
        .fallback(failure::no_such_path)
        .with_state((service.clone(), identity.cloned()))
}

/// What a prover shows: that it is alive, its metrics, and where others can begin. The identity is what secures its
/// connections.
pub fn prover_router(source: ProverSource, identity: Option<&Identity>) -> Router {
    Router::new()
        .merge(health::validator_router())
        .route("/metrics", get(prover_metrics))
        .route("/v1/replay-copy", get(replay_copy))
        .fallback(failure::no_such_path)
        .with_state((source, identity.cloned()))
}

async fn prover_metrics(State((source, identity)): State<Prover>) -> impl IntoResponse {
    exposition(metrics::of_prover((source.figures)(), identity.as_ref()))
}

/// The newest copy and its length in bytes.
fn newest_copy(copies: &ReplayCopies) -> std::io::Result<Option<(u64, std::fs::File)>> {
    let Some(copy) = copies()? else { return Ok(None) };
    Ok(Some((copy.metadata()?.len(), copy)))
}

async fn replay_copy(State((source, _)): State<Prover>) -> Result<Response, Failure> {
    let opened = tokio::task::spawn_blocking(move || newest_copy(&source.copies)).await;
    let found = opened.map_err(std::io::Error::from).flatten().map_err(|fault| {
        tracing::error!(%fault, "the newest copy of the replay cannot be read");
        Problem::new(ProblemKind::StorageFailed, "this prover's copies cannot be read; its log says why")
    })?;
    let none = "this prover has kept no copy yet: it keeps one when it stops, and once in a while";
    let (length, copy) = found.ok_or_else(|| Problem::new(ProblemKind::NotFound, none))?;
    let headers =
        [(header::CONTENT_TYPE, "application/octet-stream".to_owned()), (header::CONTENT_LENGTH, length.to_string())];
    // copies are files of any size: each reader has a piece of one in memory
    let pieces = ReaderStream::new(tokio::fs::File::from_std(copy));
    Ok((headers, Body::from_stream(pieces)).into_response())
}

async fn node_metrics(State(api): State<Api>) -> impl IntoResponse {
    exposition(metrics::of_node(&api).await)
}

async fn validator_metrics(State((service, identity)): State<Validator>) -> impl IntoResponse {
    exposition(metrics::of_validator(&service, identity.as_ref()))
}

fn exposition(text: Result<String, std::fmt::Error>) -> impl IntoResponse {
    match text {
        Ok(text) => (StatusCode::OK, [(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text),
        Err(fault) => (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, "text/plain")], fault.to_string()),
    }
}

/// Serves connections until `stop` resolves, and then until the requests under way are done.
pub async fn serve(connections: Connections, router: Router, stop: impl Future<Output = ()>) {
    let mut server = Builder::new(TokioExecutor::new()).http1_only();
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_PATIENCE);
    let under_way = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        // a connection that is lost with its accepting was not answered yet
        let connection = tokio::select! {
            connection = connections.accept() => connection,
            () = &mut stop => break,
        };
        let caller = connection.connect_info();
        let from = move |mut request: Request<_>| {
            request.extensions_mut().insert(caller.clone());
            request
        };
        let service = TowerToHyperService::new(MapRequest::new(router.clone(), from));
        let served = server.serve_connection(TokioIo::new(connection), service).into_owned();
        let served = under_way.watch(served);
        drop(tokio::spawn(async move {
            if let Err(error) = served.await {
                tracing::debug!(%error, "a connection ended");
            }
        }));
    }
    under_way.shutdown().await;
}
