//! What a replay carries from chunk to chunk: every live output, what was spent and by whom, and who has a place.
//!
//! Outputs are found by their origins, and their contents compared, so that naming an input costs no hash.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use borsh::{BorshDeserialize, BorshSerialize};
use foldhash::fast::FixedState;
use ledger::digest::UnspentDigest;
use ledger::{AssetType, Contract, Hash, Origin, OutputId, Party, Sequence, TransactionId, merkle};

use crate::commands::Held;
use crate::evidence::{Chunk, Fate, Touched};
use crate::frontier::Frontier;

/// How much of the past a state knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    /// All of it: what it does not know never was.
    Whole,
    /// From a snapshot on: what it does not know may have been before.
    SinceSnapshot,
    /// Nothing: claimed states are taken as hypotheses, and what is found holds under them.
    Claimed,
}

/// What a replay can begin with instead of genesis.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Snapshot {
    /// Where it was taken.
    pub frontier: Frontier,
    /// The right edge of the Merkle log there.
    pub log: merkle::Frontier,
    /// The live outputs, with the places of their creators.
    pub live: Vec<(Origin, Contract, Sequence)>,
    /// Consumed outputs with their consumers. All of them where `whole`.
    pub spent: Vec<(Origin, OutputId, TransactionId)>,
    /// Transactions with places. All of them where `whole`.
    pub sequenced: Vec<(TransactionId, Sequence)>,
    /// Log roots at the ends of batches. All of them where `whole`.
    pub roots: Vec<(Sequence, Hash)>,
    /// True where nothing of the past is left out. Whoever passes it in vouches for that.
    pub whole: bool,
}

/// Why a snapshot cannot be begun with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotFault {
    /// The log's edge is not that of the frontier.
    #[error("the log's right edge does not lead to the frontier's log root")]
    Log,
    /// The live outputs are not those of the frontier's digest.
    #[error("the live outputs do not sum to the frontier's digest")]
    Digest,
    /// An output is listed twice.
    #[error("an output is listed twice")]
    Repeated,
}

#[derive(Debug, Clone, Copy)]
struct Live {
    id: OutputId,
    contract: Contract,
    created_at: Sequence,
}

#[derive(Debug, Clone, Copy)]
struct Spent {
    id: OutputId,
    by: TransactionId,
}

/// What is known of an output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Known {
    /// What became of it.
    Fate(Fate),
    /// It is listed under a name that is not its own.
    Misnamed,
    /// It may have existed before the snapshot.
    Unknown,
}

/// The carried state.
#[derive(Debug, Clone)]
pub(crate) struct State {
    history: History,
    live: HashMap<Origin, Live, FixedState>,
    spent: HashMap<Origin, Spent, FixedState>,
    sequenced: HashMap<TransactionId, Sequence, FixedState>,
    roots: BTreeMap<Sequence, Hash>,
    /// The first size whose root would be known here.
    roots_from: Sequence,
    /// Kept from the first command on.
    holdings: Option<Holdings>,
}

impl State {
    /// An empty state. The seed keeps whoever chooses names from filling one bucket.
    pub(crate) fn new(history: History, seed: u64) -> Self {
        Self {
            history,
            live: HashMap::with_hasher(FixedState::with_seed(seed)),
            spent: HashMap::with_hasher(FixedState::with_seed(seed)),
            sequenced: HashMap::with_hasher(FixedState::with_seed(seed)),
            roots: BTreeMap::new(),
            roots_from: Sequence::default(),
            holdings: None,
        }
    }

