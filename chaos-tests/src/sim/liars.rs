//! Validators that sign what is not so.

use bytes::Bytes;
use ledger::Rejection;
use ledger::certificate::{Attested, VerdictBitmap};
use ledger::signature::SigningKey;
use seams::{BoxFuture, CallError, Duplex, Method, Service};
use validator::ValidatorService;
use validator::message::ValidateReply;

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
