//! Evidence: what a ledger claims to have done with a run of transactions.
//!
//! Everything here is a claim, and may be wrong in any part. A chunk lies within one batch and never splits an atomic
//! group.

use std::cell::Cell;
use std::io::{self, Read, Write};

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::entry::ConfigurationChange;
use ledger::identifier::{append_canonical_bytes, canonical_bytes, tagged_hash};
use ledger::transaction::ReceivedTransaction;
use ledger::{
    AtomicGroupId, ClusterId, Contract, Hash, Head, LogTime, Origin, Outcome, OutcomeRecord, OutputId, Sequence,
    TransactionId, merkle,
};

use crate::frontier::Frontier;
use crate::hashing::{NameHashing, NameMap};

/// What has become of an output at a place of the order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub enum Fate {
    /// It was never created.
    Absent,
    /// It exists and is not consumed.
    Live {
        /// The place of the transaction that created it.
        created_at: Sequence,
    },
    /// It was consumed.
    Spent {
        /// By which transaction.
        by: TransactionId,
    },
}

impl Fate {
    /// True for an output that can be consumed.
    #[must_use]
    pub const fn is_live(&self) -> bool {
        matches!(self, Self::Live { .. })
    }
}

/// An output that a chunk names, and what became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Touched {
    /// Its name.
    pub id: OutputId,
    /// Where it comes from, or would.
    pub origin: Origin,
    /// What it holds, or would.
    pub contract: Contract,
    /// Its state before the chunk.
    pub before: Fate,
    /// Its state after the chunk.
    pub after: Fate,
}

/// One transaction of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub sequence: Sequence,
    /// The transaction.
    pub received: ReceivedTransaction,
    /// How it ended.
    pub outcome: Outcome,
    /// What was seen of each input (of a command: of each output that it chose), then of each reference, where it
    /// stood: with the effects of the members of its group before it, up to the member that failed. `None` where
    /// nobody says.
    pub observations: Vec<Option<Fate>>,
    /// The log root of the size that the transaction's signed head names, if a batch ended there.
    pub observed_root: Option<Hash>,
    /// Transactions that its gateway had applied when it arrived.
    pub invoked: Sequence,
    /// Transactions that its gateway had applied when it answered; `None` where nobody says.
    pub responded: Option<Sequence>,
}

impl Entry {
    /// The transaction's name.
    #[must_use]
    pub const fn id(&self) -> TransactionId {
        self.received.id()
    }

    /// The line of the ledger that this entry claims.
    #[must_use]
    pub fn record(&self, log_time: LogTime) -> OutcomeRecord {
        OutcomeRecord {
            sequence: self.sequence,
            transaction: self.id(),
            stamp: self.invoked,
            log_time,
            outcome: self.outcome.clone(),
        }
    }

    /// The leaf of that line in the Merkle log.
    #[must_use]
    pub fn leaf(&self, log_time: LogTime) -> Hash {
        let mut bytes = Vec::with_capacity(RECORD_BYTES);
        append_canonical_bytes(&mut bytes, &self.record(log_time));
        merkle::leaf_hash(&bytes)
    }
}

/// Room for the canonical bytes of nearly every record.
const RECORD_BYTES: usize = 192;

/// A run of transactions of one batch with everything that is claimed of it.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Chunk {
    /// The ledger.
    pub cluster: ClusterId,
    /// Its Raft group.
    pub group: u16,
    /// The batch.
    pub batch: u64,
    /// The batch's log time.
    pub log_time: LogTime,
    /// The frontier before.
    pub before: Frontier,
    /// The right edge of the Merkle log before.
    pub log: merkle::Frontier,
    /// The transactions in their order.
    pub entries: Vec<Entry>,
    /// All members of groups that were barred because some of them had been sequenced before.
    pub barred: Vec<Vec<TransactionId>>,
    /// Every output that the transactions name, in the order in which they name it first.
    pub touched: Vec<Touched>,
    /// The change of the replicated configuration that the batch is, where it is one.
    pub change: Option<ConfigurationChange>,
    /// The frontier after.
    pub after: Frontier,
    /// The batch's head, where the chunk ends its batch.
    pub head: Option<Head>,
}

