//! Bundles: many submissions in one log entry, so that consensus costs per bundle and not per transaction.
//!
//! ```text
//! version u8 = 1
//! submissions u32, then for each:
//!     stamp u64        transactions applied at the gateway when the submission arrived
//!     members u16      1 for a single transaction, more for an atomic group
//!     for each member: length u32, canonical transaction bytes
//! ```
//! Integers are little-endian. The layout is read without decoding any transaction, so that gateways, validators
//! and replicas share one buffer and decode in parallel.

use std::ops::Range;

use crate::identifier::BundleDigest;
use crate::limits::Limits;
use crate::quantity::Sequence;

/// The layout's version.
const VERSION: u8 = 1;

/// Why bytes are not a bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleFault {
    /// The bytes end early, go on too long or carry another version.
    #[error("not a bundle of version {VERSION}: {0}")]
    Malformed(&'static str),
    /// More bytes or transactions than the limits allow.
    #[error("the bundle exceeds the limit of {0}")]
    TooLarge(&'static str),
}

/// One submission inside a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The log position that its gateway had applied when it arrived: the lower bound of its place in real time.
    pub stamp: Sequence,
    /// Its members as indexes into [`BundleLayout::members`].
    pub members: Range<usize>,
}

/// Where everything is in a bundle's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleParts {
    submissions: Vec<Submission>,
    members: Vec<Range<usize>>,
}

/// The parts of a bundle, and its digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleLayout {
    digest: BundleDigest,
    parts: BundleParts,
}

impl BundleLayout {
    /// Reads the layout of `bytes`, and hashes them.
    ///
    /// # Errors
    /// Where the bytes are not a bundle, or exceed the limits.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, BundleFault> {
        let parts = BundleParts::read(bytes, limits)?;
        Ok(Self { digest: BundleDigest::of(bytes), parts })
    }

    /// The digest of the bytes that were read.
    #[must_use]
    pub const fn digest(&self) -> BundleDigest {
        self.digest
    }

    /// The submissions in order.
    #[must_use]
    pub fn submissions(&self) -> &[Submission] {
        self.parts.submissions()
    }

    /// Byte ranges of the transactions in order.
    #[must_use]
    pub fn members(&self) -> &[Range<usize>] {
        self.parts.members()
    }
}

impl BundleParts {
    /// Finds the parts of `bytes`.
    ///
    /// # Errors
    /// Where the bytes are not a bundle, or exceed the limits.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Self, BundleFault> {
        if bytes.len() > limits.bundle_bytes_max {
            return Err(BundleFault::TooLarge("bytes"));
        }
        let mut cursor = Cursor { bytes, position: 0 };
        if cursor.take::<1>()? != [VERSION] {
            return Err(BundleFault::Malformed("unknown version"));
        }
        let submissions_count = u32::from_le_bytes(cursor.take()?);
        let mut submissions = Vec::new();
        let mut members = Vec::new();
        for _ in 0..submissions_count {
            let stamp = Sequence::new(u64::from_le_bytes(cursor.take()?));
            let first = members.len();
            for _ in 0..u16::from_le_bytes(cursor.take()?) {
                let length = u32::from_le_bytes(cursor.take()?);
                members.push(cursor.skip(usize::try_from(length).unwrap_or(usize::MAX))?);
            }
            if members.len() == first {
                return Err(BundleFault::Malformed("a submission without members"));
            }
            if members.len() > limits.bundle_transactions_max {
                return Err(BundleFault::TooLarge("transactions"));
            }
            submissions.push(Submission { stamp, members: first..members.len() });
        }
        if cursor.position != bytes.len() {
            return Err(BundleFault::Malformed("bytes after the last submission"));
        }
        Ok(Self { submissions, members })
    }

    /// The submissions in order.
    #[must_use]
    pub fn submissions(&self) -> &[Submission] {
        &self.submissions
    }

    /// Byte ranges of the transactions in order.
    #[must_use]
    pub fn members(&self) -> &[Range<usize>] {
        &self.members
    }
}

/// Writes a bundle.
#[derive(Debug)]
pub struct BundleBuilder {
    bytes: Vec<u8>,
    submissions: u32,
    transactions: usize,
}

impl BundleBuilder {
    /// An empty bundle.
    #[must_use]
    pub fn new() -> Self {
        let mut bytes = vec![VERSION];
        bytes.extend_from_slice(&0_u32.to_le_bytes());
        Self { bytes, submissions: 0, transactions: 0 }
    }

    /// Encoded size so far, in bytes.
    #[must_use]
    pub fn bytes_len(&self) -> usize {
        self.bytes.len()
    }

    /// Transactions so far.
    #[must_use]
    pub const fn transactions(&self) -> usize {
        self.transactions
    }

    /// Size that a submission adds, in bytes.
    #[must_use]
    pub fn submission_bytes<B: AsRef<[u8]>>(members: &[B]) -> usize {
        members.iter().fold(10, |sum: usize, member| sum.saturating_add(4).saturating_add(member.as_ref().len()))
    }

    /// True where the submission still fits into the limits.
    #[must_use]
    pub fn fits<B: AsRef<[u8]>>(&self, members: &[B], limits: &Limits) -> bool {
        self.bytes.len().saturating_add(Self::submission_bytes(members)) <= limits.bundle_bytes_max
            && self.transactions.saturating_add(members.len()) <= limits.bundle_transactions_max
    }

    /// Appends a submission.
    ///
    /// # Panics
    /// Where it has no members or does not fit: callers ask [`Self::fits`] first.
    pub fn push<B: AsRef<[u8]>>(&mut self, stamp: Sequence, members: &[B]) {
        assert!(!members.is_empty(), "a submission has members");
        let count = u16::try_from(members.len()).expect("the limits keep groups below 2^16 members");
        self.bytes.extend_from_slice(&stamp.get().to_le_bytes());
        self.bytes.extend_from_slice(&count.to_le_bytes());
        for member in members {
            let length = u32::try_from(member.as_ref().len()).expect("the limits keep transactions below 2^32 bytes");
            self.bytes.extend_from_slice(&length.to_le_bytes());
            self.bytes.extend_from_slice(member.as_ref());
        }
        self.submissions = self.submissions.checked_add(1).expect("the limits keep bundles small");
        self.transactions = self.transactions.saturating_add(members.len());
    }

    /// The bundle's bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        if let Some(count) = self.bytes.get_mut(1..5) {
            count.copy_from_slice(&self.submissions.to_le_bytes());
        }
        self.bytes
    }
}

impl Default for BundleBuilder {
    fn default() -> Self {
        Self::new()
    }
}

struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
}

impl Cursor<'_> {
    fn skip(&mut self, length: usize) -> Result<Range<usize>, BundleFault> {
        let start = self.position;
        let end = start.checked_add(length).filter(|end| *end <= self.bytes.len());
        self.position = end.ok_or(BundleFault::Malformed("the bytes end early"))?;
        Ok(start..self.position)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], BundleFault> {
        let range = self.skip(N)?;
        let taken = self.bytes.get(range).and_then(|bytes| bytes.try_into().ok());
        taken.ok_or(BundleFault::Malformed("the bytes end early"))
    }
}
