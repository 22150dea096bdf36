//! Ed25519 by one rule (ZIP-215), so that single and batch verification can never disagree.

use ed25519_zebra::{SigningKey as ZebraSigningKey, VerificationKey, VerificationKeyBytes, batch};
use rand_core::{CryptoRng, Error as RandomError, RngCore, impls};

use crate::identifier::{AtomicGroupId, Hash, Party, TransactionId, tagged_hash};
use crate::transaction::{Body, Signature};

/// What is signed for a transaction: a tag and the identifier, so that no other signature of the same key fits. As
/// a member of a group it is signed for that group only: its signatures are worth nothing outside.
#[must_use]
pub fn transaction_message(id: &TransactionId, group: Option<&AtomicGroupId>) -> [u8; 48] {
    match group {
        None => message(b"seriatim sign tx", id.as_bytes()),
        Some(group) => {
            let statement = tagged_hash(b"seriatim member.", &[group.as_bytes(), id.as_bytes()]);
            message(b"seriatim sign gm", &statement)
        }
    }
}

/// What is signed for a 32-byte statement of the kind that `tag` names.
#[must_use]
pub fn message(tag: &[u8; 16], statement: &[u8; 32]) -> [u8; 48] {
    let mut bytes = [0_u8; 48];
    let (front, back) = bytes.split_at_mut(16);
    front.copy_from_slice(tag);
    back.copy_from_slice(statement);
    bytes
}

/// A private key.
#[derive(Clone, Copy)]
pub struct SigningKey {
    key: ZebraSigningKey,
}

impl SigningKey {
    /// The key of a 32-byte seed.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self { key: ZebraSigningKey::from(seed) }
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> [u8; 32] {
        self.key.into()
    }

    /// The party that this key signs for.
    #[must_use]
    pub fn party(&self) -> Party {
        Party::from_bytes(VerificationKeyBytes::from(&self.key).into())
    }

    /// Signs a transaction.
    #[must_use]
    pub fn sign_transaction(&self, body: &Body) -> Signature {
        self.sign(&body.signed_message())
    }

    /// Signs a message made by [`message`].
    #[must_use]
    pub fn sign(&self, message: &[u8; 48]) -> Signature {
        Signature::from_bytes(self.key.sign(message).to_bytes())
    }
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "SigningKey(of {:?})", self.party())
    }
}

/// One signature to verify.
#[derive(Debug, Clone, Copy)]
pub struct Claim {
    /// Who is said to have signed.
    pub signer: Party,
    /// What.
    pub message: [u8; 48],
    /// The signature.
    pub signature: Signature,
}

impl Claim {
    /// True where the signature is the signer's.
    #[must_use]
    pub fn holds(&self) -> bool {
        let signature = ed25519_zebra::Signature::from(*self.signature.as_bytes());
        VerificationKey::try_from(*self.signer.as_bytes())
            .is_ok_and(|key| key.verify(&signature, &self.message).is_ok())
    }
}

/// True where all the claims hold. Costs about half of verifying each alone; the random weights that the method
/// needs are drawn from a hash of the claims, so that the answer depends on nothing else.
#[must_use]
pub fn all_hold(claims: &[Claim]) -> bool {
    let mut verifier = batch::Verifier::new();
    let mut transcript = blake3::Hasher::new();
    for claim in claims {
        transcript.update(claim.signer.as_bytes());
        transcript.update(&claim.message);
        transcript.update(claim.signature.as_bytes());
        let key = VerificationKeyBytes::from(*claim.signer.as_bytes());
        let signature = ed25519_zebra::Signature::from(*claim.signature.as_bytes());
        verifier.queue((key, signature, &claim.message));
    }
    let seed = Hash::from_bytes(tagged_hash(b"seriatim weights", &[transcript.finalize().as_bytes()]));
    verifier.verify(TranscriptRandom::new(seed)).is_ok()
}

/// The random weights of one batch verification: the output stream of BLAKE3 seeded with a hash of the batch.
struct TranscriptRandom {
    stream: blake3::OutputReader,
}

impl TranscriptRandom {
    fn new(seed: Hash) -> Self {
        Self { stream: blake3::Hasher::new_keyed(seed.as_bytes()).finalize_xof() }
    }
}

impl RngCore for TranscriptRandom {
    fn next_u32(&mut self) -> u32 {
        impls::next_u32_via_fill(self)
    }

    fn next_u64(&mut self) -> u64 {
        impls::next_u64_via_fill(self)
    }

    fn fill_bytes(&mut self, destination: &mut [u8]) {
        self.stream.fill(destination);
    }

    fn try_fill_bytes(&mut self, destination: &mut [u8]) -> Result<(), RandomError> {
        self.fill_bytes(destination);
        Ok(())
    }
}

// unpredictable to whoever made the claims: changing a claim changes every weight
impl CryptoRng for TranscriptRandom {}
