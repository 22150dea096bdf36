//! Batches that were judged one after another, and what is attested of them together.

use std::collections::BTreeSet;

use checker::attestation::{ATTESTATION_VERSION, Findings, ProofStatistics, Versions};
use checker::{CHECKER_VERSION, Statement, Verdict};
use ledger::{ClusterId, Hash};
use prover::{ENCODER_VERSION, solver_version};

use crate::judge::Judged;

/// Batches of one attestation: fewer than an attestation may have, also with those that are still in work.
pub(crate) const BATCHES_MAX: usize = 256;
/// Patterns of one attestation, 32 bytes each, more than the last batch's excepted.
const PATTERNS_MAX: usize = 2_048;

/// Batches that were judged and are not attested yet.
#[derive(Default)]
pub(crate) struct Run {
    batches: Vec<Judged>,
    patterns: BTreeSet<Hash>,
}

impl Run {
    pub(crate) fn of(judged: Judged) -> Self {
        let mut run = Self::default();
        run.add(judged);
        run
    }

    pub(crate) fn add(&mut self, mut judged: Judged) {
        self.patterns.append(&mut judged.patterns);
        self.batches.push(judged);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.batches.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.batches.len() >= BATCHES_MAX || self.patterns.len() >= PATTERNS_MAX
    }

    pub(crate) fn take(&mut self) -> Self {
        std::mem::take(self)
    }

    pub(crate) fn log_times_ms(&self) -> Vec<u64> {
        self.batches.iter().map(|judged| judged.head.log_time.unix_millis()).collect()
    }

    /// What is to be signed; `None` where there is no batch, or one whose record could not be read.
    pub(crate) fn findings(self, cluster: ClusterId, predecessor: Hash) -> Option<Findings> {
        let (first, last) = (self.batches.first()?, self.batches.last()?);
        let statement = Statement {
            version: ATTESTATION_VERSION,
            cluster,
            group: last.head.group,
            first_batch: first.head.batch,
            last_batch: last.head.batch,
            before: first.before,
            after: last.after,
            evidence: self.batches.iter().map(|judged| judged.evidence).collect::<Option<_>>()?,
        };
        let mut statistics = ProofStatistics::default();
        self.batches.iter().for_each(|judged| statistics.add(&judged.statistics));
        let verdict = self.batches.iter().map(|judged| &judged.verdict).find(|verdict| !verdict.is_proved());
        let solver = solver_version().to_owned();
        Some(Findings {
            statement,
            verdict: verdict.cloned().unwrap_or(Verdict::Proved),
            versions: Versions { checker: CHECKER_VERSION, encoder: ENCODER_VERSION, solver },
            patterns: self.patterns.into_iter().collect(),
            statistics,
            predecessor,
        })
    }
}
