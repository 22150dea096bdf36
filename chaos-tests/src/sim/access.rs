//! A simulated node as the client library reaches it: the services that production serves, over the simulated network.

use std::fmt;

use bytes::Bytes;
use client::{BatchStream, EvidenceStream, LedgerApi, Problem, ProblemKind, UpdateStream};
use futures::future::{BoxFuture, FutureExt, ready};
use futures::stream::{self, BoxStream, StreamExt};
use node::api::Api;
use node::grpc;
use prost::Message;
use proto::wire;
use proto::wire::ledger_server::Ledger;
use proto::wire::proofs_server::Proofs;
use seams::{Address, TaskGroup};
use sequencer::NodeId;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::sim::cluster::Cluster;
use crate::sim::network::Network;

/// Messages of a stream that have come and were not taken yet.
const ON_THE_WAY_MAX: usize = 64;

/// What becomes of what a node tells, on its way to whoever asked.
pub(super) type Tamper = fn(Bytes) -> Bytes;

/// The way from somebody to a node.
#[derive(Clone)]
pub(super) struct Access {
    network: Network,
    cluster: Cluster,
    here: Address,
    node: NodeId,
    /// Where somebody is between them: what becomes of records of batches.
    tamper: Option<Tamper>,
}

impl fmt::Debug for Access {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Access({} -> {})", self.here, self.node)
    }
}

impl Access {
    /// The way from an address to a node.
    #[must_use]
    pub(super) fn new(network: &Network, cluster: &Cluster, here: &Address, node: NodeId) -> Self {
        let (network, cluster) = (network.clone(), cluster.clone());
        Self { network, cluster, here: here.clone(), node, tamper: None }
    }

    /// The same with somebody between.
    #[must_use]
    pub(super) fn tampered(self, tamper: Tamper) -> Self {
        Self { tamper: Some(tamper), ..self }
    }

    /// Takes a request there; what it finds.
    async fn arrive(&self, request: &impl Message) -> Result<(TaskGroup, Api), Problem> {
        let there = self.cluster.address(self.node);
        if !self.network.hop(&self.here, there, None, &request.encode_to_vec()).await {
            // silence: whoever asked has patience of a certain length
            std::future::pending::<()>().await;
        }
        let refused = || Problem::new(ProblemKind::Unreachable, "nobody listens there");
        self.cluster.api(self.node).ok_or_else(refused)
    }

    /// Takes an answer back.
    async fn come_back(&self, answer: &[u8]) {
        if !self.network.hop(self.cluster.address(self.node), &self.here, None, answer).await {
            std::future::pending::<()>().await;
        }
    }

    async fn ask<Q, A, F>(self, request: Q, serve: impl FnOnce(Api, Request<Q>) -> F) -> Result<A, Problem>
    where
        Q: Message,
        A: Message + Send + 'static,
        F: Future<Output = Result<Response<A>, Status>> + Send + 'static,
    {
        let (group, api) = self.arrive(&request).await?;
        let served = group.spawn(serve(api, Request::new(request))).await.map_err(|_ended| broken())?;
        let answer = served.map(Response::into_inner);
        self.come_back(&answer.as_ref().map(Message::encode_to_vec).unwrap_or_default()).await;
        answer.map_err(|status| Problem::from(&status))
    }

    /// Opens a stream of answers, which come in order until the connection breaks.
    async fn open<Q, A, S, F>(
        self,
        request: Q,
        serve: impl FnOnce(Api, Request<Q>) -> F,
    ) -> Result<BoxStream<'static, Result<A, Problem>>, Problem>
    where
        Q: Message,
        A: Message + Send + 'static,
        S: stream::Stream<Item = Result<A, Status>> + Send + 'static,
        F: Future<Output = Result<Response<S>, Status>> + Send + 'static,
    {
        let (group, api) = self.arrive(&request).await?;
        let served = group.spawn(serve(api, Request::new(request))).await.map_err(|_ended| broken())?;
        let told = served.map_err(|status| Problem::from(&status))?.into_inner().boxed();
        self.come_back(&[]).await;
        let (sender, arrived) = mpsc::channel(ON_THE_WAY_MAX);
        drop(tokio::spawn(self.carry(told, sender)));
        Ok(ReceiverStream::new(arrived).boxed())
    }

