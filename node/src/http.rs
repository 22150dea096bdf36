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
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use validator::ValidatorService;

use crate::api::Api;
use crate::connections::Connections;
use crate::metrics::{self, ProverMetrics};

/// A request's head is complete within this time, the first of a connection and every further one: a connection that
/// asks nothing for so long is closed.
const HEADER_PATIENCE: Duration = Duration::from_secs(10);

/// Where a prover's metrics come from.
pub type ProverFigures = Arc<dyn Fn() -> ProverMetrics + Send + Sync>;

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

/// What a validator serves.
pub fn validator_router(service: &ValidatorService) -> Router {
    Router::new()
        .merge(health::validator_router())
        .route("/metrics", get(validator_metrics))
        .fallback(failure::no_such_path)
        .with_state(service.clone())
}

/// What a prover shows: that it is alive, and its metrics.
pub fn prover_router(figures: ProverFigures) -> Router {
    Router::new()
        .merge(health::validator_router())
        .route("/metrics", get(prover_metrics))
        .fallback(failure::no_such_path)
        .with_state(figures)
}

async fn prover_metrics(State(figures): State<ProverFigures>) -> impl IntoResponse {
    exposition(metrics::of_prover(figures()))
}

async fn node_metrics(State(api): State<Api>) -> impl IntoResponse {
    exposition(metrics::of_node(&api).await)
}

async fn validator_metrics(State(service): State<ValidatorService>) -> impl IntoResponse {
    exposition(metrics::of_validator(&service))
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
        let service = TowerToHyperService::new(router.clone());
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
