//! HTTP: JSON for people and scripts, health for orchestrators, metrics for Prometheus. Translates only; answers
//! come from [`crate::api`].

mod health;

use std::future::Future;

use axum::Router;
use tokio::net::TcpListener;
use validator::ValidatorService;

use crate::api::Api;

/// What a node serves.
pub fn node_router(api: &Api) -> Router {
    Router::new().merge(health::node_router()).with_state(api.clone())
}

/// What a validator serves.
pub fn validator_router(_service: &ValidatorService) -> Router {
    health::validator_router()
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
