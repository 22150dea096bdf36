//! Attestations: a prover's signed word on a run of batches, chained, and verified without a solver.
//!
//! What makes one worth believing is not the signature but the evidence that it names: whoever has the chunks replays
//! them ([`Attestation::verify_evidence`]). The signature says who answers for it; m of n provers say it together.

use std::collections::{BTreeMap, BTreeSet};

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::identifier::{canonical_bytes, tagged_hash};
use ledger::signature::{Claim, SigningKey, message};
use ledger::transaction::Signature;
use ledger::{ClusterId, Hash, Party};

use crate::evidence::Chunk;
use crate::frontier::Frontier;
use crate::replay::Replay;
use crate::verdict::{Finding, Verdict};

/// The layout of attestations, so that a later one can change it.
pub const ATTESTATION_VERSION: u16 = 1;
/// Most batches that one attestation is about: what one verifier holds at once.
pub const BATCHES_MAX: usize = 1_024;

/// What an attestation is about. Two provers that judged the same evidence state the same.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Statement {
    /// The layout.
    pub version: u16,
    /// The ledger.
    pub cluster: ClusterId,
    /// Its Raft group.
    pub group: u16,
    /// The first batch of the run.
    pub first_batch: u64,
    /// The last one.
    pub last_batch: u64,
    /// The frontier before the first.
    pub before: Frontier,
    /// The frontier after the last.
    pub after: Frontier,
    /// The evidence that was judged: for each batch, in order, [`Chunk::digest`] of its chunks. Two provers whose runs
    /// overlap agree on the batches for which these are equal.
    pub evidence: Vec<Hash>,
}

/// By what the evidence was judged.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Versions {
    /// The serial rule of the checker.
    pub checker: u16,
    /// The encoding of patterns as formulas.
    pub encoder: u16,
    /// The solver's name and version.
    pub solver: String,
}

/// What judging cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct ProofStatistics {
    /// Transactions judged.
    pub transactions: u64,
    /// Chunks they came in.
    pub chunks: u64,
    /// Connected components.
    pub components: u64,
    /// Windows: the obligations.
    pub windows: u64,
    /// Windows whose pattern was known.
    pub pattern_hits: u64,
    /// Windows whose pattern was proved for them.
    pub pattern_misses: u64,
    /// Known patterns that were proved again to see whether they hold.
    pub audits: u64,
    /// Questions put to the solver.
    pub solver_checks: u64,
    /// Of those, how many it left open.
    pub solver_unknown: u64,
    /// Obligations that stayed undecided. Nothing is proved where there is one.
    pub undecided: u64,
    /// Time in the solver, in microseconds.
    pub solver_us: u64,
    /// Time altogether, in microseconds.
    pub total_us: u64,
}

impl ProofStatistics {
    /// Adds up what runs cost. Counts beyond 2^64 stay there: a signed attestation may claim any.
    pub fn add(&mut self, more: &Self) {
        for (sum, more) in [
            (&mut self.transactions, more.transactions),
            (&mut self.chunks, more.chunks),
            (&mut self.components, more.components),
            (&mut self.windows, more.windows),
            (&mut self.pattern_hits, more.pattern_hits),
            (&mut self.pattern_misses, more.pattern_misses),
            (&mut self.audits, more.audits),
            (&mut self.solver_checks, more.solver_checks),
            (&mut self.solver_unknown, more.solver_unknown),
            (&mut self.undecided, more.undecided),
            (&mut self.solver_us, more.solver_us),
            (&mut self.total_us, more.total_us),
        ] {
            *sum = sum.saturating_add(more);
        }
    }
}

/// What is signed.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Findings {
    /// What it is about.
    pub statement: Statement,
    /// What was found.
    pub verdict: Verdict,
    /// By what.
    pub versions: Versions,
    /// The patterns that were used: digests of their keys, ascending, each once.
    pub patterns: Vec<Hash>,
    /// At what cost.
    pub statistics: ProofStatistics,
    /// The hash of the same prover's attestation before; [`Attestation::NONE`] for its first.
    pub predecessor: Hash,
}

/// Findings and their prover's signature.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Attestation {
    /// What is signed.
    pub findings: Findings,
    /// The prover's key.
    pub prover: Party,
    /// Its signature.
    pub signature: Signature,
}

