//! The 32-byte names of things. Each kind is a type of its own, so that none can stand in for another.
//!
//! Content-derived identifiers are BLAKE3 over a domain tag of [`DOMAIN_BYTES`] bytes followed by the
//! canonical encoding; the tag keeps the hash of one kind of thing from ever being that of another.

use std::fmt;
use std::io::{self, Read, Write};
use std::str::FromStr;

use borsh::{BorshDeserialize, BorshSerialize};

/// Length of a domain tag, in bytes.
pub const DOMAIN_BYTES: usize = 16;

/// Text that is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected 64 hexadecimal digits, found {found:?}")]
pub struct IdentifierSyntax {
    found: String,
}

macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Wraps 32 bytes that are already known to name such a thing.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                let text = hex::encode(self.0);
                write!(formatter, "{}({}…)", stringify!($name), text.get(..8).unwrap_or(&text))
            }
        }

        impl FromStr for $name {
            type Err = IdentifierSyntax;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0_u8; 32];
                hex::decode_to_slice(text, &mut bytes)
                    .map_err(|_| IdentifierSyntax { found: text.to_owned() })?;
                Ok(Self(bytes))
            }
        }
    };
}

identifier!(
    /// A party: its Ed25519 verification key (the 32 bytes of RFC 8032).
    Party
);
identifier!(
    /// BLAKE3 of a transaction's canonical body. Signatures are not part of it and cannot change it.
    TransactionId
);
identifier!(
    /// BLAKE3 of (creating transaction, index, contract): an output's name commits to its content.
    OutputId
);
identifier!(
    /// BLAKE3 of settlement terms.
    TermsId
);
identifier!(
    /// Names one ledger for ever; every transaction carries it, so none can be replayed on another ledger.
    ClusterId
);
identifier!(
    /// BLAKE3 of the identifiers of an atomic group's members, in their order.
    AtomicGroupId
);
identifier!(
    /// BLAKE3 of a bundle's bytes.
    BundleDigest
);
identifier!(
    /// A node of the Merkle log, a log root or another plain BLAKE3 hash.
    Hash
);

impl ClusterId {
    /// The identifier of the ledger called `name`.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        Self(tagged_hash(b"seriatim cluster", &[name.as_bytes()]))
    }
}

impl BundleDigest {
    /// The digest of a bundle's encoded bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(tagged_hash(b"seriatim bundle.", &[bytes]))
    }
}

/// BLAKE3 over a domain tag and the parts, one after another. Callers make sure that the parts' encoding is
/// self-delimiting.
#[must_use]
pub fn tagged_hash(domain: &[u8; DOMAIN_BYTES], parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(domain);
    for part in parts {
        hasher.update(part);
    }
    *hasher.finalize().as_bytes()
}

/// Longest message that [`tagged_hash_of`] puts together on the stack: any output's.
const STACK_BYTES: usize = 320;

/// BLAKE3 over a domain tag, the parts, and a value's canonical encoding.
#[must_use]
pub(crate) fn tagged_hash_of<T: BorshSerialize>(domain: &[u8; DOMAIN_BYTES], parts: &[&[u8]], value: &T) -> [u8; 32] {
    let mut message = [0; STACK_BYTES];
    let mut room = message.as_mut_slice();
    let written = room.write_all(domain).and_then(|()| parts.iter().try_for_each(|part| room.write_all(part)));
    if written.and_then(|()| value.serialize(&mut room)).is_ok() {
        let length = STACK_BYTES.saturating_sub(room.len());
        return *blake3::hash(message.get(..length).unwrap_or_default()).as_bytes();
    }
    let content = canonical_bytes(value);
    let parts: Vec<&[u8]> = parts.iter().copied().chain([content.as_slice()]).collect();
    tagged_hash(domain, &parts)
}

/// The canonical encoding of a value (borsh).
///
/// # Panics
/// Where a list has 2^32 items or more, which nothing that was received or is kept within the limits has.
#[must_use]
pub fn canonical_bytes<T: BorshSerialize>(value: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    append_canonical_bytes(&mut bytes, value);
    bytes
}

/// Appends the canonical encoding of a value: for long ones, whose buffer is better made as large as it must be.
///
/// # Panics
/// As [`canonical_bytes`].
pub fn append_canonical_bytes<T: BorshSerialize>(bytes: &mut Vec<u8>, value: &T) {
    value.serialize(bytes).expect("encoding into memory cannot fail: every length fits in 32 bits");
}

/// Reads a long list of bytes, encoded as any list, into memory that was not cleared before.
pub(crate) fn read_bytes<R: Read>(reader: &mut R) -> io::Result<Vec<u8>> {
    const CAPACITY_MAX: u32 = 1 << 20;
    let length = u32::deserialize_reader(reader)?;
    let mut bytes = Vec::with_capacity(usize::try_from(length.min(CAPACITY_MAX)).unwrap_or_default());
    let read = reader.take(length.into()).read_to_end(&mut bytes)?;
    if u32::try_from(read).ok() != Some(length) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{read} bytes of {length}")));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_whole_or_not_at_all() {
        for length in [0, 1, 31, 32, 33, 5_000] {
            let bytes = vec![7; length];
            let encoded = canonical_bytes(&bytes);
            assert_eq!(read_bytes(&mut encoded.as_slice()).ok(), Some(bytes));
            for cut in 0..encoded.len() {
                assert!(read_bytes(&mut encoded.get(..cut).unwrap_or_default()).is_err(), "{cut} of {}", encoded.len());
            }
        }
        assert!(read_bytes(&mut [255; 8].as_slice()).is_err());
    }
}
