//! How far the ledger is proved, and by whom.

use ledger::{Hash, Party};

use super::ConversionFault;
use super::fields::{identifier, named, narrow};
use crate::wire;

/// What the provers said so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProofStatus {
    /// Attestations so far: the number of the last one.
    pub attestations: u64,
    /// Up to this batch enough provers have proved every one, each from the first on that it spoke of.
    pub attested_batch: u64,
    /// Provers that have to agree.
    pub required: u16,
    /// The configured provers.
    pub provers: Vec<Prover>,
}

/// A configured prover.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prover {
    /// Its key.
    pub key: Party,
    /// The hash of its last attestation, which the next one names; `None` while there is none.
    pub last: Option<Hash>,
    /// The number of that one.
    pub number: u64,
    /// The last batch that it is about.
    pub last_batch: u64,
    /// Batches that it proved.
    pub proved: u64,
    /// Batches that it could not decide.
    pub inconclusive: u64,
    /// What it found to be wrong, or what is wrong with it: the batch, and words.
    pub alarm: Option<(u64, String)>,
}

impl ProofStatus {
    /// The prover with this key.
    #[must_use]
    pub fn prover(&self, key: &Party) -> Option<&Prover> {
        self.provers.iter().find(|prover| prover.key == *key)
    }

    /// The last batch that `required` of the provers with these keys spoke of, whatever they said; 0 where there are
    /// fewer.
    #[must_use]
    pub fn spoken_of(&self, keys: &[Party], required: usize) -> u64 {
        let counted = self.provers.iter().filter(|prover| keys.contains(&prover.key));
        let mut reached: Vec<u64> = counted.map(|prover| prover.last_batch).collect();
        reached.sort_unstable_by(|one, other| other.cmp(one));
        required.checked_sub(1).and_then(|last| reached.get(last).copied()).unwrap_or_default()
    }
}

impl TryFrom<&wire::ProofStatus> for ProofStatus {
    type Error = ConversionFault;

    fn try_from(wire: &wire::ProofStatus) -> Result<Self, ConversionFault> {
        Ok(Self {
            attestations: wire.attestations,
            attested_batch: wire.attested_batch,
            required: narrow("required", u64::from(wire.required))?,
            provers: wire.provers.iter().map(Prover::try_from).collect::<Result<_, _>>()?,
        })
    }
}

impl TryFrom<&wire::ProverStatus> for Prover {
    type Error = ConversionFault;

    fn try_from(wire: &wire::ProverStatus) -> Result<Self, ConversionFault> {
        let last = (!wire.last.is_empty()).then(|| identifier("last", &wire.last)).transpose()?;
        let alarm = (!wire.alarm.is_empty()).then(|| (wire.alarm_batch, wire.alarm.clone()));
        Ok(Self {
            key: identifier("key", &wire.key)?,
            last,
            number: wire.number,
            last_batch: wire.last_batch,
            proved: wire.proved_batches,
            inconclusive: wire.inconclusive_batches,
            alarm,
        })
    }
}

impl From<&ProofStatus> for wire::ProofStatus {
    fn from(status: &ProofStatus) -> Self {
        Self {
            attestations: status.attestations,
            attested_batch: status.attested_batch,
            required: u32::from(status.required),
            provers: status.provers.iter().map(wire::ProverStatus::from).collect(),
        }
    }
}

impl From<&Prover> for wire::ProverStatus {
    fn from(prover: &Prover) -> Self {
        let (alarm_batch, alarm) = prover.alarm.clone().unwrap_or_default();
        Self {
            key: named(&prover.key),
            last: prover.last.as_ref().map(named).unwrap_or_default(),
            number: prover.number,
            last_batch: prover.last_batch,
            proved_batches: prover.proved,
            inconclusive_batches: prover.inconclusive,
            alarm_batch,
            alarm,
        }
    }
}
