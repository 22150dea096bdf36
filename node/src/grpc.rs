//! gRPC: everything a node or a validator serves on one address. Translates only; answers come from [`crate::api`].

mod admin;
mod ledger;
mod proofs;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use proto::wire::FILE_DESCRIPTOR_SET;
use proto::wire::admin_server::AdminServer;
use proto::wire::ledger_server::{Ledger, LedgerServer};
use proto::wire::proofs_server::{Proofs, ProofsServer};
use seams::Service;
use tonic::codegen::http;
use tonic::service::{LayerExt, Routes, RoutesBuilder};
use tonic::transport::Server;
use tonic::{Request, Status};
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};
use tower::util::MapRequestLayer;

use crate::access::{peer_of, permit_admin};
use crate::api::Api;
use crate::api::status::Health;
use crate::connections::Connections;
use crate::intake::REQUEST_BYTES_MAX;
use crate::network::{
    CONNECTION_WINDOW_BYTES, FRAME_BYTES_MAX, InternalServer, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES,
};

/// A connection without a sign of life for both together is closed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Calls and streams of one connection at once. A client that wants more opens a stream and batches.
const STREAMS_MAX: u32 = 1_024;
/// Calls of one connection that their caller gave up before they were looked at. Whoever keeps more of them waiting than
/// this is attacking (CVE-2023-44487), and loses the connection; a node that stood still for some seconds finds many of
/// its leader's heartbeats so, and must not lose the snapshot that comes over the same connection.
const ABANDONED_CALLS_MAX: usize = 2_048;
/// What a connection begins with: the preface of HTTP/2, in bytes (RFC 9113, section 3.4).
pub(crate) const PREFACE_BYTES: usize = 24;
/// How often grpc.health.v1 is told how the node is.
const HEALTH_INTERVAL: Duration = Duration::from_millis(250);
/// What grpc.health.v1 calls the service of clients.
const LEDGER_SERVICE: &str = "seriatim.v1.Ledger";

/// What a node serves.
///
/// # Errors
/// Never with the descriptors that this program carries.
pub fn node_routes(api: &Api) -> anyhow::Result<Routes> {
    let (reporter, health) = health_reporter();
    drop(seams::tasks::spawn(report_health(api.clone(), reporter)));
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let ledger = LedgerServer::new(ledger_service(api))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let proofs = ProofsServer::new(proofs_service(api))
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let intake = api.intake().clone();
    let metered = MapRequestLayer::new(move |request: http::Request<_>| request.map(|body| intake.framed(body)));
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(metered.named_layer(ledger))
        .add_service(metered.named_layer(proofs))
        .add_service(AdminServer::with_interceptor(admin::AdminService::new(api.clone()), operators_only))
        .add_service(InternalServer::serving(Arc::new(api.clone())))
        .add_service(health)
        .add_service(reflection);
    Ok(routes.routes())
}

/// Lets through whoever may look at the cluster from inside and change it.
fn operators_only(request: Request<()>) -> Result<Request<()>, Status> {
    permit_admin(peer_of(request.extensions()))?;
    Ok(request)
}

/// What clients are served, for who calls it in the process.
#[must_use]
pub fn ledger_service(api: &Api) -> impl Ledger + use<> {
    ledger::LedgerService::new(api.clone())
}

/// What provers and auditors are served, for who calls it in the process.
#[must_use]
pub fn proofs_service(api: &Api) -> impl Proofs + use<> {
    proofs::ProofsService::new(api.clone())
}

/// What a validator serves. It is well as long as it answers.
#[must_use]
pub fn validator_routes(service: Arc<dyn Service>) -> Routes {
    let (_reporter, health) = health_reporter();
    let mut routes = RoutesBuilder::default();
    routes.add_service(InternalServer::serving(service)).add_service(health);
    routes.routes()
}

/// Serves connections until `stop` resolves, and then until the calls under way are done.
///
/// # Errors
/// Where the server cannot be set up.
pub async fn serve(
    connections: Connections,
    routes: Routes,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let incoming = Box::pin(connections.incoming());
    Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_pending_accept_reset_streams(Some(ABANDONED_CALLS_MAX))
        .add_routes(routes)
        .serve_with_incoming_shutdown(incoming, stop)
        .await
}

/// Tells grpc.health.v1 whether clients should come, for ever.
async fn report_health(api: Api, reporter: HealthReporter) {
    let mut told = None;
    loop {
        let status = if api.health() == Health::Ready { ServingStatus::Serving } else { ServingStatus::NotServing };
        if told != Some(status) {
            reporter.set_service_status("", status).await;
            reporter.set_service_status(LEDGER_SERVICE, status).await;
            told = Some(status);
        }
        tokio::time::sleep(HEALTH_INTERVAL).await;
    }
}
