//! Probes. Live never depends on others: a node without a leader is not restarted for it.

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;

use crate::api::Api;
use crate::api::status::Health;

/// `/health/live`, `/health/startup`, `/health/ready` of a node.
pub(super) fn node_router() -> Router<Api> {
    Router::new()
        .route("/health/live", get(live))
        .route("/health/startup", get(startup))
        .route("/health/ready", get(ready))
}

/// The same of a validator, which is ready as soon as it answers.
pub(super) fn validator_router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let well = || async { "ready" };
    Router::new().route("/health/live", get(well)).route("/health/startup", get(well)).route("/health/ready", get(well))
}

async fn live(State(api): State<Api>) -> (StatusCode, String) {
    let health = api.health();
    told(!matches!(health, Health::Stopped(_)), &health)
}

async fn startup(State(api): State<Api>) -> (StatusCode, String) {
    let health = api.health();
    told(!matches!(health, Health::Starting | Health::Stopped(_)), &health)
}

async fn ready(State(api): State<Api>) -> (StatusCode, String) {
    let health = api.health();
    told(health == Health::Ready, &health)
}

fn told(well: bool, health: &Health) -> (StatusCode, String) {
    (if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, health.to_string())
}
