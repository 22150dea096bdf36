//! Proofs: the evidence that nodes hand out, and what provers say of it.

use std::time::Duration;

use bytes::Bytes;
use checker::Attestation;
use ledger::identifier::canonical_bytes;
use proto::convert::{self, Consistency};
use proto::{Problem, ProblemKind};
use storage::state::{ATTESTATIONS_MAX, AttestationRefusal, ProofStatus};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Api;
use super::readers::{send, until_left};
use crate::gateway::ConfigureFault;

/// Batches that wait for one reader: each may be as large as a bundle.
const EVIDENCE_WAITING_MAX: usize = 1;
/// Attestations that wait for one reader.
const ATTESTATIONS_WAITING_MAX: usize = 16;
/// Attestations that are read at once for a reader.
const ATTESTATIONS_AT_ONCE: usize = 64;
/// How long ordering an attestation may take.
const ORDER_PATIENCE: Duration = Duration::from_secs(10);

/// A batch's number and its record, in canonical bytes.
pub type Evidence = (u64, Bytes);
/// An attestation's number and its canonical bytes.
pub type Numbered = (u64, Bytes);

impl Api {
    /// The records of batches in order, from a batch (from 1) on, as they are stored, until something fails or the receiver is
    /// dropped.
    ///
    /// # Errors
    /// While the node starts.
    pub fn watch_evidence(&self, from_batch: u64) -> Result<mpsc::Receiver<Result<Evidence, Problem>>, Problem> {
        self.replica()?;
        let (sender, evidence) = mpsc::channel(EVIDENCE_WAITING_MAX);
        let api = self.clone();
        self.spawn(until_left(
            sender,
            move |sender| async move { api.send_evidence(from_batch.max(1), &sender).await },
        ));
        Ok(evidence)
    }

    async fn send_evidence(
        &self,
        from_batch: u64,
        evidence: &mpsc::Sender<Result<Evidence, Problem>>,
    ) -> Result<(), Problem> {
        let mut heads = self.replica()?.watch_heads();
        let mut next = from_batch;
        loop {
            let newest = heads.borrow_and_update().batch;
            while next <= newest {
                send(evidence, (next, self.evidence(next).await?)).await?;
                next += 1;
            }
            heads.changed().await.map_err(|_stopped| stopping())?;
        }
    }

    /// The record of a batch as it is stored.
    ///
    /// # Errors
    /// Where there is no such batch yet, it was pruned, or the disk fails.
    pub async fn evidence(&self, batch: u64) -> Result<Bytes, Problem> {
        let found = self.read(move |state| state.batch_bytes(batch)).await?;
        found.ok_or_else(|| Problem::not_found("batch", batch.to_string()))
    }

    /// Has an attestation ordered. One that is its prover's last already is as good as ordered: an earlier attempt, whose
    /// answer was lost, may have done it.
    ///
    /// # Errors
    /// Where it is not kept, and why; where no leader confirms it in time.
    pub async fn submit_attestation(&self, attestation: Bytes) -> Result<(), Problem> {
        self.await_freshness(Consistency::Linearizable).await?;
        let bytes = attestation.clone();
        if let Err(refusal) = self.read(move |state| state.judge_attestation(&bytes)).await? {
            return if self.is_last(&attestation).await? { Ok(()) } else { Err(refused(&refusal)) };
        }
        let deadline = Instant::now() + ORDER_PATIENCE;
        match self.replica()?.attest(attestation.to_vec(), deadline).await {
            Ok(()) => Ok(()),
            Err(ConfigureFault::Void) if self.is_last(&attestation).await? => Ok(()),
            Err(ConfigureFault::Void) => {
                Err(Problem::new(ProblemKind::AttestationRefused, "another attestation of this prover came first"))
            }
            Err(ConfigureFault::Unconfirmed) => {
                let message = "no leader confirmed the attestation in time; look for it before it is sent again";
                Err(Problem::new(ProblemKind::OutcomeUnknown, message))
            }
        }
    }

    /// Whether an attestation is its prover's last one by now.
    async fn is_last(&self, attestation: &Bytes) -> Result<bool, Problem> {
        self.await_freshness(Consistency::Linearizable).await?;
        let bytes = attestation.clone();
        self.read(move |state| Ok(state.is_last_attestation(&bytes))).await
    }