/// Why an attestation proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AttestationFault {
    /// It has a layout that this program does not know.
    #[error("attestations of version {0} are not known here")]
    Version(u16),
    /// Nobody trusted signed it.
    #[error("{0} is not a trusted prover")]
    Untrusted(Party),
    /// The signature is not the prover's.
    #[error("the signature is not the prover's")]
    Signature,
    /// It is not about a run of batches that its frontiers delimit, or about too many.
    #[error("it is not about whole batches: from {first} to {last}")]
    Run {
        /// Its first batch.
        first: u64,
        /// Its last batch.
        last: u64,
    },
    /// It does not continue the one before it.
    #[error("attestation of batch {batch} does not continue the one before it: {what}")]
    Chain {
        /// Its first batch.
        batch: u64,
        /// What differs.
        what: &'static str,
    },
    /// It claims a proof with obligations left open.
    #[error("it says proved with {0} obligations undecided")]
    Undecided(u64),
    /// The evidence is not the one that it names.
    #[error("the evidence is not the one that was attested: {0}")]
    OtherEvidence(&'static str),
    /// It does not say that the evidence was proved.
    #[error("it says {0}")]
    NotProved(Verdict),
    /// The evidence is not what the attestation says of it.
    #[error("the replay finds otherwise: {0}")]
    Finding(#[from] Finding),
    /// Too few provers agree.
    #[error("{found} of {trusted} trusted provers proved it, {required} are required")]
    TooFew {
        /// Different trusted provers with valid proofs of one statement.
        found: usize,
        /// How many are trusted.
        trusted: usize,
        /// Required.
        required: usize,
    },
}

impl Findings {
    /// Signs as the prover with this key.
    #[must_use]
    pub fn sign(self, key: &SigningKey) -> Attestation {
        let signature = key.sign(&self.message());
        Attestation { findings: self, prover: key.party(), signature }
    }

    fn message(&self) -> [u8; 48] {
        message(b"seriatim sign at", &tagged_hash(b"seriatim finding", &[&canonical_bytes(self)]))
    }
}

impl Statement {
    /// What chunks are about: a run of whole batches.
    ///
    /// # Errors
    /// Where there are none, or the last one does not end its batch.
    pub fn of(chunks: &[Chunk]) -> Result<Self, AttestationFault> {
        let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
            return Err(AttestationFault::OtherEvidence("there is none"));
        };
        if last.head.is_none() {
            return Err(AttestationFault::OtherEvidence("its last batch is not complete"));
        }
        let batches = chunks.chunk_by(|one, next| one.batch == next.batch);
        Ok(Self {
            version: ATTESTATION_VERSION,
            cluster: first.cluster,
            group: first.group,
            first_batch: first.batch,
            last_batch: last.batch,
            before: first.before,
            after: last.after,
            evidence: batches.map(Chunk::digest).collect(),
        })
    }
}

impl Statement {
    /// The hash of a batch's evidence, where the statement is about that batch.
    #[must_use]
    pub fn evidence_of(&self, batch: u64) -> Option<Hash> {
        let position = batch.checked_sub(self.first_batch)?;
        self.evidence.get(usize::try_from(position).ok()?).copied()
    }

    /// One hash for each batch of a run that its frontiers delimit.
    fn is_well_formed(&self) -> Result<(), AttestationFault> {
        let Self { first_batch, last_batch, before, after, evidence, .. } = self;
        let batches = last_batch.checked_sub(*first_batch).and_then(|more| more.checked_add(1));
        let count = u64::try_from(evidence.len()).ok();
        let delimited = first_batch.checked_sub(1) == Some(before.batch) && after.batch == *last_batch;
        if batches.is_none() || batches != count || evidence.len() > BATCHES_MAX || !delimited {
            return Err(AttestationFault::Run { first: *first_batch, last: *last_batch });
        }
        Ok(())
    }
}

impl Attestation {
    /// The predecessor of a prover's first attestation.
    pub const NONE: Hash = Hash::from_bytes([0; 32]);

    /// The hash by which the next one names it.
    #[must_use]
    pub fn hash(&self) -> Hash {
        Hash::from_bytes(tagged_hash(b"seriatim attest.", &[&canonical_bytes(self)]))
    }

    /// Checks layout, signature and that a trusted prover signed. What it says is not judged here.
    ///
    /// # Errors
    /// Where one of them is wrong.
    pub fn verify_signature(&self, trusted: &[Party]) -> Result<(), AttestationFault> {
        let Findings { statement, verdict, statistics, .. } = &self.findings;
        if statement.version != ATTESTATION_VERSION {
            return Err(AttestationFault::Version(statement.version));
        }
        statement.is_well_formed()?;
        if !trusted.contains(&self.prover) {
            return Err(AttestationFault::Untrusted(self.prover));
        }
        let claim = Claim { signer: self.prover, message: self.findings.message(), signature: self.signature };
        if !claim.holds() {
            return Err(AttestationFault::Signature);
        }
        if verdict.is_proved() && statistics.undecided > 0 {
            return Err(AttestationFault::Undecided(statistics.undecided));
        }
        Ok(())
    }

