//! What a replay carries from chunk to chunk: every live output, what was spent and by whom, and who has a place.
//!
//! Outputs are found by their creators and indexes, and their contents compared, so that naming an input costs no hash.

use std::collections::BTreeMap;
use std::ops::Bound;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::digest::UnspentDigest;
use ledger::{AssetType, Contract, Hash, Intent, Origin, OutputId, Party, Sequence, TransactionId, merkle};

use crate::commands::Held;
use crate::contracts::{Contracts, Place};
use crate::evidence::{Chunk, Fate, Touched};
use crate::frontier::Frontier;
use crate::hashing::{NameHashing, NameMap};
use crate::kept::KeptHistory;
use crate::segments::Segments;

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
    /// Transactions with places: all of them where `whole`, else at least all that are still valid, because they alone
    /// could be told again. Whoever passes them in vouches for that.
    pub sequenced: Vec<(TransactionId, Sequence)>,
    /// Log roots at the ends of batches, each with the last batch that ended there. All of them where `whole`.
    pub roots: Vec<(Sequence, Hash, u64)>,
    /// How much history the ledger remembers there.
    pub kept: KeptHistory,
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

/// A transaction that has a place, or consumed something.
#[derive(Debug, Clone, Copy)]
struct TransactionRow {
    /// Its number in the list of names.
    row: u32,
    /// `None` for a consumer of before the snapshot whose place is not known.
    sequence: Option<Sequence>,
    /// Where its outputs begin, and how many there are. A rejected transaction has none.
    first_output: usize,
    outputs: usize,
}

impl TransactionRow {
    /// Where its outputs are.
    const fn places(&self) -> std::ops::Range<usize> {
        self.first_output..self.first_output.saturating_add(self.outputs)
    }
}

/// An output by its creator and index.
#[derive(Debug, Clone, Copy)]
struct OutputRow {
    id: OutputId,
    fate: RowFate,
}

#[derive(Debug, Clone, Copy)]
enum RowFate {
    /// Not created, or not yet.
    Void,
    /// Of before the snapshot, and nothing else is known.
    Unknown,
    /// Live, with the place of its contract.
    Live(Place),
    /// Consumed, by the transaction of that row.
    Spent(u32),
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

/// Where a listed output is in the state, if its creator has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Located {
    creator: Option<TransactionRow>,
    place: Option<usize>,
    row: Option<OutputRow>,
    /// Whether a live output there looks like the listed one.
    resembles: bool,
}

