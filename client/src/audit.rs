//! Verification without trusting anybody: the ledger's whole history is replayed by the checker, its end compared with a
//! head that trusted nodes signed, and every attestation with the evidence that it is about. No solver is needed.

use std::collections::BTreeMap;

use checker::attestation::{BATCHES_MAX, ProofStatistics, agreed};
use checker::collect::{self, Collected, Testimony, TestimonyFault};
use checker::{Attestation, Chunk, Finding, Frontier, Replay, Verdict};
use futures::StreamExt;
use ledger::batch::BatchRecord;
use ledger::entry::ConfigurationChange;
use ledger::merkle::verify_consistency;
use ledger::{Hash, LogTime, Party};
use proto::convert::Consistency;
use proto::problem::Retry;
use proto::{Problem, ProblemKind};
use tokio::time::{sleep, timeout};

use crate::client::{Client, Numbered};
use crate::heads::TrustedNodes;

/// What a verifier trusts, and what it asks for.
#[derive(Debug, Clone)]
pub struct AuditOptions {
    /// The nodes whose signatures make a head the ledger's.
    pub nodes: TrustedNodes,
    /// The provers whose attestations count.
    pub provers: Vec<Party>,
    /// How many of them have to agree on a batch.
    pub required: usize,
    /// The batches that are to be attested, from 1; without an end, up to the newest.
    pub first_batch: u64,
    /// The last one.
    pub last_batch: Option<u64>,
}

/// What a verifier found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Audit {
    /// Batches that were replayed.
    pub batches: u64,
    /// Transactions in them.
    pub transactions: u64,
    /// True where the end of the replay is part of a head that enough trusted nodes signed.
    pub signed: bool,
    /// Attestations of trusted provers with valid signatures.
    pub attestations: u64,
    /// Batches of the range that enough provers proved from just the evidence that was replayed.
    pub attested_batches: u64,
    /// Transactions in them.
    pub attested_transactions: u64,
    /// Batches of the range that are not attested.
    pub missing_batches: u64,
    /// Attestations that say refuted.
    pub refuted: u64,
    /// Attestations that say inconclusive.
    pub inconclusive: u64,
    /// What the provers say that it cost, added up.
    pub statistics: ProofStatistics,
    /// Log times of the batches of the range.
    pub log_times: BTreeMap<u64, LogTime>,
    /// What is wrong.
    pub problems: Vec<String>,
}

/// Why nothing can be concluded.
#[derive(Debug, thiserror::Error)]
pub enum AuditFault {
    /// A node did not tell what is needed.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// A batch's record contradicts itself.
    #[error("the record of batch {batch} is none: {source}")]
    Record {
        /// Which.
        batch: u64,
        /// Why.
        source: TestimonyFault,
    },
    /// A batch did not happen as it is told.
    #[error("batch {batch} is refuted by the replay: {finding}")]
    Refuted {
        /// Which.
        batch: u64,
        /// What was found.
        finding: Box<Finding>,
    },
}

/// Provers whose keys count no longer, each with the batch that dismissed it, as the replayed batches say.
///
/// No node keeps what such a key signs after that, so that all it signed of later batches was never said in the ledger:
/// whoever holds the key now may have made it. What it said of earlier ones stands.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DismissedProvers(BTreeMap<Party, u64>);

impl DismissedProvers {
    /// Takes in what a batch changes; batches come in order.
    pub fn take(&mut self, record: &BatchRecord) {
        match &record.change {
            Some(ConfigurationChange::RemoveProvers(keys)) => {
                self.0.extend(keys.iter().map(|key| (*key, record.head.batch)));
            }
            Some(ConfigurationChange::AddProvers(keys)) => self.0.retain(|key, _| !keys.contains(key)),
            Some(
                ConfigurationChange::AddValidators(_)
                | ConfigurationChange::RemoveValidators(_)
                | ConfigurationChange::RequireCertificates(_)
                | ConfigurationChange::RegisterNode { .. }
                | ConfigurationChange::KeepHistory(_)
                | ConfigurationChange::RequireProvers(_)
                | ConfigurationChange::RaiseProtocol(_),
            )
            | None => {}
        }
    }

