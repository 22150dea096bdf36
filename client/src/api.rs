//! The seam between the client and a node: what a node offers to applications, as a trait.

use std::fmt::{self, Debug};

use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use futures::stream::BoxStream;
use proto::{Problem, ProblemKind, wire};
use tokio::sync::mpsc;

/// Batches as they are applied.
pub type UpdateStream = BoxStream<'static, Result<wire::Update, Problem>>;

/// Records of batches in order.
pub type EvidenceStream = BoxStream<'static, Result<wire::BatchEvidence, Problem>>;

/// Attestations as they are ordered.
pub type AttestationStream = BoxStream<'static, Result<wire::NumberedAttestation, Problem>>;

/// Not every node of every kind has evidence.
fn unsupported<T: Send + 'static>() -> BoxFuture<'static, Result<T, Problem>> {
    ready(Err(Problem::new(ProblemKind::Unsupported, "this node hands out no evidence"))).boxed()
}

/// A pipeline of submissions. Dropping it ends it.
pub struct BatchStream {
    /// Submissions to the node; sending waits while the node is slow.
    pub outgoing: mpsc::Sender<wire::SubmitRequest>,
    /// Results, in any order. An error or the end is final.
    pub incoming: BoxStream<'static, Result<wire::SubmitResponse, Problem>>,
}

impl Debug for BatchStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("BatchStream")
    }
}

/// One node, connected when first needed and again whenever the connection is lost. Implementations add no retry
/// and no deadline: the caller does both, and drops the future of a call that it no longer wants.
pub trait LedgerApi: Send + Sync + Debug + 'static {
    /// Submits and waits for the outcomes.
    fn submit(&self, request: wire::SubmitRequest) -> BoxFuture<'static, Result<wire::SubmitResponse, Problem>>;

    /// Opens a pipeline of submissions.
    fn submit_batches(&self) -> BoxFuture<'static, Result<BatchStream, Problem>>;

    /// What is known about a transaction.
    fn get_transaction(
        &self,
        request: wire::GetTransactionRequest,
    ) -> BoxFuture<'static, Result<wire::TransactionStatus, Problem>>;

    /// Proof of an outcome.
    fn get_receipt(
        &self,
        request: wire::GetReceiptRequest,
    ) -> BoxFuture<'static, Result<wire::GetReceiptResponse, Problem>>;

    /// The newest head.
    fn get_head(&self, request: wire::GetHeadRequest) -> BoxFuture<'static, Result<wire::GetHeadResponse, Problem>>;

    /// Proof that one head continues another.
    fn get_consistency(
        &self,
        request: wire::GetConsistencyRequest,
    ) -> BoxFuture<'static, Result<wire::GetConsistencyResponse, Problem>>;

    /// A page of an owner's live outputs.
    fn list_holdings(
        &self,
        request: wire::ListHoldingsRequest,
    ) -> BoxFuture<'static, Result<wire::ListHoldingsResponse, Problem>>;

    /// Batches as they are applied.
    fn watch_updates(&self, request: wire::WatchUpdatesRequest) -> BoxFuture<'static, Result<UpdateStream, Problem>>;

    /// Batches with everything that nodes keep of them.
    fn watch_evidence(
        &self,
        _request: wire::WatchEvidenceRequest,
    ) -> BoxFuture<'static, Result<EvidenceStream, Problem>> {
        unsupported()
    }

    /// Has an attestation ordered.
    fn submit_attestation(
        &self,
        _request: wire::SubmitAttestationRequest,
    ) -> BoxFuture<'static, Result<wire::SubmitAttestationResponse, Problem>> {
        unsupported()
    }

    /// What provers said of a batch.
    fn get_attestation(
        &self,
        _request: wire::GetAttestationRequest,
    ) -> BoxFuture<'static, Result<wire::GetAttestationResponse, Problem>> {
        unsupported()
    }

    /// Attestations in the order of the log.
    fn list_attestations(
        &self,
        _request: wire::ListAttestationsRequest,
    ) -> BoxFuture<'static, Result<wire::ListAttestationsResponse, Problem>> {
        unsupported()
    }

    /// The same as they come.
    fn watch_attestations(
        &self,
        _request: wire::WatchAttestationsRequest,
    ) -> BoxFuture<'static, Result<AttestationStream, Problem>> {
        unsupported()
    }

    /// How far the ledger is proved.
    fn get_proof_status(
        &self,
        _request: wire::GetProofStatusRequest,
    ) -> BoxFuture<'static, Result<wire::ProofStatus, Problem>> {
        unsupported()
    }

    /// The cluster's description.
    fn get_cluster(&self, request: wire::GetClusterRequest) -> BoxFuture<'static, Result<wire::ClusterInfo, Problem>>;
}
