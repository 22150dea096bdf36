//! The unspent-set digest: a cheap sum that two replicas compare after every batch.
//!
//! Output ids are BLAKE3 hashes; the digest is their sum, taken as four little-endian 64-bit lanes that wrap. It
//! detects divergence and corruption. Whoever may choose ids could make sums collide, so resistance to
//! adversaries rests on the log root and the snapshot manifest, not on this.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::identifier::OutputId;

/// The sum of the ids of all live outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, BorshSerialize, BorshDeserialize)]
pub struct UnspentDigest {
    lanes: [u64; 4],
}

impl UnspentDigest {
    /// Counts an output in.
    pub fn insert(&mut self, id: &OutputId) {
        self.combine(id, u64::wrapping_add);
    }

    /// Counts an output out.
    pub fn remove(&mut self, id: &OutputId) {
        self.combine(id, u64::wrapping_sub);
    }

    fn combine(&mut self, id: &OutputId, operation: fn(u64, u64) -> u64) {
        for (lane, bytes) in self.lanes.iter_mut().zip(id.as_bytes().chunks_exact(8)) {
            let value = u64::from_le_bytes(bytes.try_into().expect("the chunks have 8 bytes"));
            *lane = operation(*lane, value);
        }
    }
}

impl std::fmt::Display for UnspentDigest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for lane in self.lanes {
            formatter.write_str(&hex::encode(lane.to_le_bytes()))?;
        }
        Ok(())
    }
}