impl Chunk {
    /// The hash by which attestations name the evidence of a batch: of its chunks, in order.
    #[must_use]
    pub fn digest(chunks: &[Self]) -> Hash {
        let parts: Vec<Hash> = chunks.iter().map(Self::hash).collect();
        Hash::from_bytes(tagged_hash(b"seriatim evidenc", &[&canonical_bytes(&parts)]))
    }

    fn hash(&self) -> Hash {
        Hash::from_bytes(tagged_hash(b"seriatim chunk..", &[&canonical_bytes(self)]))
    }

    /// The units of the chunk: single transactions, and runs that name one atomic group.
    #[must_use]
    pub fn units(&self) -> Vec<std::ops::Range<usize>> {
        let mut units: Vec<std::ops::Range<usize>> = Vec::with_capacity(self.entries.len());
        let mut open: Option<AtomicGroupId> = None;
        for (place, entry) in self.entries.iter().enumerate() {
            let group = entry.received.transaction().body.atomic;
            let end = place.saturating_add(1);
            match units.last_mut() {
                Some(unit) if group.is_some() && group == open => unit.end = end,
                Some(_) | None => units.push(place..end),
            }
            open = group;
        }
        units
    }
}

/// Finds the touched outputs of a chunk by what transactions name: origin and content.
#[derive(Debug)]
pub struct TouchedIndex<'a> {
    touched: &'a [Touched],
    by_origin: NameMap<Origin, usize>,
    /// Further outputs claimed for an origin that is in the map already: at most one of them can ever exist.
    others: Vec<usize>,
    /// Behind the output found last: outputs are listed in the order in which they are named first, so the next one is
    /// mostly the one asked for.
    next: Cell<usize>,
}

impl<'a> TouchedIndex<'a> {
    /// Indexes the list. Two equal entries are an error, which names the second.
    ///
    /// # Errors
    /// Where an output is listed twice.
    pub fn of(touched: &'a [Touched]) -> Result<Self, usize> {
        let mut by_origin = NameMap::with_capacity_and_hasher(touched.len(), NameHashing::default());
        let mut others: Vec<usize> = Vec::new();
        for (position, output) in touched.iter().enumerate() {
            let first = *by_origin.entry(output.origin).or_insert(position);
            if first == position {
                continue;
            }
            let same = |other: &&usize| {
                touched.get(**other).is_some_and(|other| {
                    other.origin == output.origin && (other.id == output.id || other.contract == output.contract)
                })
            };
            if std::iter::once(&first).chain(&others).any(|other| same(&other)) {
                return Err(position);
            }
            others.push(position);
        }
        Ok(Self { touched, by_origin, others, next: Cell::new(0) })
    }

    /// Where in the list the output with this origin and content is.
    #[must_use]
    pub fn find(&self, origin: &Origin, contract: &Contract) -> Option<usize> {
        let fits = |position: &usize| {
            let output = self.touched.get(*position);
            output.is_some_and(|output| output.origin == *origin && output.contract == *contract)
        };
        let next = self.next.get();
        if fits(&next) {
            self.next.set(next.saturating_add(1));
            return Some(next);
        }
        let first = *self.by_origin.get(origin)?;
        std::iter::once(first).chain(self.others.iter().copied()).find(fits)
    }
}

// A received transaction is named by its bytes, so only they are written, and the name is earned again.
impl BorshSerialize for Entry {
    fn serialize<W: Write>(&self, writer: &mut W) -> io::Result<()> {
        self.sequence.serialize(writer)?;
        self.received.transaction().encode().serialize(writer)?;
        self.outcome.serialize(writer)?;
        self.observations.serialize(writer)?;
        self.observed_root.serialize(writer)?;
        self.invoked.serialize(writer)?;
        self.responded.serialize(writer)
    }
}

impl BorshDeserialize for Entry {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        Ok(Self {
            sequence: Sequence::deserialize_reader(reader)?,
            received: ReceivedTransaction::decode(&Vec::<u8>::deserialize_reader(reader)?)?,
            outcome: Outcome::deserialize_reader(reader)?,
            observations: Vec::deserialize_reader(reader)?,
            observed_root: Option::deserialize_reader(reader)?,
            invoked: Sequence::deserialize_reader(reader)?,
            responded: Option::deserialize_reader(reader)?,
        })
    }
}