    /// Whether the ledger can have kept this attestation.
    ///
    /// # Errors
    /// Why not, in words.
    pub fn permit(&self, attestation: &Attestation) -> Result<(), String> {
        let last = attestation.findings.statement.last_batch;
        match self.0.get(&attestation.prover) {
            Some(dismissed) if last >= *dismissed => {
                Err(format!("batch {dismissed} dismissed its prover, and it is about batch {last}"))
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// A batch that was replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// The hash of its evidence, which attestations name.
    pub evidence: Hash,
    /// Before it.
    pub before: Frontier,
    /// Behind it.
    pub after: Frontier,
    /// Its transactions.
    pub transactions: u64,
}

/// Replays one batch's record, which has to follow where the replay stands.
///
/// # Errors
/// Where it is not what one serial execution gives.
pub fn replay_batch(record: &BatchRecord, replay: &mut Replay) -> Result<Replayed, AuditFault> {
    let batch = record.head.batch;
    let told = Testimony::of_record(record).map_err(|source| AuditFault::Record { batch, source })?;
    let before = *replay.frontier();
    let chunks = collect::collected(told, replay);
    for chunk in &chunks {
        replay.accept_collected(chunk).map_err(|finding| AuditFault::Refuted { batch, finding: Box::new(finding) })?;
    }
    let transactions = u64::try_from(record.records.len()).unwrap_or(u64::MAX);
    Ok(Replayed {
        evidence: Chunk::digest(chunks.iter().map(Collected::chunk)),
        before,
        after: *replay.frontier(),
        transactions,
    })
}

/// Whether an attestation says proved of just these batches, which were replayed one after another. Of an attestation that
/// began before them, what it says of them.
///
/// # Errors
/// What it says otherwise, in words.
pub fn compare(attestation: &Attestation, replayed: &BTreeMap<u64, Replayed>) -> Result<(), String> {
    let statement = &attestation.findings.statement;
    if !attestation.findings.verdict.is_proved() {
        return Err(format!("it says {}", attestation.findings.verdict));
    }
    let begins = replayed.first_key_value().map_or(1, |(batch, _)| *batch);
    for batch in statement.first_batch.max(begins)..=statement.last_batch {
        let Some(here) = replayed.get(&batch) else { return Err(format!("batch {batch} was not replayed")) };
        if statement.evidence_of(batch) != Some(here.evidence) {
            return Err(format!("it is about other evidence of batch {batch}"));
        }
    }
    let begins_there = replayed.get(&statement.first_batch).is_none_or(|first| first.before == statement.before);
    let ends_there = replayed.get(&statement.last_batch).is_some_and(|last| last.after == statement.after);
    if begins_there && ends_there {
        return Ok(());
    }
    Err("it begins or ends at another frontier".to_owned())
}

impl Client {
    /// Replays the ledger, and verifies the attestations of a range of batches; with the replay where it ended. It begins
    /// with the first batch, or behind what `start` has replayed: what that takes from its past is named by the evidence of
    /// each batch, which trusted provers attest or do not. Without provers it is taken at its word.
    /// `seen` is called with every record, and with how many batches there are.
    ///
    /// # Errors
    /// Where a node does not tell what is needed, and where a batch is refuted. What is wrong with attestations and
    /// signatures is in the report.
    pub async fn audit(
        &self,
        options: &AuditOptions,
        start: Option<Replay>,
        mut seen: impl FnMut(&BatchRecord, u64),
    ) -> Result<(Audit, Replay), AuditFault> {
        let signed = self.head(Consistency::Linearizable).await?;
        let genesis = || Replay::genesis(signed.head.cluster, signed.head.group, self.nonce());
        let mut replay = start.unwrap_or_else(genesis);
        let (first, newest) = (replay.frontier().batch + 1, signed.head.batch);
        let last_batch = options.last_batch.unwrap_or(newest);
        if last_batch > newest || options.first_batch < first || options.first_batch > last_batch {
            let message = format!("the replay begins with batch {first}, and the ledger ends with batch {newest}");
            return Err(Problem::bad_request("batches", message).into());
        }
        let mut audit = Audit::default();
        let mut replayed: BTreeMap<u64, Replayed> = BTreeMap::new();
        let mut dismissed = DismissedProvers::default();
        let mut take = |record: BatchRecord, replay: &mut Replay| {
            seen(&record, last_batch);
            let here = replay_batch(&record, replay)?;
            dismissed.take(&record);
            audit.batches += 1;
            audit.transactions += here.transactions;
            audit.log_times.insert(record.head.batch, record.head.log_time);
            replayed.insert(record.head.batch, here);
            Ok(())
        };
        self.replay_up_to(last_batch, &mut replay, &mut take).await?;
        audit.signed = self.is_signed(options, replay.frontier(), &mut audit.problems).await?;
        let attestations = self.attestations(1).await?;
        judge(options, last_batch, &attestations, (&replayed, &dismissed), &mut audit);
        Ok((audit, replay))
    }

    /// Has every batch up to this one taken, from one node after another where one of them does not go on.
    async fn replay_up_to(
        &self,
        last_batch: u64,
        replay: &mut Replay,
        take: &mut impl FnMut(BatchRecord, &mut Replay) -> Result<(), AuditFault>,
    ) -> Result<(), AuditFault> {
        let mut failures: u32 = 0;
        while replay.frontier().batch < last_batch {
            let begun = replay.frontier().batch;
            let mut evidence = self.evidence(begun + 1).await?;
            // the one that answered
            let (endpoint, _) = self.endpoint();
            let problem = loop {
                if replay.frontier().batch >= last_batch {
                    return Ok(());
                }
                match timeout(self.silence_max(), evidence.next()).await {
                    Ok(Some(Ok(record))) => take(record, replay)?,
                    Ok(Some(Err(problem))) => break problem,
                    Ok(None) => break Problem::new(ProblemKind::OutcomeUnknown, "the node ended the evidence"),
                    Err(_elapsed) => break Problem::new(ProblemKind::Timeout, "the node tells no more evidence"),
                }
            };
            failures = if replay.frontier().batch > begun { 1 } else { failures + 1 };
            if problem.retry() == Retry::Never || failures > self.endpoints() {
                return Err(problem.into());
            }
            self.leave_endpoint(endpoint);
            sleep(self.backoff(failures, &problem)).await;
        }
        Ok(())
    }

    /// True where a head that enough trusted nodes signed continues this frontier.
    async fn is_signed(
        &self,
        options: &AuditOptions,
        end: &Frontier,
        problems: &mut Vec<String>,
    ) -> Result<bool, Problem> {
        // the newest head has the signatures of its round a moment later
        let signed = self.head(Consistency::Local).await?;
        let signed = if signed.head.batch >= end.batch && options.nodes.signed(&signed) {
            signed
        } else {
            self.signed_head(options, end.batch).await?
        };
        // an older head says nothing of what came behind it, whatever that looks like
        if signed.head.batch < end.batch || !options.nodes.signed(&signed) {
            problems.push(format!("no head of batch {} or later is signed by enough trusted nodes", end.batch));
            return Ok(false);
        }
        if signed.head.batch == end.batch {
            let agrees = end.agrees_with(&signed.head);
            if !agrees {
                problems.push(format!("the signed head of batch {} is not where its evidence leads", end.batch));
            }
            return Ok(agrees);
        }
        if end.next.get() == 0 || signed.head.size == end.next {
            return Ok(end.next.get() == 0 || signed.head.log_root == end.log_root);
        }
        let proof = self.consistency(end.next, signed.head.size).await?;
        let (old, new) = (end.next.get(), signed.head.size.get());
        let proved = verify_consistency(old, &end.log_root, new, &signed.head.log_root, &proof.hashes);
        if let Err(fault) = &proved {
            problems.push(format!(
                "the signed head of batch {} does not continue the evidence: {fault}",
                signed.head.batch
            ));
        }
        Ok(proved.is_ok())
    }

    /// Waits some rounds for signatures.
    async fn signed_head(&self, options: &AuditOptions, batch: u64) -> Result<ledger::SignedHead, Problem> {
        let mut last = Err(Problem::new(ProblemKind::Timeout, "no signed head"));
        for _ in 0..20 {
            last = self.head(Consistency::Local).await;
            if last.as_ref().is_ok_and(|signed| signed.head.batch >= batch && options.nodes.signed(signed)) {
                break;
            }
            sleep(std::time::Duration::from_millis(200)).await;
        }
        last
    }
}

fn judge(
    options: &AuditOptions,
    last_batch: u64,
    attestations: &[Numbered],
    (replayed, dismissed): (&BTreeMap<u64, Replayed>, &DismissedProvers),
    audit: &mut Audit,
) {
    let mut chains: BTreeMap<Party, Vec<&Attestation>> = BTreeMap::new();
    for Numbered { number, attestation } in attestations {
        if !options.provers.contains(&attestation.prover) {
            continue;
        }
        let signed = attestation.verify_signature(&options.provers).map_err(|fault| fault.to_string());
        if let Err(words) = signed.and_then(|()| dismissed.permit(attestation)) {
            audit.problems.push(format!("attestation {number} proves nothing: {words}"));
            continue;
        }
        audit.attestations += 1;
        match &attestation.findings.verdict {
            Verdict::Proved => {}
            Verdict::Refuted(_) => audit.refuted += 1,
            Verdict::Inconclusive(_) => audit.inconclusive += 1,
        }
        audit.statistics.add(&attestation.findings.statistics);
        let begins = replayed.first_key_value().map_or(1, |(batch, _)| *batch);
        if (begins..=last_batch).contains(&attestation.findings.statement.last_batch)
            && let Err(words) = compare(attestation, replayed)
        {
            audit.problems.push(format!("attestation {number} does not hold: {words}"));
        }
        chains.entry(attestation.prover).or_default().push(attestation);
    }
    audit.problems.extend(chains.iter().filter_map(|(prover, chain)| chain_problem(prover, chain)));
    let mut by_end: BTreeMap<u64, Vec<&Attestation>> = BTreeMap::new();
    for attestation in chains.into_values().flatten() {
        by_end.entry(attestation.findings.statement.last_batch).or_default().push(attestation);
    }
    // none is about more batches than that
    let reach = u64::try_from(BATCHES_MAX).unwrap_or(u64::MAX);
    for batch in options.first_batch..=last_batch {
        let about = by_end.range(batch..batch.saturating_add(reach)).flat_map(|(_, found)| found.iter().copied());
        let (provers, evidence) = agreed(batch, about);
        match replayed.get(&batch) {
            Some(here) if provers >= options.required.max(1) && evidence == Some(here.evidence) => {
                audit.attested_batches += 1;
                audit.attested_transactions += here.transactions;
            }
            Some(_) | None => audit.missing_batches += 1,
        }
    }
}

/// What is wrong with how a prover's attestations, whatever they say, follow one another.
fn chain_problem(prover: &Party, chain: &[&Attestation]) -> Option<String> {
    let first = &chain.first()?.findings;
    if first.statement.first_batch == 1 && first.predecessor != Attestation::NONE {
        return Some(format!("the chain of prover {prover} begins with batch 1 and names a predecessor"));
    }
    let (mut before, mut predecessor) = (&first.statement.before, first.predecessor);
    for attestation in chain {
        if let Err(fault) = attestation.verify_link(before, predecessor) {
            return Some(format!("the chain of prover {prover} is broken: {fault}"));
        }
        (before, predecessor) = (&attestation.findings.statement.after, attestation.hash());
    }
    None
}