    pub(crate) fn of_snapshot(snapshot: &Snapshot, seed: u64) -> Result<Self, SnapshotFault> {
        let history = if snapshot.whole { History::Whole } else { History::SinceSnapshot };
        let mut state = Self::new(history, seed);
        let mut digest = UnspentDigest::default();
        for (origin, contract, created_at) in &snapshot.live {
            let id = origin.output_id(contract);
            digest.insert(&id);
            let live = Live { id, contract: *contract, created_at: *created_at };
            if state.live.insert(*origin, live).is_some() {
                return Err(SnapshotFault::Repeated);
            }
        }
        if digest != snapshot.frontier.unspent {
            return Err(SnapshotFault::Digest);
        }
        for (origin, id, by) in &snapshot.spent {
            let repeated = state.spent.insert(*origin, Spent { id: *id, by: *by }).is_some();
            if repeated || state.live.contains_key(origin) {
                return Err(SnapshotFault::Repeated);
            }
        }
        state.sequenced.extend(snapshot.sequenced.iter().copied());
        state.roots.extend(snapshot.roots.iter().copied());
        state.roots_from = if snapshot.whole { Sequence::default() } else { snapshot.frontier.next };
        Ok(state)
    }

    /// The state that a chunk claims to begin with, as far as commands look into it.
    pub(crate) fn claimed_by(chunk: &Chunk) -> Self {
        let mut state = Self::new(History::Claimed, 0);
        for output in &chunk.touched {
            if let Fate::Live { created_at } = output.before {
                let live = Live { id: output.id, contract: output.contract, created_at };
                state.live.insert(output.origin, live);
            }
        }
        state
    }

    pub(crate) const fn history(&self) -> History {
        self.history
    }

    pub(crate) fn sequence_of(&self, transaction: &TransactionId) -> Option<Sequence> {
        self.sequenced.get(transaction).copied()
    }

    /// The log root at a size where a batch ended; `Err` where the past is not known far enough.
    pub(crate) fn root_at(&self, size: Sequence) -> Result<Option<Hash>, ()> {
        match self.roots.get(&size) {
            Some(root) => Ok(Some(*root)),
            None if size < self.roots_from => Err(()),
            None => Ok(None),
        }
    }

    pub(crate) fn know_root(&mut self, size: Sequence, root: Hash) {
        self.roots.insert(size, root);
    }

    pub(crate) fn know_place(&mut self, transaction: TransactionId, sequence: Sequence) {
        self.sequenced.insert(transaction, sequence);
    }

    /// What is known of a listed output, its name included.
    pub(crate) fn known(&self, output: &Touched) -> Known {
        if let Some(live) = self.live.get(&output.origin).filter(|live| live.contract == output.contract) {
            let fate = Fate::Live { created_at: live.created_at };
            return if live.id == output.id { Known::Fate(fate) } else { Known::Misnamed };
        }
        if output.origin.output_id(&output.contract) != output.id {
            return Known::Misnamed;
        }
        if let Some(spent) = self.spent.get(&output.origin) {
            let same = spent.id == output.id;
            return Known::Fate(if same { Fate::Spent { by: spent.by } } else { Fate::Absent });
        }
        let lived_since =
            || self.live.contains_key(&output.origin) || self.sequenced.contains_key(&output.origin.transaction);
        match self.history {
            History::Whole => Known::Fate(Fate::Absent),
            History::SinceSnapshot | History::Claimed if lived_since() => Known::Fate(Fate::Absent),
            History::SinceSnapshot | History::Claimed => Known::Unknown,
        }
    }

    /// The name and fate of an output, as far as they are known: what is not known is told absent.
    pub(crate) fn look_up(&self, origin: &Origin, contract: &Contract) -> (OutputId, Fate) {
        if let Some(live) = self.live.get(origin).filter(|live| live.contract == *contract) {
            return (live.id, Fate::Live { created_at: live.created_at });
        }
        let id = origin.output_id(contract);
        match self.spent.get(origin).filter(|spent| spent.id == id) {
            Some(spent) => (id, Fate::Spent { by: spent.by }),
            None => (id, Fate::Absent),
        }
    }

    /// Takes over what became of an output.
    pub(crate) fn take_over(&mut self, output: &Touched) {
        if output.before == output.after {
            return;
        }
        if output.before.is_live() {
            self.live.remove(&output.origin);
        }
        match output.after {
            Fate::Live { created_at } => {
                let live = Live { id: output.id, contract: output.contract, created_at };
                self.live.insert(output.origin, live);
            }
            Fate::Spent { by } => {
                self.spent.insert(output.origin, Spent { id: output.id, by });
            }
            Fate::Absent => {}
        }
        if let (Some(holdings), Some(held)) = (&mut self.holdings, held(output)) {
            if output.after.is_live() { holdings.add(held) } else { holdings.remove(&held) }
        }
    }