    /// Brings what is told, in order, whether or not it is asked for yet.
    async fn carry<A: Message>(
        self,
        mut told: impl stream::Stream<Item = Result<A, Status>> + Unpin,
        arrived: mpsc::Sender<Result<A, Problem>>,
    ) {
        let there = self.cluster.address(self.node);
        while let Some(message) = told.next().await {
            let carried = match message {
                // what is lost inside a connection is sent again, or the connection breaks
                Ok(message) if self.network.hop(there, &self.here, None, &message.encode_to_vec()).await => Ok(message),
                Ok(_lost) => Err(broken()),
                Err(status) => Err(Problem::from(&status)),
            };
            let ended = carried.is_err();
            if arrived.send(carried).await.is_err() || ended {
                return;
            }
        }
        drop(arrived.send(Err(broken())).await);
    }
}

/// What was sent may have arrived.
fn broken() -> Problem {
    Problem::from(&Status::unavailable("the connection broke"))
}

macro_rules! unary {
    ($service:ident: $name:ident, $request:ident, $response:ident) => {
        fn $name(&self, request: wire::$request) -> BoxFuture<'static, Result<wire::$response, Problem>> {
            let serve = |api: Api, request| async move { grpc::$service(&api).$name(request).await };
            self.clone().ask(request, serve).boxed()
        }
    };
}

impl LedgerApi for Access {
    unary!(ledger_service: submit, SubmitRequest, SubmitResponse);
    unary!(ledger_service: get_transaction, GetTransactionRequest, TransactionStatus);
    unary!(ledger_service: get_receipt, GetReceiptRequest, GetReceiptResponse);
    unary!(ledger_service: get_head, GetHeadRequest, GetHeadResponse);
    unary!(ledger_service: get_consistency, GetConsistencyRequest, GetConsistencyResponse);
    unary!(ledger_service: list_holdings, ListHoldingsRequest, ListHoldingsResponse);
    unary!(ledger_service: get_cluster, GetClusterRequest, ClusterInfo);
    unary!(proofs_service: submit_attestation, SubmitAttestationRequest, SubmitAttestationResponse);
    unary!(proofs_service: get_attestation, GetAttestationRequest, GetAttestationResponse);
    unary!(proofs_service: list_attestations, ListAttestationsRequest, ListAttestationsResponse);
    unary!(proofs_service: get_proof_status, GetProofStatusRequest, ProofStatus);

    fn watch_evidence(
        &self,
        request: wire::WatchEvidenceRequest,
    ) -> BoxFuture<'static, Result<EvidenceStream, Problem>> {
        let (access, tamper) = (self.clone(), self.tamper);
        async move {
            let serve = |api: Api, request| async move { grpc::proofs_service(&api).watch_evidence(request).await };
            let told = access.open(request, serve).await?;
            let tampered = move |mut evidence: wire::BatchEvidence| {
                evidence.record =
                    tamper.map_or_else(|| evidence.record.clone(), |tamper| tamper(evidence.record.clone()));
                evidence
            };
            Ok(told.map(move |evidence| evidence.map(tampered)).boxed())
        }
        .boxed()
    }

    fn watch_updates(&self, _request: wire::WatchUpdatesRequest) -> BoxFuture<'static, Result<UpdateStream, Problem>> {
        ready(Err(Problem::new(ProblemKind::Unsupported, "nobody in the simulation watches updates"))).boxed()
    }

    fn submit_batches(&self) -> BoxFuture<'static, Result<BatchStream, Problem>> {
        ready(Err(Problem::new(ProblemKind::Unsupported, "nobody in the simulation has a pipeline"))).boxed()
    }
}