/// The carried state: transactions by name, their outputs in one growing list, the contracts of live ones apart. An
/// output is found by its creator and index, so that creating one costs no look-up and naming one costs no hash.
#[derive(Debug, Clone)]
pub(crate) struct State {
    history: History,
    transactions: NameMap<TransactionId, TransactionRow>,
    names: Segments<TransactionId>,
    outputs: Segments<OutputRow>,
    contracts: Contracts,
    /// Log roots where batches ended, each with the last batch that ended there.
    roots: BTreeMap<Sequence, (Hash, u64)>,
    /// What is older the ledger has forgotten: it answers as if it had never been.
    remembered_from: Sequence,
    /// The same by batches: one without transactions takes no place, and has a head.
    remembered_from_batch: u64,
    /// The first place of the batch at hand, in which nothing is forgotten.
    batch_begins: Sequence,
    /// Rows when the state was last cleared of what was forgotten.
    rows_when_cleared: usize,
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
            transactions: NameMap::with_hasher(NameHashing::with_seed(seed)),
            names: Segments::default(),
            outputs: Segments::default(),
            contracts: Contracts::new(seed),
            roots: BTreeMap::new(),
            remembered_from: Sequence::default(),
            remembered_from_batch: KeptHistory::default().first_batch(),
            batch_begins: Sequence::default(),
            rows_when_cleared: 0,
            roots_from: Sequence::default(),
            holdings: None,
        }
    }

    pub(crate) fn of_snapshot(snapshot: &Snapshot, seed: u64) -> Result<Self, SnapshotFault> {
        let history = if snapshot.whole { History::Whole } else { History::SinceSnapshot };
        let mut state = Self::new(history, seed);
        let mut digest = UnspentDigest::default();
        let mut counts: BTreeMap<TransactionId, (Option<Sequence>, usize)> = BTreeMap::new();
        for (id, sequence) in &snapshot.sequenced {
            counts.insert(*id, (Some(*sequence), 0));
        }
        let live = snapshot.live.iter().map(|(origin, _, created_at)| (origin, Some(*created_at)));
        for (origin, sequence) in live.chain(snapshot.spent.iter().map(|(origin, ..)| (origin, None))) {
            let count = counts.entry(origin.transaction).or_default();
            *count = (count.0.or(sequence), count.1.max(usize::from(origin.index).saturating_add(1)));
        }
        let void = if snapshot.whole { RowFate::Void } else { RowFate::Unknown };
        for (id, (sequence, outputs)) in counts {
            state.add_row(id, sequence, outputs, void);
        }
        for (origin, contract, _) in &snapshot.live {
            let id = origin.output_id(contract);
            digest.insert(&id);
            let place = state.contracts.insert(contract);
            state.fill(origin, OutputRow { id, fate: RowFate::Live(place) })?;
        }
        if digest != snapshot.frontier.unspent {
            return Err(SnapshotFault::Digest);
        }
        for (origin, id, by) in &snapshot.spent {
            let by = state.row_of(by).unwrap_or_else(|| state.add_row(*by, None, 0, void).row);
            state.fill(origin, OutputRow { id: *id, fate: RowFate::Spent(by) })?;
        }
        state.roots.extend(snapshot.roots.iter().map(|(size, root, batch)| (*size, (*root, *batch))));
        state.remembered_from = snapshot.kept.first();
        state.remembered_from_batch = snapshot.kept.first_batch();
        state.batch_begins = snapshot.frontier.next;
        state.rows_when_cleared = state.names.len();
        state.roots_from = if snapshot.whole { Sequence::default() } else { snapshot.frontier.next };
        Ok(state)
    }

    /// The state that a chunk claims to begin with, as far as commands look into it.
    pub(crate) fn claimed_by(chunk: &Chunk) -> Self {
        let mut state = Self::new(History::Claimed, 0);
        if chunk.entries.iter().any(|entry| matches!(entry.received.transaction().body.intent, Intent::Command(_))) {
            let mut holdings = Holdings::default();
            let live = chunk.touched.iter().filter(|output| output.before.is_live());
            live.filter_map(held).for_each(|held| holdings.add(held));
            state.holdings = Some(holdings);
        }
        state
    }

    fn fill(&mut self, origin: &Origin, row: OutputRow) -> Result<(), SnapshotFault> {
        match self.output_mut(origin) {
            Some(slot) if matches!(slot.fate, RowFate::Void | RowFate::Unknown) => {
                *slot = row;
                Ok(())
            }
            Some(_) | None => Err(SnapshotFault::Repeated),
        }
    }

    fn add_row(
        &mut self,
        id: TransactionId,
        sequence: Option<Sequence>,
        outputs: usize,
        fate: RowFate,
    ) -> TransactionRow {
        let row = u32::try_from(self.names.len()).expect("fewer than 2^32 transactions fit in memory");
        let first_output = self.outputs.len();
        self.names.push(id);
        let void = OutputRow { id: OutputId::from_bytes([0; 32]), fate };
        (0..outputs).for_each(|_| self.outputs.push(void));
        let row = TransactionRow { row, sequence, first_output, outputs };
        self.transactions.insert(id, row);
        row
    }

    fn row_of(&self, id: &TransactionId) -> Option<u32> {
        self.transactions.get(id).map(|transaction| transaction.row)
    }

    fn name(&self, row: u32) -> Option<TransactionId> {
        self.names.get(usize::try_from(row).ok()?).copied()
    }

    fn creator(&self, origin: &Origin) -> Option<&TransactionRow> {
        self.transactions.get(&origin.transaction)
    }

    /// Where the output of this origin is in the list, if its creator has it.
    fn place_of(creator: &TransactionRow, index: u16) -> Option<usize> {
        let index = usize::from(index);
        (index < creator.outputs).then(|| creator.first_output.saturating_add(index))
    }

    fn output_mut(&mut self, origin: &Origin) -> Option<&mut OutputRow> {
        let place = Self::place_of(self.creator(origin)?, origin.index)?;
        self.outputs.get_mut(place)
    }

    pub(crate) const fn history(&self) -> History {
        self.history
    }

    pub(crate) fn sequence_of(&self, transaction: &TransactionId) -> Option<Sequence> {
        self.transactions.get(transaction)?.sequence.filter(|sequence| *sequence >= self.remembered_from)
    }

    /// The log root at a size where a batch ended; `Err` where the past is not known far enough.
    pub(crate) fn root_at(&self, size: Sequence) -> Result<Option<Hash>, NotKnown> {
        match self.roots.get(&size) {
            Some((root, _)) => Ok(Some(*root)),
            None if size < self.roots_from => Err(NotKnown),
            None => Ok(None),
        }
    }

    pub(crate) fn know_root(&mut self, size: Sequence, root: Hash, batch: u64) {
        self.roots.insert(size, (root, batch));
    }

    /// A batch begins behind these transactions.
    pub(crate) const fn begin_batch(&mut self, next: Sequence) {
        self.batch_begins = next;
    }

    /// Forgets what the ledger has forgotten. What was spent of it goes whenever the rows have
    /// doubled.
    pub(crate) fn remember_from(&mut self, kept: &KeptHistory) {
        if (kept.first(), kept.first_batch()) == (self.remembered_from, self.remembered_from_batch) {
            return;
        }
        (self.remembered_from, self.remembered_from_batch) = (kept.first(), kept.first_batch());
        // every ledger began empty: that head is never forgotten
        self.roots.retain(|size, (_, batch)| *batch >= kept.first_batch() || *size == Sequence::default());
        if self.names.len() > self.rows_when_cleared.saturating_mul(2) {
            self.clear_forgotten();
        }
    }

    /// Lays the rows out anew without those that nobody can ask for: forgotten transactions keep their live outputs only.
    fn clear_forgotten(&mut self) {
        let (names, outputs) = (std::mem::take(&mut self.names), std::mem::take(&mut self.outputs));
        let empty = NameMap::with_hasher(self.transactions.hasher().clone());
        let transactions = std::mem::replace(&mut self.transactions, empty);
        let of = |row: &TransactionRow| outputs.range(row.places());
        let mut moved: Vec<Option<u32>> = Vec::with_capacity(names.len());
        for name in names.iter() {
            let row = transactions.get(name).copied();
            let stays = row.filter(|row| {
                row.sequence.is_some_and(|sequence| sequence >= self.remembered_from)
                    || of(row).any(|output| matches!(output.fate, RowFate::Live(_)))
            });
            moved.push(stays.map(|row| self.add_row(*name, row.sequence, row.outputs, RowFate::Void).row));
        }
        for name in names.iter() {
            let (Some(row), Some(here)) = (transactions.get(name), self.transactions.get(name)) else { continue };
            let remembered = row.sequence.is_some_and(|sequence| sequence >= self.remembered_from);
            for (slot, output) in here.places().zip(of(row)) {
                let fate = match output.fate {
                    RowFate::Spent(by) if remembered => {
                        let by = usize::try_from(by).ok().and_then(|by| *moved.get(by)?);
                        by.map_or(RowFate::Unknown, RowFate::Spent)
                    }
                    RowFate::Spent(_) => RowFate::Void,
                    fate @ (RowFate::Void | RowFate::Unknown | RowFate::Live(_)) => fate,
                };
                if let Some(slot) = self.outputs.get_mut(slot) {
                    *slot = OutputRow { id: output.id, fate };
                }
            }
        }
        self.rows_when_cleared = self.names.len();
    }

    /// Everything that is remembered, to go on from later.
    pub(crate) fn snapshot(&self, frontier: Frontier, log: merkle::Frontier, kept: KeptHistory) -> Snapshot {
        let mut snapshot = Snapshot {
            frontier,
            log,
            live: Vec::new(),
            spent: Vec::new(),
            sequenced: Vec::new(),
            roots: self.roots.iter().map(|(size, (root, batch))| (*size, *root, *batch)).collect(),
            kept,
            whole: self.history == History::Whole,
        };
        for name in self.names.iter() {
            let Some(row) = self.transactions.get(name) else { continue };
            if let Some(sequence) = row.sequence.filter(|sequence| *sequence >= self.remembered_from) {
                snapshot.sequenced.push((*name, sequence));
            }
            for (index, output) in (0_u16..).zip(self.outputs.range(row.places())) {
                let origin = Origin { transaction: *name, index };
                match output.fate {
                    RowFate::Live(place) => {
                        let contract = self.contracts.get(place);
                        snapshot.live.extend(contract.zip(row.sequence).map(|(contract, at)| (origin, contract, at)));
                    }
                    RowFate::Spent(by) if self.is_remembered(row, by) => {
                        snapshot.spent.extend(self.name(by).map(|by| (origin, output.id, by)));
                    }
                    RowFate::Spent(_) | RowFate::Void | RowFate::Unknown => {}
                }
            }
        }
        snapshot
    }

    /// Whether the ledger still says who consumed an output: it looks for that with the creator, and in the batch at hand.
    fn is_remembered(&self, creator: &TransactionRow, by: u32) -> bool {
        creator.sequence.is_none_or(|sequence| sequence >= self.remembered_from)
            || self
                .name(by)
                .and_then(|name| self.transactions.get(&name)?.sequence)
                .is_some_and(|sequence| sequence >= self.batch_begins)
    }

    /// Finds listed outputs. All at once, in loops that do nothing else: the look-ups miss the processor's caches, and so
    /// they wait for the memory together and not one after another.
    pub(crate) fn locate(&self, touched: &[Touched]) -> Vec<Located> {
        // the outputs of one transaction are listed one after another, mostly
        let mut last: Option<(TransactionId, Option<TransactionRow>)> = None;
        let locate = |output: &Touched| {
            let creator = match last {
                Some((id, creator)) if id == output.origin.transaction => creator,
                Some(_) | None => self.creator(&output.origin).copied(),
            };
            last = Some((output.origin.transaction, creator));
            let place = creator.and_then(|creator| Self::place_of(&creator, output.origin.index));
            Located { creator, place, row: None, resembles: false }
        };
        let mut located: Vec<Located> = touched.iter().map(locate).collect();
        for located in &mut located {
            located.row = located.place.and_then(|place| self.outputs.get(place)).copied();
        }
        for (located, output) in located.iter_mut().zip(touched) {
            if let Some(OutputRow { fate: RowFate::Live(place), .. }) = located.row {
                located.resembles = self.contracts.resembles(place, &output.contract);
            }
        }
        located
    }

    /// What is known of a listed output, its name included, unless that was hashed here.
    pub(crate) fn known(&self, output: &Touched, located: &Located, named_here: bool) -> Known {
        let creator = located.creator.as_ref();
        let row = located.row.as_ref();
        if let (Some(TransactionRow { sequence: Some(created_at), .. }), Some(row)) = (creator, row)
            && let RowFate::Live(place) = row.fate
            && located.resembles
            && self.contracts.names_are(place, &output.contract)
        {
            let fate = Fate::Live { created_at: *created_at };
            return if row.id == output.id { Known::Fate(fate) } else { Known::Misnamed };
        }
        if !named_here && output.origin.output_id(&output.contract) != output.id {
            return Known::Misnamed;
        }
        match row.map(|row| (row.id, row.fate)) {
            Some((id, RowFate::Spent(by))) if id == output.id => match (creator, self.name(by)) {
                (Some(creator), Some(_)) if !self.is_remembered(creator, by) => Known::Fate(Fate::Absent),
                (_, Some(by)) => Known::Fate(Fate::Spent { by }),
                (_, None) => Known::Unknown,
            },
            Some((_, RowFate::Unknown)) => Known::Unknown,
            Some((_, RowFate::Void | RowFate::Live(_) | RowFate::Spent(_))) => Known::Fate(Fate::Absent),
            // a creator from before the snapshot may have had more outputs than are known
            None if self.history == History::Whole || self.is_since_snapshot(creator) => Known::Fate(Fate::Absent),
            None => Known::Unknown,
        }
    }

    fn is_since_snapshot(&self, creator: Option<&TransactionRow>) -> bool {
        creator.and_then(|creator| creator.sequence).is_some_and(|sequence| sequence >= self.roots_from)
    }

    /// The name and fate of an output, as far as they are known: what is not known is told absent.
    pub(crate) fn look_up(&self, origin: &Origin, contract: &Contract) -> (OutputId, Fate) {
        let creator = self.creator(origin).copied();
        let place = creator.and_then(|creator| Self::place_of(&creator, origin.index));
        self.told(creator, place.and_then(|place| self.outputs.get(place)), origin, contract)
    }

    /// The same of many, in loops of one look-up each: see [`Self::locate`].
    pub(crate) fn look_up_all<'a>(
        &self,
        named: impl Iterator<Item = (&'a Origin, &'a Contract)>,
    ) -> Vec<(OutputId, Fate)> {
        let named: Vec<_> = named.collect();
        let creators: Vec<Option<TransactionRow>> =
            named.iter().map(|(origin, _)| self.creator(origin).copied()).collect();
        let row = |(creator, (origin, _)): (&Option<TransactionRow>, &(&Origin, &Contract))| {
            self.outputs.get(Self::place_of(creator.as_ref()?, origin.index)?)
        };
        let rows: Vec<Option<&OutputRow>> = creators.iter().zip(&named).map(row).collect();
        let found = creators.into_iter().zip(rows).zip(named);
        found.map(|((creator, row), (origin, contract))| self.told(creator, row, origin, contract)).collect()
    }

    fn told(
        &self,
        creator: Option<TransactionRow>,
        row: Option<&OutputRow>,
        origin: &Origin,
        contract: &Contract,
    ) -> (OutputId, Fate) {
        match (creator.and_then(|creator| creator.sequence), row.map(|row| (row.id, row.fate))) {
            (Some(created_at), Some((id, RowFate::Live(place)))) if self.contracts.is(place, contract) => {
                (id, Fate::Live { created_at })
            }
            (_, Some((spent, RowFate::Spent(by)))) => {
                let id = origin.output_id(contract);
                let remembered = creator.is_some_and(|creator| self.is_remembered(&creator, by));
                let by = self.name(by).filter(|_| id == spent && remembered);
                (id, by.map_or(Fate::Absent, |by| Fate::Spent { by }))
            }
            _ => (origin.output_id(contract), Fate::Absent),
        }
    }

    /// Takes over a chunk that was accepted; its outputs were located before.
    pub(crate) fn take_over(&mut self, chunk: &Chunk, located: &[Located]) {
        let rows: Vec<TransactionRow> = self.add_rows(chunk);
        let named = |id: &TransactionId, hint: usize| {
            let is = |place: usize| chunk.entries.get(place).is_some_and(|entry| entry.id() == *id);
            let found = (hint..chunk.entries.len()).chain(0..hint).find(|place| is(*place));
            found.and_then(|place| Some((place, *rows.get(place)?)))
        };
        // outputs that one transaction creates or consumes are listed one after another, mostly
        let (mut creator_hint, mut consumer_hint) = (0, 0);
        for (output, located) in chunk.touched.iter().zip(located) {
            if output.before == output.after {
                continue;
            }
            let place = located.place.or_else(|| {
                let (hint, creator) = named(&output.origin.transaction, creator_hint)?;
                creator_hint = hint;
                Self::place_of(&creator, output.origin.index)
            });
            let fate = match output.after {
                Fate::Live { .. } => RowFate::Live(self.contracts.insert(&output.contract)),
                Fate::Spent { by } => match named(&by, consumer_hint) {
                    Some((hint, consumer)) => {
                        consumer_hint = hint;
                        RowFate::Spent(consumer.row)
                    }
                    None => RowFate::Unknown,
                },
                Fate::Absent => RowFate::Void,
            };
            self.change(output, place, fate);
        }
    }

    fn add_rows(&mut self, chunk: &Chunk) -> Vec<TransactionRow> {
        let mut created: NameMap<TransactionId, usize> = NameMap::default();
        let mut rows = Vec::with_capacity(chunk.entries.len());
        for entry in &chunk.entries {
            let outputs = match (&entry.received.transaction().body.intent, entry.outcome.is_committed()) {
                (_, false) => 0,
                (Intent::Movements(movements), true) => movements.outputs.len(),
                (Intent::Command(_), true) => {
                    if created.is_empty() {
                        for output in &chunk.touched {
                            let count = created.entry(output.origin.transaction).or_default();
                            *count = count.saturating_add(1);
                        }
                    }
                    created.get(&entry.id()).copied().unwrap_or_default()
                }
            };
            rows.push(self.add_row(entry.id(), Some(entry.sequence), outputs, RowFate::Void));
        }
        rows
    }

    fn change(&mut self, output: &Touched, place: Option<usize>, fate: RowFate) {
        let row = place.and_then(|place| self.outputs.get_mut(place));
        let before = row.map(|row| std::mem::replace(row, OutputRow { id: output.id, fate }).fate);
        if let Some(RowFate::Live(place)) = before {
            self.contracts.remove(place);
        }
        if let (Some(holdings), Some(held)) = (&mut self.holdings, held(output)) {
            if output.after.is_live() { holdings.add(held) } else { holdings.remove(&held) }
        }
    }

    /// The positions that commands choose from; collected when first asked for.
    pub(crate) fn collect_holdings(&mut self) {
        if self.holdings.is_some() {
            return;
        }
        let mut holdings = Holdings::default();
        for name in self.names.iter() {
            let Some(creator) = self.transactions.get(name) else { continue };
            for (index, row) in (0_u16..).zip(self.outputs.range(creator.places())) {
                let RowFate::Live(place) = row.fate else { continue };
                let origin = Origin { transaction: *name, index };
                let held = self.contracts.get(place).and_then(|contract| held_in(row.id, origin, &contract));
                held.into_iter().for_each(|held| holdings.add(held));
            }
        }
        self.holdings = Some(holdings);
    }

    /// The holdings collected so far.
    pub(crate) const fn collected_holdings(&self) -> Option<&Holdings> {
        self.holdings.as_ref()
    }

    /// Number of live outputs, and of all transactions known.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.contracts.len(), self.names.len())
    }
}

/// The past is not known far enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotKnown;

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
