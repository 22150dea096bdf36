//! HTTP: JSON for people and scripts, health for orchestrators, metrics for Prometheus. Translates only; answers
//! come from [`crate::api`].
//!
//! Everything that goes wrong is `application/problem+json` (RFC 9457) with the number that `seriatim explain` knows.

mod failure;
mod health;
mod query;
mod reads;
mod submit;
mod updates;

use std::future::Future;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use validator::ValidatorService;

use crate::api::Api;
use crate::metrics;

/// Largest request, in bytes: a bundle of 4 MiB in hexadecimal, with room for larger limits later.
const BODY_BYTES_MAX: usize = 32 * 1024 * 1024;

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
        .route("/errors", get(reads::errors))
        .route("/errors/{code}", get(reads::error));
    Router::new()
        .nest("/v1", v1)
        .merge(health::node_router())
        .route("/metrics", get(node_metrics))
        .fallback(failure::no_such_path)
        .method_not_allowed_fallback(failure::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
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

/// Serves on a listener until `stop` resolves, and then until the requests under way are done.
///
/// # Errors
/// Where the listener fails.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    axum::serve(listener, router).with_graceful_shutdown(stop).await
}
