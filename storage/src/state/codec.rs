//! Keys and values of the ledger's tables. Part of the disk format: integers in keys are big-endian, so that rows sort
//! by them.

use std::cmp::Ordering;
use std::ops::RangeInclusive;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::view::{LiveOutput, Place};
use ledger::{AssetType, Contract, Origin, OutputId, Party, Sequence, TransactionId};

/// Longest prefix of an [`OwnerKey`]: holder, issuer, symbol, kind.
const PREFIX_BYTES: usize = 32 + 32 + 16 + 1;
const OWNER_KEY_BYTES: usize = PREFIX_BYTES + 32;

/// A row of `Owners`: holder, asset, kind of contract, output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct OwnerKey([u8; OWNER_KEY_BYTES]);

/// The order of the bytes. Holders differ in their first word nearly always, which is compared without a call.
impl Ord for OwnerKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let word = |key: &Self| key.0.first_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes));
        word(self).cmp(&word(other)).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for OwnerKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Kinds of contract in [`OwnerKey`].
const POSITION: u8 = 0;
const GRANT: u8 = 1;
const ALLOCATION: u8 = 2;

impl OwnerKey {
    pub(super) fn of(output: &LiveOutput) -> Self {
        let kind = match output.contract {
            Contract::Position(_) => POSITION,
            Contract::Grant(_) => GRANT,
            Contract::Allocation(_) => ALLOCATION,
        };
        let mut bytes = [0; OWNER_KEY_BYTES];
        let (front, id) = bytes.split_at_mut(PREFIX_BYTES);
        front.copy_from_slice(&prefix(&output.contract.holder(), &output.contract.asset(), kind));
        id.copy_from_slice(output.id.as_bytes());
        Self(bytes)
    }

    pub(super) const fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The smallest key that starts with `prefix`.
    pub(super) fn lower_bound(prefix: &[u8]) -> Self {
        let mut bytes = [0; OWNER_KEY_BYTES];
        bytes.iter_mut().zip(prefix).for_each(|(slot, byte)| *slot = *byte);
        Self(bytes)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(bytes.try_into().ok()?))
    }

    pub(super) fn output(&self) -> OutputId {
        let id = self.0.last_chunk::<32>().expect("the key ends with the output's name");
        OutputId::from_bytes(*id)
    }
}

fn prefix(holder: &Party, asset: &AssetType, kind: u8) -> [u8; PREFIX_BYTES] {
    let mut bytes = [kind; PREFIX_BYTES];
    let (parties, rest) = bytes.split_at_mut(64);
    let (holders, issuers) = parties.split_at_mut(32);
    let (symbols, _kind) = rest.split_at_mut(16);
    holders.copy_from_slice(holder.as_bytes());
    issuers.copy_from_slice(asset.issuer.as_bytes());
    symbols.copy_from_slice(asset.symbol.padded());
    bytes
}

/// Prefix of the keys of an owner's positions of one asset.
pub(super) fn positions_prefix(owner: &Party, asset: &AssetType) -> [u8; PREFIX_BYTES] {
    prefix(owner, asset, POSITION)
}

/// Value of `Live`.
#[derive(BorshSerialize, BorshDeserialize)]
struct LiveRow {
    origin: Origin,
    sequence: u64,
    contract: Contract,
}

pub(super) fn append_live(value: &mut Vec<u8>, output: &LiveOutput) {
    let row = LiveRow { origin: output.origin, sequence: output.place.sequence.get(), contract: output.contract };
    ledger::identifier::append_canonical_bytes(value, &row);
}

pub(super) fn read_live(id: OutputId, value: &[u8]) -> Option<LiveOutput> {
    let row = LiveRow::try_from_slice(value).ok()?;
    let place = Place { sequence: Sequence::new(row.sequence), index: row.origin.index };
    Some(LiveOutput { id, origin: row.origin, place, contract: row.contract })
}

/// Key of `Spent`: the places of a transaction that created outputs and of one that consumed some of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SpentKey {
    creator: Sequence,
    spender: Sequence,
}