    /// What provers said of a batch.
    ///
    /// # Errors
    /// Where the freshness cannot be had, the batch was pruned, or the disk fails.
    pub async fn attestations_of(
        &self,
        batch: u64,
        consistency: Consistency,
    ) -> Result<Vec<(u64, Attestation)>, Problem> {
        self.await_freshness(consistency).await?;
        self.read(move |state| state.attestations_of(batch)).await
    }

    /// Up to `limit` attestations from a number (from 1) on, and where the next page begins.
    ///
    /// # Errors
    /// Where the freshness cannot be had, or the disk fails.
    pub async fn attestations(
        &self,
        from: u64,
        limit: u32,
        consistency: Consistency,
    ) -> Result<(Vec<Numbered>, Option<u64>), Problem> {
        self.await_freshness(consistency).await?;
        let asked = usize::try_from(limit).unwrap_or(ATTESTATIONS_MAX);
        let limit = if asked == 0 { ATTESTATIONS_MAX } else { asked.min(ATTESTATIONS_MAX) };
        let (found, count) =
            self.read(move |state| Ok((state.attestations(from, limit)?, state.proof_status().attestations))).await?;
        let next = found.last().map(|(number, _)| number + 1).filter(|next| *next <= count);
        Ok((found, next))
    }

    /// Attestations as they come, from a number on (0: the next one), until something fails or the receiver is dropped.
    ///
    /// # Errors
    /// While the node starts.
    pub fn watch_attestations(&self, from: u64) -> Result<mpsc::Receiver<Result<Numbered, Problem>>, Problem> {
        self.replica()?;
        let (sender, attestations) = mpsc::channel(ATTESTATIONS_WAITING_MAX);
        let api = self.clone();
        self.spawn(until_left(sender, move |sender| async move { api.send_attestations(from, &sender).await }));
        Ok(attestations)
    }

    async fn send_attestations(
        &self,
        from: u64,
        attestations: &mpsc::Sender<Result<Numbered, Problem>>,
    ) -> Result<(), Problem> {
        let mut count = self.replica()?.watch_attestations();
        let mut next = if from == 0 { *count.borrow_and_update() + 1 } else { from };
        loop {
            // seen before the look: whatever comes after it wakes this up again
            count.mark_unchanged();
            loop {
                let page = self.read(move |state| state.attestations(next, ATTESTATIONS_AT_ONCE)).await?;
                if page.is_empty() {
                    break;
                }
                for numbered in page {
                    next = numbered.0 + 1;
                    send(attestations, numbered).await?;
                }
            }
            count.changed().await.map_err(|_stopped| stopping())?;
        }
    }

    /// How far the ledger is proved.
    ///
    /// # Errors
    /// Where the freshness cannot be had.
    pub async fn proof_status(&self, consistency: Consistency) -> Result<convert::ProofStatus, Problem> {
        self.await_freshness(consistency).await?;
        Ok(proof_status(&self.replica()?.state().proof_status()))
    }
}

/// The state of the proof as it is told.
pub(super) fn proof_status(status: &ProofStatus) -> convert::ProofStatus {
    let prover = |(key, standing): (&ledger::Party, &Option<storage::state::ProverStanding>)| {
        let standing = standing.as_ref();
        convert::Prover {
            key: *key,
            last: standing.map(|standing| standing.last),
            number: standing.map_or(0, |standing| standing.number),
            last_batch: standing.map_or(0, |standing| standing.last_batch),
            proved: standing.map_or(0, |standing| standing.proved),
            inconclusive: standing.map_or(0, |standing| standing.inconclusive),
            alarm: standing.and_then(|standing| standing.alarm.as_ref()).map(|it| (it.batch, it.words.clone())),
        }
    };
    convert::ProofStatus {
        attestations: status.attestations,
        attested_batch: status.attested_batch,
        required: status.required,
        provers: status.provers.iter().map(prover).collect(),
    }
}

/// An attestation as it travels.
pub(crate) fn bytes_of(attestation: &Attestation) -> Bytes {
    canonical_bytes(attestation).into()
}

fn refused(refusal: &AttestationRefusal) -> Problem {
    Problem::new(ProblemKind::AttestationRefused, refusal.to_string())
}

fn stopping() -> Problem {
    Problem::new(ProblemKind::ShuttingDown, "this node is stopping")
}
