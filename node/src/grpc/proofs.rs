//! The service `Proofs`.

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use proto::convert::Consistency;
use proto::wire::proofs_server::Proofs;
use proto::{Problem, wire};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::api::Api;
use crate::api::proofs::bytes_of;

/// Answers provers and auditors.
#[derive(Debug, Clone)]
pub(super) struct ProofsService {
    api: Api,
}

impl ProofsService {
    pub(super) const fn new(api: Api) -> Self {
        Self { api }
    }
}

fn fresh(consistency: Option<&wire::Consistency>) -> Result<Consistency, Status> {
    Consistency::of(consistency).map_err(|fault| Problem::from(fault).into())
}

fn numbered((number, attestation): (u64, Bytes)) -> wire::NumberedAttestation {
    wire::NumberedAttestation { number, attestation }
}

#[tonic::async_trait]
impl Proofs for ProofsService {
    type WatchEvidenceStream = BoxStream<'static, Result<wire::BatchEvidence, Status>>;
    type WatchAttestationsStream = BoxStream<'static, Result<wire::NumberedAttestation, Status>>;

    async fn watch_evidence(
        &self,
        request: Request<wire::WatchEvidenceRequest>,
    ) -> Result<Response<Self::WatchEvidenceStream>, Status> {
        let evidence = self.api.watch_evidence(request.into_inner().from_batch)?;
        let told = |evidence: Result<_, Problem>| {
            evidence.map(|(batch, record)| wire::BatchEvidence { batch, record }).map_err(Status::from)
        };
        Ok(Response::new(ReceiverStream::new(evidence).map(told).boxed()))
    }

    async fn submit_attestation(
        &self,
        request: Request<wire::SubmitAttestationRequest>,
    ) -> Result<Response<wire::SubmitAttestationResponse>, Status> {
        self.api.submit_attestation(request.into_inner().attestation).await?;
        Ok(Response::new(wire::SubmitAttestationResponse {}))
    }

    async fn get_attestation(
        &self,
        request: Request<wire::GetAttestationRequest>,
    ) -> Result<Response<wire::GetAttestationResponse>, Status> {
        let wire::GetAttestationRequest { batch, consistency } = request.into_inner();
        let found = self.api.attestations_of(batch, fresh(consistency.as_ref())?).await?;
        let attestations = found.iter().map(|(number, attestation)| numbered((*number, bytes_of(attestation))));
        Ok(Response::new(wire::GetAttestationResponse { attestations: attestations.collect() }))
    }

    async fn list_attestations(
        &self,
        request: Request<wire::ListAttestationsRequest>,
    ) -> Result<Response<wire::ListAttestationsResponse>, Status> {
        let wire::ListAttestationsRequest { from, limit, consistency } = request.into_inner();
        let (found, next) = self.api.attestations(from, limit, fresh(consistency.as_ref())?).await?;
        let attestations = found.into_iter().map(numbered).collect();
        Ok(Response::new(wire::ListAttestationsResponse { attestations, next: next.unwrap_or_default() }))
    }

    async fn watch_attestations(
        &self,
        request: Request<wire::WatchAttestationsRequest>,
    ) -> Result<Response<Self::WatchAttestationsStream>, Status> {
        let attestations = self.api.watch_attestations(request.into_inner().from)?;
        let told = |found: Result<_, Problem>| found.map(numbered).map_err(Status::from);
        Ok(Response::new(ReceiverStream::new(attestations).map(told).boxed()))
    }

    async fn get_proof_status(
        &self,
        request: Request<wire::GetProofStatusRequest>,
    ) -> Result<Response<wire::ProofStatus>, Status> {
        let consistency = fresh(request.get_ref().consistency.as_ref())?;
        Ok(Response::new((&self.api.proof_status(consistency).await?).into()))
    }
}
