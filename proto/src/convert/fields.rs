//! Single fields: identifiers, canonical bytes, numbers.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use ledger::identifier::canonical_bytes;
use ledger::{AtomicGroupId, ClusterId, Hash, OutputId, Party, TermsId, TransactionId};

use super::{ConversionFault, Doubt};

/// A 32-byte name of the ledger.
pub trait Identifier: Copy {
    /// Wraps 32 bytes.
    fn wrap(bytes: [u8; 32]) -> Self;
    /// The 32 bytes.
    fn bytes(&self) -> &[u8; 32];
}

macro_rules! identifiers {
    ($($name:ident),+) => {$(
        impl Identifier for $name {
            fn wrap(bytes: [u8; 32]) -> Self {
                Self::from_bytes(bytes)
            }

            fn bytes(&self) -> &[u8; 32] {
                self.as_bytes()
            }
        }
    )+};
}

identifiers!(AtomicGroupId, ClusterId, Hash, OutputId, Party, TermsId, TransactionId);

/// Reads an identifier.
///
/// # Errors
/// Where it is missing or not 32 bytes long.
pub fn identifier<T: Identifier>(field: &'static str, bytes: &[u8]) -> Result<T, ConversionFault> {
    if bytes.is_empty() {
        return Err(ConversionFault::missing(field));
    }
    let wrong_length = |_| ConversionFault::new(field, Doubt::Length { expected: 32, found: bytes.len() });
    Ok(T::wrap(bytes.try_into().map_err(wrong_length)?))
}

/// Reads canonical bytes.
///
/// # Errors
/// Where they are missing, or not exactly one canonical encoding.
pub fn canonical<T: BorshDeserialize>(field: &'static str, bytes: &[u8]) -> Result<T, ConversionFault> {
    if bytes.is_empty() {
        return Err(ConversionFault::missing(field));
    }
    T::try_from_slice(bytes).map_err(|fault| ConversionFault::new(field, Doubt::NotCanonical(fault.to_string())))
}

/// The canonical bytes as they travel.
pub(super) fn encoded<T: BorshSerialize>(value: &T) -> Bytes {
    canonical_bytes(value).into()
}

/// An identifier as it travels.
pub(super) fn named<T: Identifier>(value: &T) -> Bytes {
    Bytes::copy_from_slice(value.bytes())
}

/// Reads a part of a message that has to be there.
pub(super) fn present<T>(field: &'static str, part: Option<T>) -> Result<T, ConversionFault> {
    part.ok_or(ConversionFault::missing(field))
}

/// Reads a number into a narrower type.
pub(super) fn narrow<T: TryFrom<u64>>(field: &'static str, number: u64) -> Result<T, ConversionFault> {
    T::try_from(number).map_err(|_too_large| ConversionFault::new(field, Doubt::OutOfRange(number)))
}
