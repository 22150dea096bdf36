//! What pools and validators say to each other. Every message begins with its version, one byte.
//!
//! ```text
//! request       version u8 = 1, epoch u64 little-endian, then the bundle's bytes to the end
//! reply         version u8 = 1, borsh of ValidateReply
//! announcement  version u8 = 1, borsh of Announcement
//! ```
//! These are not the ledger's canonical forms: they live as long as one call.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::{BufMut, Bytes, BytesMut};
use ledger::certificate::{Certificate, VerdictBitmap};
use ledger::check::LedgerIdentity;
use ledger::identifier::{canonical_bytes, tagged_hash};
use ledger::signature::{Claim, SigningKey, message};
use ledger::{ClusterId, Party, Rejection, Signature};
use seams::Address;

/// The version of every message here.
const VERSION: u8 = 1;

/// Version and epoch, in bytes.
const REQUEST_HEADER_BYTES: usize = 9;

/// An announced address, in bytes: a host name of 253, a colon and a port.
const ADDRESS_BYTES_MAX: usize = 259;

/// A validator refuses because it is working on as many bundles as it may: come back later.
pub const REFUSED_OVERLOADED: u16 = 1;
/// A validator or pool refuses because the message or its bundle cannot be read.
pub const REFUSED_MALFORMED: u16 = 2;
/// A validator refuses a method that is not its business.
pub const REFUSED_METHOD: u16 = 3;
/// A pool refuses an announcement: false signature, other ledger, or more unknown keys than it wants to hear of.
pub const REFUSED_ANNOUNCEMENT: u16 = 4;

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum MessageFault {
    /// There is nothing.
    #[error("the message is empty")]
    Empty,
    /// It is of another version.
    #[error("message of version {0}; this program knows version {VERSION}")]
    Version(u8),
    /// It does not decode.
    #[error("not a message of version {VERSION}: {0}")]
    Malformed(#[source] io::Error),
}

/// A pool asks for verdicts on a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValidateRequest {
    /// The epoch of the validator set that the certificate is for.
    pub epoch: u64,
    /// The bundle ([`ledger::bundle`]).
    pub bundle: Bytes,
}

impl ValidateRequest {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut bytes = BytesMut::with_capacity(REQUEST_HEADER_BYTES + self.bundle.len());
        bytes.put_u8(VERSION);
        bytes.put_u64_le(self.epoch);
        bytes.put_slice(&self.bundle);
        bytes.freeze()
    }

    /// Reads a request. The bundle shares the message's buffer, and is not judged here.
    ///
    /// # Errors
    /// Where the message has another version or ends early.
    pub fn decode(body: &Bytes) -> Result<Self, MessageFault> {
        let mut header = rest_of_version(body)?;
        let epoch = u64::deserialize(&mut header).map_err(MessageFault::Malformed)?;
        Ok(Self { epoch, bundle: body.slice(REQUEST_HEADER_BYTES..) })
    }
}

/// A validator's answer.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ValidateReply {
    /// Its signed verdicts.
    pub certificate: Certificate,
    /// Index and reason of every transaction that did not pass, ascending. Not signed: the certificate holds
    /// what replicas need, and the reasons are for the senders.
    pub rejections: Vec<(u32, Rejection)>,
}

impl ValidateReply {
    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        versioned(self)
    }

    /// Reads a reply.
    ///
    /// # Errors
    /// Where the message has another version or is not exactly a reply.
    pub fn decode(body: &[u8]) -> Result<Self, MessageFault> {
        Self::try_from_slice(rest_of_version(body)?).map_err(MessageFault::Malformed)
    }

    /// True where there is exactly one reason for each transaction that did not pass, and the bitmap is packed
    /// the one way that [`VerdictBitmap::of`] packs it.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let mut passed = vec![true; self.certificate.attested.verdicts.len()];
        let mut next = 0;
        for (index, _) in &self.rejections {
            let Some(place) = passed.get_mut(position(*index)).filter(|_| *index >= next) else { return false };
            *place = false;
            next = index.saturating_add(1);
        }
        VerdictBitmap::of(&passed) == self.certificate.attested.verdicts
    }

    /// The reasons by index into the bundle.
    #[must_use]
    pub fn into_parts(self) -> (Certificate, Vec<(usize, Rejection)>) {
        let rejections = self.rejections.into_iter().map(|(index, reason)| (position(index), reason)).collect();
        (self.certificate, rejections)
    }
}

