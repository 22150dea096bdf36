//! A node over gRPC. Names are resolved at each connection, which is made when first needed.

use std::error::Error;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use proto::wire::ledger_client::LedgerClient;
use proto::wire::proofs_client::ProofsClient;
use proto::{Problem, ProblemKind, wire};
use tls::Identity;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{ConnectError, Request, Response, Status};
use traces::Parent;

use crate::access::{Way, refusal};
use crate::api::{AttestationStream, BatchStream, EvidenceStream, LedgerApi, UpdateStream};
use crate::client::ConfigurationFault;

/// Largest message taken. A bundle's worth of submissions (4 MiB) fits with room for larger limits later.
const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// A node in the same region answers a connection in milliseconds; then the next endpoint is worth trying.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection without a sign of life for interval and timeout is given up.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// HTTP/2 windows: several messages of submissions on the way over any distance.
const STREAM_WINDOW_BYTES: u32 = 8 * 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 16 * 1024 * 1024;
/// Messages queued in a pipeline before sending waits; each may hold many submissions, so few suffice.
const PIPELINE_MESSAGES: usize = 4;

/// A node at an address.
#[derive(Debug, Clone)]
pub(crate) struct GrpcNode {
    channel: Channel,
}

impl GrpcNode {
    /// A node at `address` (`host:port` or a URI). Connects when first used; must be called on a runtime.
    pub(crate) fn new(address: &str, tls: Option<&Identity>) -> Result<Self, ConfigurationFault> {
        let Way { endpoint, connector } = Way::to(address, tls)?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let channel = match connector {
            Some(connector) => endpoint.connect_with_connector_lazy(connector),
            None => endpoint.connect_lazy(),
        };
        Ok(Self { channel })
    }

    fn proofs(&self) -> ProofsClient<Channel> {
        ProofsClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    fn stub(&self) -> LedgerClient<Channel> {
        LedgerClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// A status as a problem. Where no connection could be made the request never left.
fn problem(status: &Status) -> Problem {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            if let Some(problem) = refusal(error) {
                return problem;
            }
            return Problem::new(ProblemKind::Unreachable, format!("{status}: {error}"));
        }
        source = error.source();
    }
    Problem::from(status)
}

fn answer<T>(result: Result<Response<T>, Status>) -> Result<T, Problem> {
    result.map(Response::into_inner).map_err(|status| problem(&status))
}

macro_rules! unary {
    ($name:ident, $request:ident, $response:ident) => {
        unary!(stub: $name, $request, $response);
    };
    ($service:ident: $name:ident, $request:ident, $response:ident) => {
        fn $name(&self, request: wire::$request) -> BoxFuture<'static, Result<wire::$response, Problem>> {
            let mut stub = self.$service();
            let mut request = Request::new(request);
            Parent::current().name_in(request.metadata_mut().as_mut());
            async move { answer(stub.$name(request).await) }.boxed()
        }
    };
}

impl LedgerApi for GrpcNode {
    unary!(submit, SubmitRequest, SubmitResponse);
    unary!(get_transaction, GetTransactionRequest, TransactionStatus);
    unary!(get_receipt, GetReceiptRequest, GetReceiptResponse);
    unary!(get_head, GetHeadRequest, GetHeadResponse);
    unary!(get_consistency, GetConsistencyRequest, GetConsistencyResponse);
    unary!(list_holdings, ListHoldingsRequest, ListHoldingsResponse);
    unary!(get_cluster, GetClusterRequest, ClusterInfo);
    unary!(proofs: submit_attestation, SubmitAttestationRequest, SubmitAttestationResponse);
    unary!(proofs: get_attestation, GetAttestationRequest, GetAttestationResponse);
    unary!(proofs: list_attestations, ListAttestationsRequest, ListAttestationsResponse);
    unary!(proofs: get_proof_status, GetProofStatusRequest, ProofStatus);

    fn watch_evidence(
        &self,
        request: wire::WatchEvidenceRequest,
    ) -> BoxFuture<'static, Result<EvidenceStream, Problem>> {
        let mut stub = self.proofs();
        async move {
            let evidence = answer(stub.watch_evidence(request).await)?;
            Ok(evidence.map(|message| message.map_err(|status| problem(&status))).boxed())
        }
        .boxed()
    }

    fn watch_attestations(
        &self,
        request: wire::WatchAttestationsRequest,
    ) -> BoxFuture<'static, Result<AttestationStream, Problem>> {
        let mut stub = self.proofs();
        async move {
            let attestations = answer(stub.watch_attestations(request).await)?;
            Ok(attestations.map(|message| message.map_err(|status| problem(&status))).boxed())
        }
        .boxed()
    }

    fn submit_batches(&self) -> BoxFuture<'static, Result<BatchStream, Problem>> {
        let mut stub = self.stub();
        async move {
            let (outgoing, requests) = mpsc::channel(PIPELINE_MESSAGES);
            let responses = answer(stub.submit_batches(ReceiverStream::new(requests)).await)?;
            let incoming = responses.map(|message| message.map_err(|status| problem(&status))).boxed();
            Ok(BatchStream { outgoing, incoming })
        }
        .boxed()
    }

    fn watch_updates(&self, request: wire::WatchUpdatesRequest) -> BoxFuture<'static, Result<UpdateStream, Problem>> {
        let mut stub = self.stub();
        async move {
            let updates = answer(stub.watch_updates(request).await)?;
            Ok(updates.map(|message| message.map_err(|status| problem(&status))).boxed())
        }
        .boxed()
    }
}
