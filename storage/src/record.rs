//! The frame around every stored log record: what it is, and whether it is still that.
//!
//! `tag (8, big endian) | crc32 over tag and payload (4, big endian) | payload`. The tag is the record's
//! place (its index), so a record that a disk returns from another place is found out as well.

use bytes::Bytes;

const TAG_BYTES: usize = 8;
const CHECKSUM_BYTES: usize = 4;
/// What [`seal`] adds to a payload, in bytes.
pub const FRAME_BYTES: usize = TAG_BYTES + CHECKSUM_BYTES;

/// What [`unseal`] found instead of the record that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// Too short to hold a frame.
    #[error("only {length} bytes are left of the record")]
    Short {
        /// Bytes found.
        length: usize,
    },
    /// Checksum and content disagree.
    #[error("stored checksum {stored:#010x}, computed {computed:#010x}")]
    Checksum {
        /// Checksum in the frame.
        stored: u32,
        /// Checksum of what was read.
        computed: u32,
    },
    /// Sound, but the record of another place.
    #[error("the record of place {found} stands here")]
    Misplaced {
        /// Tag in the frame.
        found: u64,
    },
}

/// Frames a payload for its place.
#[must_use]
pub fn seal(tag: u64, payload: &[u8]) -> Vec<u8> {
    let mut sealed = Vec::with_capacity(FRAME_BYTES.saturating_add(payload.len()));
    seal_into(&mut sealed, tag, payload);
    sealed
}

/// The same, behind what the buffer holds.
pub fn seal_into(buffer: &mut Vec<u8>, tag: u64, payload: &[u8]) {
    buffer.extend_from_slice(&tag.to_be_bytes());
    buffer.extend_from_slice(&checksum(&tag.to_be_bytes(), payload).to_be_bytes());
    buffer.extend_from_slice(payload);
}

/// The payload's length of a frame of this length, in bytes.
pub(crate) fn payload_bytes(sealed_bytes: u32) -> usize {
    usize::try_from(sealed_bytes).unwrap_or(usize::MAX).saturating_sub(FRAME_BYTES)
}

/// The payload of a frame, if it is whole and belongs to this place.
///
/// # Errors
/// What is wrong with the stored bytes.
pub fn unseal(tag: u64, sealed: &Bytes) -> Result<Bytes, Damage> {
    let short = Damage::Short { length: sealed.len() };
    let (stored_tag, rest) = sealed.split_first_chunk::<TAG_BYTES>().ok_or(short)?;
    let (stored, payload) = rest.split_first_chunk::<CHECKSUM_BYTES>().ok_or(short)?;
    let (stored, computed) = (u32::from_be_bytes(*stored), checksum(stored_tag, payload));
    if stored != computed {
        return Err(Damage::Checksum { stored, computed });
    }
    let found = u64::from_be_bytes(*stored_tag);
    if found != tag {
        return Err(Damage::Misplaced { found });
    }
    Ok(sealed.slice(FRAME_BYTES..))
}

fn checksum(tag: &[u8; TAG_BYTES], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(tag);
    hasher.update(payload);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_record_has_these_bytes() {
        assert_eq!(hex::encode(seal(7, b"abc")), "00000000000000073c351185616263");
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let sealed = seal(7, b"settlement");
        assert_eq!(unseal(7, &Bytes::from(sealed.clone())), Ok(Bytes::from_static(b"settlement")));
        for position in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[position] ^= 0x10;
            assert!(matches!(unseal(7, &Bytes::from(damaged)), Err(Damage::Checksum { .. })), "byte {position}");
        }
    }

    #[test]
    fn a_cut_or_misplaced_record_is_noticed() {
        let sealed = Bytes::from(seal(7, b"settlement"));
        assert_eq!(unseal(7, &sealed.slice(..11)), Err(Damage::Short { length: 11 }));
        assert_eq!(unseal(8, &sealed), Err(Damage::Misplaced { found: 7 }));
    }
}