/// A validator says that it is there and where.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Announcement {
    cluster: ClusterId,
    group: u16,
    address: String,
    validator: Party,
    announced_unix_ms: u64,
    signature: Signature,
}

/// Why an announcement is not believed.
#[derive(Debug, thiserror::Error)]
pub enum AnnouncementFault {
    /// It cannot be read.
    #[error(transparent)]
    Message(#[from] MessageFault),
    /// It names no address.
    #[error("the announced address is empty or longer than {ADDRESS_BYTES_MAX} bytes")]
    Address,
    /// It is meant for another ledger.
    #[error("the announcement is for another ledger")]
    OtherLedger,
    /// Its signature is not the announced key's.
    #[error("the announcement of {0} carries a false signature")]
    FalseSignature(Party),
    /// Its key is in no validator set known here, and the pool remembers enough of those already.
    #[error("{0} is not a validator, and too many unknown keys announce themselves")]
    TooManyUnknown(Party),
    /// The pool knows enough instances of this validator.
    #[error("too many instances of validator {0} announce themselves")]
    TooManyInstances(Party),
    /// It is much older than what other instances of this validator announce.
    #[error("this announcement of validator {0} is old: it was repeated, or the clock it was made by is behind")]
    Overtaken(Party),
}

impl Announcement {
    /// Announces the validator with this key at `address`, at this time of its clock.
    #[must_use]
    pub fn new(identity: &LedgerIdentity, address: &Address, announced_unix_ms: u64, key: &SigningKey) -> Self {
        let mut announcement = Self {
            cluster: identity.cluster,
            group: identity.group,
            address: address.as_str().to_owned(),
            validator: key.party(),
            announced_unix_ms,
            signature: Signature::from_bytes([0; 64]),
        };
        announcement.signature = key.sign(&announcement.signed_message());
        announcement
    }

    /// The message.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        versioned(self)
    }

    /// Reads an announcement for this ledger and verifies its signature.
    ///
    /// # Errors
    /// Where it cannot be read, is for another ledger, or was not made by the key that it announces.
    pub fn decode(body: &[u8], identity: &LedgerIdentity) -> Result<Self, AnnouncementFault> {
        let announcement = Self::try_from_slice(rest_of_version(body)?).map_err(MessageFault::Malformed)?;
        if !(1..=ADDRESS_BYTES_MAX).contains(&announcement.address.len()) {
            return Err(AnnouncementFault::Address);
        }
        if (announcement.cluster, announcement.group) != (identity.cluster, identity.group) {
            return Err(AnnouncementFault::OtherLedger);
        }
        let message = announcement.signed_message();
        let claim = Claim { signer: announcement.validator, message, signature: announcement.signature };
        if claim.holds() { Ok(announcement) } else { Err(AnnouncementFault::FalseSignature(announcement.validator)) }
    }

    /// Where the validator listens.
    #[must_use]
    pub fn address(&self) -> Address {
        Address::new(self.address.clone())
    }

    /// Its key.
    #[must_use]
    pub const fn validator(&self) -> Party {
        self.validator
    }

    /// The time of the validator's own clock: tells a newer announcement from an older one, nothing else.
    #[must_use]
    pub const fn announced_unix_ms(&self) -> u64 {
        self.announced_unix_ms
    }

    fn signed_message(&self) -> [u8; 48] {
        let unsigned = (self.cluster, self.group, &self.address, self.validator, self.announced_unix_ms);
        let statement = tagged_hash(b"seriatim annstmt", &[&canonical_bytes(&unsigned)]);
        message(b"seriatim announc", &statement)
    }
}

fn versioned<T: BorshSerialize>(value: &T) -> Bytes {
    let mut bytes = vec![VERSION];
    bytes.extend_from_slice(&canonical_bytes(value));
    bytes.into()
}

fn rest_of_version(body: &[u8]) -> Result<&[u8], MessageFault> {
    match body.split_first() {
        Some((&VERSION, rest)) => Ok(rest),
        Some((version, _)) => Err(MessageFault::Version(*version)),
        None => Err(MessageFault::Empty),
    }
}

fn position(index: u32) -> usize {
    usize::try_from(index).unwrap_or(usize::MAX)
}