impl SpentKey {
    pub(super) const fn new(creator: Sequence, spender: Sequence) -> Self {
        Self { creator, spender }
    }

    /// The keys of everything that was consumed of one transaction's outputs.
    pub(super) fn all_of(creator: Sequence) -> RangeInclusive<Self> {
        Self::new(creator, Sequence::default())..=Self::new(creator, Sequence::new(u64::MAX))
    }

    /// The first key of this creator and later ones.
    pub(super) const fn first_of(creator: Sequence) -> Self {
        Self::new(creator, Sequence::new(0))
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (creator, spender) = read_pair(bytes)?;
        Some(Self::new(Sequence::new(creator), Sequence::new(spender)))
    }

    pub(super) const fn creator(&self) -> Sequence {
        self.creator
    }

    /// What those keys start with.
    pub(super) const fn prefix(creator: Sequence) -> [u8; 8] {
        creator.get().to_be_bytes()
    }

    pub(super) fn encode(&self) -> [u8; 16] {
        pair(self.creator.get(), self.spender.get())
    }
}

/// Value of `Spent`: who consumed, which outputs, and enough of their names to tell them from forgeries of the same
/// origin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SpentRow {
    pub(super) winner: TransactionId,
    outputs: Vec<(u16, [u8; 8])>,
}

const SPENT_OUTPUT_BYTES: usize = 2 + 8;

impl SpentRow {
    pub(super) const fn new(winner: TransactionId) -> Self {
        Self { winner, outputs: Vec::new() }
    }

    pub(super) fn add(&mut self, index: u16, id: &OutputId) {
        self.outputs.push((index, name_of(id)));
    }

    pub(super) fn has(&self, index: u16, id: &OutputId) -> bool {
        self.outputs.contains(&(index, name_of(id)))
    }

    pub(super) fn append(&self, value: &mut Vec<u8>) {
        value.extend_from_slice(self.winner.as_bytes());
        for (index, name) in &self.outputs {
            value.extend_from_slice(&index.to_be_bytes());
            value.extend_from_slice(name);
        }
    }

    pub(super) fn decode(value: &[u8]) -> Option<Self> {
        let (winner, rest) = value.split_first_chunk::<32>()?;
        let (outputs, left_over) = rest.as_chunks::<SPENT_OUTPUT_BYTES>();
        let output = |bytes: &[u8; SPENT_OUTPUT_BYTES]| {
            let (index, name) = bytes.split_first_chunk::<2>()?;
            Some((u16::from_be_bytes(*index), name.try_into().ok()?))
        };
        let outputs = outputs.iter().map(output).collect::<Option<_>>()?;
        left_over.is_empty().then_some(Self { winner: TransactionId::from_bytes(*winner), outputs })
    }
}

fn name_of(id: &OutputId) -> [u8; 8] {
    *id.as_bytes().first_chunk().expect("a name has 32 bytes")
}

/// Value of `Transactions`: place and batch.
pub(super) fn transaction_value(sequence: Sequence, batch: u64) -> [u8; 16] {
    pair(sequence.get(), batch)
}

pub(super) fn read_transaction(value: &[u8]) -> Option<(Sequence, u64)> {
    let (sequence, batch) = read_pair(value)?;
    Some((Sequence::new(sequence), batch))
}

/// Key of `Heads`: log size after the batch, number of the batch.
pub(super) fn head_key(size: Sequence, batch: u64) -> [u8; 16] {
    pair(size.get(), batch)
}

pub(super) fn read_head_key(key: &[u8]) -> Option<(Sequence, u64)> {
    read_transaction(key)
}

fn pair(first: u64, second: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (front, back) = bytes.split_at_mut(8);
    front.copy_from_slice(&first.to_be_bytes());
    back.copy_from_slice(&second.to_be_bytes());
    bytes
}

fn read_pair(bytes: &[u8]) -> Option<(u64, u64)> {
    let (first, second) = bytes.split_first_chunk::<8>()?;
    Some((u64::from_be_bytes(*first), u64::from_be_bytes(second.try_into().ok()?)))
}
