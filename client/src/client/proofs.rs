//! Evidence and attestations: what nodes hand out for others to judge.

use std::sync::Arc;

use bytes::Bytes;
use checker::Attestation;
use futures::StreamExt;
use futures::stream::BoxStream;
use ledger::batch::BatchRecord;
use ledger::identifier::canonical_bytes;
use proto::convert::{self, Consistency, ProofStatus};
use proto::{Problem, ProblemKind, wire};

use super::{Client, doubtful};
use crate::api::LedgerApi;

/// An attestation and its number among all of the ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbered {
    /// From 1, in the order of the log.
    pub number: u64,
    /// The attestation. Nothing of it was verified.
    pub attestation: Attestation,
}

impl Client {
    /// The records of batches in order, from a batch (from 1) on, as a node tells them. The stream ends with the first
    /// problem; ask again from the batch after the last one seen.
    ///
    /// # Errors
    /// Where no node answers in time.
    pub async fn evidence(&self, from_batch: u64) -> Result<BoxStream<'static, Result<BatchRecord, Problem>>, Problem> {
        let attempt = |node: Arc<dyn LedgerApi>| async move {
            node.watch_evidence(wire::WatchEvidenceRequest { from_batch }).await
        };
        let stream = self.call(attempt).await?;
        let read = |message: Result<wire::BatchEvidence, Problem>| {
            let message = message?;
            let record: BatchRecord =
                convert::canonical("record", &message.record).map_err(|fault| doubtful(&fault))?;
            if record.head.batch != message.batch {
                return Err(Problem::new(ProblemKind::DoubtfulAnswer, "the record is of another batch"));
            }
            Ok(record)
        };
        Ok(stream.map(read).boxed())
    }

    /// Has an attestation ordered.
    ///
    /// # Errors
    /// Where it is refused, and why; where no node answers in time: then it may be ordered or not.
    pub async fn submit_attestation(&self, attestation: &Attestation) -> Result<(), Problem> {
        let bytes = Bytes::from(canonical_bytes(attestation));
        let attempt = |node: Arc<dyn LedgerApi>| {
            let request = wire::SubmitAttestationRequest { attestation: bytes.clone() };
            async move { node.submit_attestation(request).await.map(|_answer| ()) }
        };
        self.call(attempt).await
    }

    /// What provers said of a batch. Nothing of it was verified.
    ///
    /// # Errors
    /// Where no node answers in time, or the batch was pruned.
    pub async fn attestations_of(&self, batch: u64) -> Result<Vec<Numbered>, Problem> {
        let attempt = |node: Arc<dyn LedgerApi>| async move {
            let answer = node.get_attestation(wire::GetAttestationRequest { batch, consistency: None }).await?;
            answer.attestations.iter().map(numbered).collect()
        };
        self.call(attempt).await
    }

    /// All attestations from a number (from 1) on that the ledger has kept. Nothing of them was verified.
    ///
    /// # Errors
    /// Where no node answers in time.
    pub async fn attestations(&self, from: u64) -> Result<Vec<Numbered>, Problem> {
        let mut all: Vec<Numbered> = Vec::new();
        let mut next = from;
        loop {
            let attempt = |node: Arc<dyn LedgerApi>| async move {
                let request = wire::ListAttestationsRequest { from: next, limit: 0, consistency: None };
                let page = node.list_attestations(request).await?;
                let found = page.attestations.iter().map(numbered).collect::<Result<Vec<_>, _>>()?;
                Ok((found, page.next))
            };
            let (found, more) = self.call(attempt).await?;
            let goes_on = more > next && !found.is_empty();
            all.extend(found);
            if more == 0 {
                return Ok(all);
            }
            if !goes_on {
                return Err(Problem::new(ProblemKind::DoubtfulAnswer, "the pages of attestations do not go on"));
            }
            next = more;
        }
    }

    /// Attestations as they are ordered, from a number on (0: the next one). The stream ends with the first problem.
    ///
    /// # Errors
    /// Where no node answers in time.
    pub async fn watch_attestations(
        &self,
        from: u64,
    ) -> Result<BoxStream<'static, Result<Numbered, Problem>>, Problem> {
        let attempt = |node: Arc<dyn LedgerApi>| async move {
            node.watch_attestations(wire::WatchAttestationsRequest { from }).await
        };
        let stream = self.call(attempt).await?;
        Ok(stream.map(|message| message.and_then(|message| numbered(&message))).boxed())
    }

    /// How far the ledger is proved, by its own account.
    ///
    /// # Errors
    /// Where no node answers in time.
    pub async fn proof_status(&self, consistency: Consistency) -> Result<ProofStatus, Problem> {
        let attempt = |node: Arc<dyn LedgerApi>| async move {
            let request = wire::GetProofStatusRequest { consistency: Some(consistency.into()) };
            let status = node.get_proof_status(request).await?;
            ProofStatus::try_from(&status).map_err(|fault| doubtful(&fault))
        };
        self.call(attempt).await
    }
}

fn numbered(wire: &wire::NumberedAttestation) -> Result<Numbered, Problem> {
    let attestation = convert::canonical("attestation", &wire.attestation).map_err(|fault| doubtful(&fault))?;
    Ok(Numbered { number: wire.number, attestation })
}
