//! Validators and provers that sign what is not so.

use std::time::Duration;

use bytes::Bytes;
use client::{Client, Numbered, Problem};
use ledger::certificate::{Attested, VerdictBitmap};
use ledger::signature::SigningKey;
use ledger::{Hash, Party, Rejection};
use seams::{BoxFuture, CallError, Duplex, Method, Service};
use tokio::time::sleep;
use validator::ValidatorService;
use validator::message::ValidateReply;

use crate::dice::Dice;
use crate::sim::bugs::PlantedBug;

/// What a validator lies about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Everything passes.
    ApproveAll,
    /// Each transaction gets the verdict on the one before it.
    Shift,
}

impl Lie {
    pub(super) fn of(bug: PlantedBug) -> Option<Self> {
        let lies = [(PlantedBug::ValidatorApprovesAll, Self::ApproveAll), (PlantedBug::ShiftedVerdicts, Self::Shift)];
        lies.into_iter().find(|(with, _)| *with == bug).map(|(_, lie)| lie)
    }

    fn tell(self, verdicts: &[bool]) -> Vec<bool> {
        match self {
            Self::ApproveAll => vec![true; verdicts.len()],
            Self::Shift => [true].iter().chain(verdicts).take(verdicts.len()).copied().collect(),
        }
    }
}

/// A validator that finds what is right and signs something else.
#[derive(Clone)]
pub(super) struct LyingValidator {
    pub(super) service: ValidatorService,
    pub(super) key: SigningKey,
    pub(super) lie: Lie,
}

impl LyingValidator {
    fn falsify(&self, reply: ValidateReply) -> ValidateReply {
        let found = reply.certificate.attested.verdicts;
        let verdicts: Vec<bool> = (0..found.len()).map(|index| found.passed(index).unwrap_or(false)).collect();
        let told = self.lie.tell(&verdicts);
        let refused = (0_u32..).zip(&told).filter(|(_, passed)| !**passed);
        let rejections = refused.map(|(index, _)| (index, Rejection::Malformed {})).collect();
        let attested = Attested { verdicts: VerdictBitmap::of(&told), ..reply.certificate.attested };
        ValidateReply { certificate: attested.certify(&self.key), rejections }
    }
}

impl Service for LyingValidator {
    fn handle(&self, method: Method, body: Bytes) -> BoxFuture<'static, Result<Bytes, CallError>> {
        let validator = self.clone();
        Box::pin(async move {
            let answer = validator.service.handle(method, body).await?;
            match ValidateReply::decode(&answer) {
                Ok(reply) => Ok(validator.falsify(reply).encode()),
                Err(_) => Ok(answer),
            }
        })
    }

    fn accept(&self, method: Method, duplex: Duplex) {
        self.service.accept(method, duplex);
    }
}

/// Between two lies.
const LYING_INTERVAL: Duration = Duration::from_millis(250);

/// A prover that judges nothing: it says again what an honest one said, with something of it falsified, under its own key
/// and in a chain of its own, so that the ledger has to keep it.
pub(super) struct LyingProver {
    pub(super) client: Client,
    pub(super) dice: Dice,
    /// Whose words it twists.
    pub(super) honest: Option<Party>,
    pub(super) key: SigningKey,
}

impl LyingProver {
    /// Lies for as long as it is let. What of it came to be ordered it reads from the ledger each time.
    pub(super) async fn run(self) {
        loop {
            sleep(LYING_INTERVAL).await;
            // whatever fails is tried again
            drop(self.lie().await);
        }
    }

    async fn lie(&self) -> Result<(), Problem> {
        let told = self.client.attestations(1).await?;
        let of = |prover: Party| told.iter().filter(move |Numbered { attestation, .. }| attestation.prover == prover);
        let last = of(self.key.party()).next_back().map(|Numbered { attestation, .. }| attestation);
        let is_next = |first_batch: u64| {
            last.is_none_or(|last| Some(first_batch) == last.findings.statement.last_batch.checked_add(1))
        };
        let truths = self.honest.into_iter().flat_map(of);
        let truth = truths.map(|truth| &truth.attestation.findings).find(|truth| is_next(truth.statement.first_batch));
        let Some(mut words) = truth.cloned() else { return Ok(()) };
        // of a first one it is nothing, as of the other's first
        if let Some(last) = last {
            words.predecessor = last.hash();
        }
        let mut false_hash = [0; 32];
        self.dice.fill(&mut false_hash);
        if self.dice.chance(500) {
            words.statement.after.log_root = Hash::from_bytes(false_hash);
        } else if let Some(evidence) = words.statement.evidence.last_mut() {
            *evidence = Hash::from_bytes(false_hash);
        }
        self.client.submit_attestation(&words.sign(&self.key)).await
    }
}