    /// The positions that commands choose from; collected when first asked for.
    pub(crate) fn holdings(&mut self) -> &Holdings {
        let live = &self.live;
        self.holdings.get_or_insert_with(|| {
            let mut holdings = Holdings::default();
            #[expect(clippy::iter_over_hash_type, reason = "the map that is filled orders them")]
            for (origin, live) in live {
                if let Some(held) = held_in(live.id, *origin, &live.contract) {
                    holdings.add(held);
                }
            }
            holdings
        })
    }

    /// The holdings collected so far.
    pub(crate) const fn collected_holdings(&self) -> Option<&Holdings> {
        self.holdings.as_ref()
    }

    /// Number of live outputs, and of all transactions known.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.live.len(), self.sequenced.len())
    }
}

/// What commands may choose of a listed output.
pub(crate) fn held(output: &Touched) -> Option<Held> {
    held_in(output.id, output.origin, &output.contract)
}

/// A position above zero; nothing else is chosen by commands.
pub(crate) fn held_in(id: OutputId, origin: Origin, contract: &Contract) -> Option<Held> {
    match contract {
        Contract::Position(position) if position.quantity.is_positive() => {
            Some(Held { id, origin, position: *position })
        }
        Contract::Position(_) | Contract::Grant(_) | Contract::Allocation(_) => None,
    }
}

/// Live positions above zero by owner and asset, ascending by name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Holdings {
    by_owner: BTreeMap<(Party, AssetType), BTreeMap<OutputId, Held>>,
}

impl Holdings {
    fn add(&mut self, held: Held) {
        self.by_owner.entry((held.position.owner, held.position.asset)).or_default().insert(held.id, held);
    }

    fn remove(&mut self, held: &Held) {
        if let Some(of_owner) = self.by_owner.get_mut(&(held.position.owner, held.position.asset)) {
            of_owner.remove(&held.id);
        }
    }
}

/// Holdings as the chunk at hand has changed them.
#[derive(Debug, Default)]
pub(crate) struct HoldingChanges {
    /// `None` where a position is gone.
    by_owner: BTreeMap<(Party, AssetType), BTreeMap<OutputId, Option<Held>>>,
}

/// A change of holdings, as it was before.
pub(crate) type HoldingBefore = (Held, Option<Option<Held>>);

impl HoldingChanges {
    /// Notes that a position came or went; returns what undoes that.
    pub(crate) fn set(&mut self, held: Held, live: bool) -> HoldingBefore {
        let of_owner = self.by_owner.entry((held.position.owner, held.position.asset)).or_default();
        (held, of_owner.insert(held.id, live.then_some(held)))
    }

    /// Undoes a change; the last one first.
    pub(crate) fn undo(&mut self, (held, before): HoldingBefore) {
        let of_owner = self.by_owner.entry((held.position.owner, held.position.asset)).or_default();
        match before {
            Some(before) => of_owner.insert(held.id, before),
            None => of_owner.remove(&held.id),
        };
    }

    /// The owner's first live position behind a name.
    pub(crate) fn next(
        &self,
        base: Option<&Holdings>,
        owner: &(Party, AssetType),
        after: Option<OutputId>,
    ) -> Option<Held> {
        let start = (after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded);
        let changed = self.by_owner.get(owner);
        let added = changed.and_then(|changed| changed.range(start).find_map(|(_, held)| *held));
        let is_changed = |id: &OutputId| changed.is_some_and(|changed| changed.contains_key(id));
        let kept = base.and_then(|base| base.by_owner.get(owner));
        let kept = kept.and_then(|kept| kept.range(start).find(|(id, _)| !is_changed(id)).map(|(_, held)| *held));
        match (added, kept) {
            (Some(added), Some(kept)) => Some(if added.id < kept.id { added } else { kept }),
            (added, kept) => added.or(kept),
        }
    }
}
