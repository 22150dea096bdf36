//! What the order drives: a state machine that takes bytes in order and answers with bytes.

use std::fmt::{self, Debug};
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use storage::{Manifest, SnapshotSink, SnapshotSource};

use crate::{MachineFault, NodeId, encoding};

/// Names an entry: no two entries of a cluster's life have the same. Entries in the log have increasing ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct EntryId {
    /// Term of the leader that proposed it.
    pub term: u64,
    /// The leader that proposed it.
    pub node: NodeId,
    /// Position in the log; the first entry has 0, and there are no gaps.
    pub index: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} (term {} of node {})", self.index, self.term, self.node)
    }
}

/// How far a machine has come. It stores this with the effects of the last entry, atomically, and labels
/// its snapshots with the encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The last entry applied.
    pub last: EntryId,
    /// The last [`Kind::Membership`] applied, as it was given; empty before the first.
    pub membership: Bytes,
}

impl Applied {
    /// The form on disk and in the label of a snapshot.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        encoding::encode_applied(self)
    }

    /// Reads [`Applied::encode`]; `None` for anything it would not have written.
    #[must_use]
    pub fn decode(encoded: &Bytes) -> Option<Self> {
        encoding::decode_applied(encoded)
    }
}

/// An entry that a majority has synced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// Which entry.
    pub id: EntryId,
    /// What it is.
    pub kind: Kind,
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: a new leader begins its term.
    Blank,
    /// The members of the cluster changed. Opaque; kept for [`Applied::membership`].
    Membership(Bytes),
    /// What was proposed.
    Entry(Bytes),
}

/// The replicated state machine, as the sequencer sees it.
///
/// All methods are called off the async runtime, through [`seams::Compute`], except [`Machine::durable_index`],
/// which must not block. [`Machine::apply`] and [`Machine::finish_restore`] are called one at a time;
/// [`Machine::snapshot`] may be called while `apply` runs, but not while `finish_restore` does. Every fault
/// stops the node.
pub trait Machine: Send + Sync + Debug + 'static {
    /// How far the machine has come; after a start: how far its own disk brings it. `None`: nothing applied.
    ///
    /// # Errors
    /// The state cannot be read.
    fn applied(&self) -> Result<Option<Applied>, MachineFault>;

    /// Applies entries that follow the last applied one, in order, and gives an answer for each (empty for
    /// those that nobody asks about). An answer goes to the proposer if it waits on this node.
    ///
    /// # Errors
    /// The effects cannot be stored, or an invariant is broken.
    fn apply(&self, entries: Vec<Committed>) -> Result<Vec<Bytes>, MachineFault>;

    /// The last entry whose effects survive a power cut without the log. The log keeps everything after it.
    fn durable_index(&self) -> Option<u64>;

    /// Makes a durable, consistent copy of everything applied so far, labelled with [`Applied::encode`].
    /// Afterwards [`Machine::durable_index`] has reached that position.
    ///
    /// # Errors
    /// The copy cannot be made.
    fn snapshot(&self) -> Result<Arc<dyn SnapshotSource>, MachineFault>;

    /// The newest copy there is, also from before a restart.
    ///
    /// # Errors
    /// The copies cannot be read.
    fn newest_snapshot(&self) -> Result<Option<Arc<dyn SnapshotSource>>, MachineFault>;

    /// Starts to take in another node's copy, beside the present state.
    ///
    /// # Errors
    /// Faults of the disk.
    fn begin_restore(&self, manifest: Manifest) -> Result<Box<dyn SnapshotSink>, MachineFault>;

    /// Verifies what was taken in and replaces the whole state with it, position included, atomically and
    /// durably; gives the new position, read from the new state.
    ///
    /// # Errors
    /// The copy is not what its manifest says, or faults of the disk.
    fn finish_restore(&self, sink: Box<dyn SnapshotSink>) -> Result<Applied, MachineFault>;
}