    /// Checks that it names this predecessor, and begins at the frontier where that one ended. Neither its signature nor what
    /// it says is judged here.
    ///
    /// # Errors
    /// Where one of them is another.
    pub fn verify_link(&self, before: &Frontier, predecessor: Hash) -> Result<(), AttestationFault> {
        let broken = |what| Err(AttestationFault::Chain { batch: self.findings.statement.first_batch, what });
        if self.findings.predecessor != predecessor {
            return broken("it names another predecessor");
        }
        if self.findings.statement.before != *before {
            return broken("it begins at another frontier");
        }
        Ok(())
    }

    /// Checks signature and evidence: [`Self::verify_signature`], then [`Self::verify_evidence`].
    ///
    /// # Errors
    /// Where one of them is wrong.
    pub fn verify(&self, trusted: &[Party], chunks: &[Chunk], replay: &mut Replay) -> Result<(), AttestationFault> {
        self.verify_signature(trusted)?;
        self.verify_evidence(chunks, replay)
    }

    /// Replays the evidence behind the attestation, whoever signed it. The replay moves behind every chunk that it accepts.
    ///
    /// # Errors
    /// Where the evidence is another, where it does not begin where the replay stands, or where the replay finds
    /// something wrong in it. An attestation that does not say proved is an error, too.
    pub fn verify_evidence(&self, chunks: &[Chunk], replay: &mut Replay) -> Result<(), AttestationFault> {
        if !self.findings.verdict.is_proved() {
            return Err(AttestationFault::NotProved(self.findings.verdict.clone()));
        }
        if Statement::of(chunks)? != self.findings.statement {
            return Err(AttestationFault::OtherEvidence("statement or digest differ"));
        }
        for chunk in chunks {
            replay.accept(chunk)?;
        }
        Ok(())
    }
}

/// Verifies that attestations of one prover follow one another: each names its predecessor and begins at the frontier
/// where that one ended. Returns the frontier after the last.
///
/// # Errors
/// The first that does not, or that proves nothing.
pub fn verify_chain(
    attestations: &[Attestation],
    trusted: &[Party],
    before: &Frontier,
    predecessor: Hash,
) -> Result<Frontier, AttestationFault> {
    let (mut frontier, mut last, mut prover) = (*before, predecessor, None);
    for attestation in attestations {
        attestation.verify_signature(trusted)?;
        let Findings { statement, verdict, .. } = &attestation.findings;
        if prover.is_some_and(|prover| prover != attestation.prover) {
            return Err(AttestationFault::Chain { batch: statement.first_batch, what: "it is another prover's" });
        }
        attestation.verify_link(&frontier, last)?;
        if !verdict.is_proved() {
            return Err(AttestationFault::NotProved(verdict.clone()));
        }
        (frontier, last, prover) = (statement.after, attestation.hash(), Some(attestation.prover));
    }
    Ok(frontier)
}

/// Whether enough of the trusted provers proved a batch from the same evidence, each counted once. Their attestations may
/// be about runs of different lengths. Returns the hash of the evidence.
///
/// # Errors
/// Where they are fewer.
pub fn verify_agreement(
    batch: u64,
    attestations: &[Attestation],
    trusted: &[Party],
    required: usize,
) -> Result<Hash, AttestationFault> {
    let verified = attestations.iter().filter(|it| {
        // whoever does not speak of the batch needs no look at the signature
        it.findings.statement.evidence_of(batch).is_some() && it.verify_signature(trusted).is_ok()
    });
    let (found, evidence) = agreed(batch, verified);
    let enough = evidence.filter(|_| found >= required.max(1));
    enough.ok_or(AttestationFault::TooFew { found, trusted: trusted.len(), required })
}

/// How many provers proved a batch from the same evidence, each counted once, and the hash of the evidence that most of them
/// proved it from. The signatures were verified before ([`Attestation::verify_signature`]).
#[must_use]
pub fn agreed<'a>(batch: u64, verified: impl IntoIterator<Item = &'a Attestation>) -> (usize, Option<Hash>) {
    let mut provers: BTreeMap<Hash, BTreeSet<&Party>> = BTreeMap::new();
    for Attestation { findings, prover, .. } in verified {
        if let Some(evidence) = findings.statement.evidence_of(batch)
            && findings.verdict.is_proved()
        {
            provers.entry(evidence).or_default().insert(prover);
        }
    }
    let most = provers.iter().max_by_key(|(_, provers)| provers.len());
    most.map_or((0, None), |(evidence, provers)| (provers.len(), Some(*evidence)))
}
