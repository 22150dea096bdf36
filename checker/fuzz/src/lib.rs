//! What the decoders of what provers hand out must do with any bytes: refuse, or return a value whose encoding is those
//! very bytes. Checking such a value ends, and neither panics nor allocates much more than it was given.

use borsh::BorshDeserialize;
use checker::{Attestation, Chunk, Replay, ReplayCopy, Statement};
use ledger::ClusterId;
use ledger::identifier::canonical_bytes;

/// An attestation: none that decodes is anybody's whom nobody trusts.
pub fn attestation(bytes: &[u8]) {
    let Ok(attestation) = Attestation::try_from_slice(bytes) else { return };
    assert_eq!(canonical_bytes(&attestation), bytes);
    assert!(attestation.verify_signature(&[]).is_err());
}

/// A batch's evidence: a replay from the beginning finds something in it, or proves it.
pub fn evidence(bytes: &[u8]) {
    let Ok(chunk) = Chunk::try_from_slice(bytes) else { return };
    assert_eq!(canonical_bytes(&chunk), bytes);
    let mut replay = Replay::genesis(chunk.cluster, chunk.group, 7);
    let _found = replay.accept(&chunk);
    let _statement = Statement::of(&[chunk]);
}

/// A replay's copy, and its content without the hash that guards it.
pub fn replay_copy(bytes: &[u8]) {
    if let Ok(copy) = ReplayCopy::from_bytes(bytes) {
        assert_eq!(copy.to_bytes(), bytes);
    }
    let Ok(copy) = ReplayCopy::try_from_slice(bytes) else { return };
    assert_eq!(canonical_bytes(&copy), bytes);
    let Some(cluster) = bytes.first_chunk::<32>() else { return };
    let _replay = copy.replay(ClusterId::from_bytes(*cluster), 7);
}
