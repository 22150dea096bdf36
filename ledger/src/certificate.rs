//! Certificates: a validator's signed word on every transaction of one bundle.

use std::collections::BTreeSet;
use std::io::{self, Read};

use borsh::{BorshDeserialize, BorshSerialize};
use flaws::{Flaw, is_planted};

use crate::identifier::{BundleDigest, Party, canonical_bytes, tagged_hash};
use crate::signature::{Claim, SigningKey, message};
use crate::transaction::Signature;

/// One bit per transaction of a bundle, in order; set where the transaction passed.
///
/// One list of verdicts has one encoding: as many bytes as it takes, first transaction in the lowest bit of the
/// first byte, and zeros above the last. Anything else does not decode.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize)]
pub struct VerdictBitmap {
    transactions: u32,
    bits: Vec<u8>,
}

impl VerdictBitmap {
    /// Packs verdicts.
    ///
    /// # Panics
    /// Beyond 2^32 verdicts; bundles hold some thousand.
    #[must_use]
    pub fn of(verdicts: &[bool]) -> Self {
        // from the last verdict of a byte to the first, so that the first ends in the lowest bit
        let pack = |verdicts: &[bool]| verdicts.iter().rev().fold(0_u8, |byte, passed| (byte << 1) | u8::from(*passed));
        let bits = verdicts.chunks(8).map(pack).collect();
        Self { transactions: u32::try_from(verdicts.len()).expect("bundles are small"), bits }
    }

    /// The verdict on transaction `index`; `None` beyond the bundle.
    #[must_use]
    pub fn passed(&self, index: usize) -> Option<bool> {
        if index >= self.len() {
            return None;
        }
        let byte = self.bits.get(index.checked_div(8)?)?;
        let shift = u32::try_from(index.checked_rem(8)?).ok()?;
        Some(byte.checked_shr(shift)? & 1 == 1)
    }

    /// Number of verdicts.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.transactions).unwrap_or(usize::MAX)
    }

    /// True where there is no verdict at all.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.transactions == 0
    }

    /// True where no transaction passed.
    #[must_use]
    pub fn none_passed(&self) -> bool {
        self.bits.iter().all(|byte| *byte == 0)
    }
}

impl BorshDeserialize for VerdictBitmap {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        let transactions = u32::deserialize_reader(reader)?;
        let bits = Vec::<u8>::deserialize_reader(reader)?;
        let whole = u32::try_from(bits.len()) == Ok(transactions.div_ceil(8));
        let used_of_last = transactions.checked_rem(8).filter(|used| *used != 0).unwrap_or(8);
        let above_last = bits.last().and_then(|last| last.checked_shr(used_of_last)).unwrap_or(0);
        if !whole || above_last != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a verdict bitmap has one bit per transaction"));
        }
        Ok(Self { transactions, bits })
    }
}

/// What a validator signs.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Attested {
    /// Which bundle.
    pub bundle: BundleDigest,
    /// What the validator found.
    pub verdicts: VerdictBitmap,
    /// The validator set in force, by its epoch.
    pub epoch: u64,
}

impl Attested {
    fn message(&self) -> [u8; 48] {
        message(b"seriatim certify", &tagged_hash(b"seriatim verdict", &[&canonical_bytes(self)]))
    }

    /// Signs as the validator with this key.
    #[must_use]
    pub fn certify(self, key: &SigningKey) -> Certificate {
        let signature = key.sign(&self.message());
        Certificate { validator: key.party(), attested: self, signature }
    }
}

/// A validator's signature over its verdicts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct Certificate {
    /// The validator's key.
    pub validator: Party,
    /// What it signed.
    pub attested: Attested,
    /// The signature.
    pub signature: Signature,
}

/// Which keys are validators, and how many must agree. Replicated configuration: the epoch grows with every change.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ValidatorSet {
    /// Counts the changes.
    pub epoch: u64,
    /// Certificates that a bundle needs, from different validators; at least 1.
    pub required: u16,
    /// The validators' keys.
    pub keys: BTreeSet<Party>,
}

/// Why certificates do not admit a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateFault {
    /// It is for another bundle, or has another number of verdicts.
    #[error("a certificate is for another bundle")]
    OtherBundle,
    /// It was made under another validator set.
    #[error("a certificate is of epoch {found}, the validator set is of epoch {current}")]
    OtherEpoch {
        /// The certificate's epoch.
        found: u64,
        /// The epoch in force.
        current: u64,
    },
    /// Its maker is no validator.
    #[error("{0} is not a validator")]
    NotAValidator(Party),
    /// Its signature is not the validator's.
    #[error("a certificate of {0} carries a false signature")]
    FalseSignature(Party),
    /// Validators contradict each other.
    #[error("certificates disagree on the verdicts")]
    Disagreement,
    /// Fewer validators than required.
    #[error("{found} of {required} certificates")]
    TooFew {
        /// Different validators found.
        found: usize,
        /// Required.
        required: u16,
    },
}

impl ValidatorSet {
    /// The verdicts that the certificates establish for this bundle.
    ///
    /// # Errors
    /// Where any certificate is wrong, or there are too few.
    pub fn admit<'a>(
        &self,
        bundle: &BundleDigest,
        transactions: usize,
        certificates: &'a [Certificate],
    ) -> Result<&'a VerdictBitmap, CertificateFault> {
        let mut validators = BTreeSet::new();
        let mut agreed: Option<&VerdictBitmap> = None;
        for certificate in certificates {
            self.check(bundle, transactions, certificate)?;
            if *agreed.get_or_insert(&certificate.attested.verdicts) != &certificate.attested.verdicts {
                return Err(CertificateFault::Disagreement);
            }
            validators.insert(certificate.validator);
        }
        let enough = validators.len() >= usize::from(self.required.max(1));
        agreed.filter(|_| enough).ok_or(CertificateFault::TooFew { found: validators.len(), required: self.required })
    }

    fn check(
        &self,
        bundle: &BundleDigest,
        transactions: usize,
        certificate: &Certificate,
    ) -> Result<(), CertificateFault> {
        let attested = &certificate.attested;
        if attested.bundle != *bundle || attested.verdicts.len() != transactions {
            return Err(CertificateFault::OtherBundle);
        }
        if attested.epoch != self.epoch && !is_planted(Flaw::OldEpochAccepted) {
            return Err(CertificateFault::OtherEpoch { found: attested.epoch, current: self.epoch });
        }
        if !self.keys.contains(&certificate.validator) {
            return Err(CertificateFault::NotAValidator(certificate.validator));
        }
        let claim =
            Claim { signer: certificate.validator, message: attested.message(), signature: certificate.signature };
        if claim.holds() || is_planted(Flaw::CertificateUnchecked) {
            Ok(())
        } else {
            Err(CertificateFault::FalseSignature(certificate.validator))
        }
    }
}
