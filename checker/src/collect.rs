//! Evidence from what a node says of its batches.
//!
//! Nothing is judged here: outcomes are the node's, and the states that follow are what its outcomes say. Only the
//! state before a batch is the reader's own, carried by its replay.

use std::ops::Range;

use ledger::batch::BatchRecord;
use ledger::bundle::{BundleFault, BundleLayout};
use ledger::digest::UnspentDigest;
use ledger::entry::ConfigurationChange;
use ledger::rejection::Rejection;
use ledger::transaction::ReceivedTransaction;
use ledger::view::{LiveOutput, Place};
use ledger::{
    AtomicGroupId, Contract, Head, Intent, Limits, Movements, Origin, Outcome, OutcomeRecord, OutputId, Position,
    Sequence, TransactionId, merkle,
};

use crate::commands;
use crate::evidence::{Chunk, Entry, Fate, Touched};
use crate::frontier::{Frontier, Standing};
use crate::hashing::NameMap;
use crate::replay::Replay;
use crate::state::State;

/// What a node says of one transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its outcome.
    pub record: OutcomeRecord,
    /// The transaction.
    pub received: ReceivedTransaction,
    /// Transactions that its gateway had applied when it answered, where a gateway says.
    pub responded: Option<Sequence>,
}

/// What a node says of one batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Testimony {
    /// The head after it.
    pub head: Head,
    /// Its transactions in their order.
    pub lines: Vec<Line>,
    /// All members of each atomic group that was submitted in it.
    pub groups: Vec<Vec<TransactionId>>,
    /// The outputs that its transactions consumed.
    pub consumed: Vec<LiveOutput>,
    /// The change of the replicated configuration, where the batch is one.
    pub change: Option<ConfigurationChange>,
}

/// Why a node's record of a batch is no testimony.
#[derive(Debug, thiserror::Error)]
pub enum TestimonyFault {
    /// The bundle does not read.
    #[error(transparent)]
    Bundle(#[from] BundleFault),
    /// An outcome names a member that the bundle does not have, or that is no transaction.
    #[error("the outcome at place {0} has no transaction in the bundle")]
    Member(Sequence),
    /// Committed transactions consumed more or fewer outputs than are told.
    #[error("it tells of another number of consumed outputs than its transactions have")]
    Consumed,
}

impl Testimony {
    /// Reads what nodes keep of a batch. Nobody says there when a transaction was answered.
    ///
    /// # Errors
    /// Where the parts do not belong together.
    pub fn of_record(record: &BatchRecord) -> Result<Self, TestimonyFault> {
        let BatchRecord { head, bundle, records, change, .. } = record;
        let layout = if records.is_empty() { None } else { Some(BundleLayout::read(bundle, &Limits::V1)?) };
        let decode = |member: usize| {
            let range = layout.as_ref()?.members().get(member)?.clone();
            ReceivedTransaction::decode(bundle.get(range)?).ok()
        };
        let mut lines = Vec::with_capacity(records.len());
        for (position, record_of_line) in records.iter().enumerate() {
            let member = record.members().get(position).and_then(|member| usize::try_from(*member).ok());
            let received = member.and_then(decode).filter(|received| received.id() == record_of_line.transaction);
            let received = received.ok_or(TestimonyFault::Member(record_of_line.sequence))?;
            lines.push(Line { record: record_of_line.clone(), received, responded: None });
        }
        // a submission of which a member does not read has no places
        let submissions = layout.iter().flat_map(BundleLayout::submissions);
        let groups = submissions.filter(|submission| submission.members.len() > 1).filter_map(|submission| {
            submission.members.clone().map(|member| Some(decode(member)?.id())).collect::<Option<Vec<_>>>()
        });
        let groups = groups.collect();
        let consumed = consumed(record, &lines)?;
        Ok(Self { head: *head, lines, groups, consumed, change: change.clone() })
    }
}

/// What committed transactions consumed: what movements name with the places that the record tells, and what commands are
/// said to have chosen.
fn consumed(record: &BatchRecord, lines: &[Line]) -> Result<Vec<LiveOutput>, TestimonyFault> {
    let (mut chosen, mut creators) = (record.chosen(), record.creators().iter());
    let mut consumed = Vec::with_capacity(record.creators().len());
    for line in lines {
        let Outcome::Committed { chosen: names } = &line.record.outcome else { continue };
        match &line.received.transaction().body.intent {
            Intent::Movements(movements) => {
                for input in &movements.inputs {
                    let sequence = *creators.next().ok_or(TestimonyFault::Consumed)?;
                    let place = Place { sequence, index: input.origin.index };
                    let (id, origin, contract) = (input.output_id(), input.origin, input.contract);
                    consumed.push(LiveOutput { id, origin, place, contract });
                }
            }
            Intent::Command(_) => {
                for _ in names {
                    consumed.push(chosen.next().ok_or(TestimonyFault::Consumed)?);
                }
            }
        }
    }
    if creators.next().is_some() || chosen.next().is_some() {
        return Err(TestimonyFault::Consumed);
    }
    Ok(consumed)
}

/// Most transactions of a chunk: larger ones need more solver time per transaction (measured with contention), smaller
/// ones repeat the frontiers more often. Where a batch is larger, its chunks are about equal.
pub const CHUNK_TRANSACTIONS_MAX: usize = 200;

/// The chunks of a batch that follows where the replay stands.
#[must_use]
pub fn chunks(testimony: &Testimony, replay: &Replay) -> Vec<Chunk> {
    chunks_of(testimony, replay, CHUNK_TRANSACTIONS_MAX)
}

/// [`chunks`] with another size.
#[must_use]
pub fn chunks_of(testimony: &Testimony, replay: &Replay, transactions_max: usize) -> Vec<Chunk> {
    let ranges = ranges(&testimony.lines, transactions_max);
    let mut collector = Collector::new(testimony, replay);
    let last = ranges.len().saturating_sub(1);
    let chunk = |(position, range): (usize, Range<usize>)| collector.chunk(range, position == last);
    ranges.into_iter().enumerate().map(chunk).collect()
}

/// Splits between units only: a group stays together, even where the chunk grows beyond the maximum by it.
fn ranges(lines: &[Line], transactions_max: usize) -> Vec<Range<usize>> {
    let chunks = lines.len().div_ceil(transactions_max.max(1)).max(1);
    let target = lines.len().div_ceil(chunks).max(1);
    let mut ranges: Vec<Range<usize>> = Vec::with_capacity(chunks);
    let mut start = 0_usize;
    for end in 1..lines.len() {
        let group = |place: usize| lines.get(place).and_then(|line| line.received.transaction().body.atomic);
        let splits_group = group(end).is_some() && group(end) == group(end.saturating_sub(1));
        if end.saturating_sub(start) >= target && !splits_group {
            ranges.push(start..end);
            start = end;
        }
    }
    ranges.push(start..lines.len());
    ranges
}

struct Collector<'a> {
    testimony: &'a Testimony,
    state: &'a State,
    identity: (ledger::ClusterId, u16),
    consumed: NameMap<OutputId, &'a LiveOutput>,
    /// What the batch's outcomes so far say of outputs.
    fates: NameMap<OutputId, Fate>,
    frontier: Frontier,
    log: merkle::Frontier,
}

/// Where the outputs that a transaction names are listed: inputs and references, of which so many are inputs; and what
/// it creates.
#[derive(Default)]
struct Slots {
    named: Vec<usize>,
    inputs: usize,
    created: Vec<usize>,
}

/// The outputs of a chunk so far.
#[derive(Default)]
struct Listing {
    touched: Vec<Touched>,
    by_id: NameMap<OutputId, usize>,
}

impl<'a> Collector<'a> {
    fn new(testimony: &'a Testimony, replay: &'a Replay) -> Self {
        Self {
            testimony,
            state: replay.state(),
            identity: replay.identity(),
            consumed: testimony.consumed.iter().map(|output| (output.id, output)).collect(),
            fates: NameMap::default(),
            frontier: *replay.frontier(),
            log: replay.log().clone(),
        }
    }

    fn chunk(&mut self, range: Range<usize>, ends_batch: bool) -> Chunk {
        let head = self.testimony.head;
        let lines: &'a [Line] = self.testimony.lines.get(range).unwrap_or_default();
        let (before, log) = (self.frontier, self.log.clone());
        let mut listing = Listing::default();
        let entries: Vec<Entry> = lines.iter().map(|line| self.entry(line, &mut listing)).collect();
        self.advance(&entries, &mut listing, ends_batch.then_some(head));
        Chunk {
            cluster: self.identity.0,
            group: self.identity.1,
            batch: head.batch,
            log_time: lines.first().map_or(head.log_time, |line| line.record.log_time),
            before,
            log,
            barred: self.barred(lines),
            entries,
            touched: listing.touched,
            change: self.testimony.change.clone(),
            after: self.frontier,
            head: ends_batch.then_some(head),
        }
    }

    fn entry(&mut self, line: &Line, listing: &mut Listing) -> Entry {
        let body = &line.received.transaction().body;
        let Slots { named, inputs, created } = self.slots(line, listing);
        let observations = self.observations(line, inputs, &named, listing);
        if line.record.outcome.is_committed() {
            let (sequence, by) = (line.record.sequence, line.record.transaction);
            for slot in named.iter().take(inputs) {
                self.set(listing, *slot, Fate::Spent { by });
            }
            for slot in created {
                self.set(listing, slot, Fate::Live { created_at: sequence });
            }
        }
        Entry {
            sequence: line.record.sequence,
            received: line.received.clone(),
            outcome: line.record.outcome.clone(),
            observations,
            observed_root: body.seen_head.and_then(|seen| self.state.root_at(seen.size).ok().flatten()),
            invoked: line.record.stamp,
            responded: line.responded,
        }
    }

    fn set(&mut self, listing: &mut Listing, slot: usize, fate: Fate) {
        if let Some(output) = listing.touched.get_mut(slot) {
            output.after = fate;
            self.fates.insert(output.id, fate);
        }
    }

    /// Lists what a transaction consumes, references and creates by its own words, and by what it is said to have chosen.
    fn slots(&self, line: &Line, listing: &mut Listing) -> Slots {
        let id = line.record.transaction;
        let mut slots = Slots::default();
        match (&line.received.transaction().body.intent, &line.record.outcome) {
            (Intent::Movements(Movements { inputs, references, outputs, .. }), _) => {
                slots.inputs = inputs.len();
                slots.named.reserve(inputs.len().saturating_add(references.len()));
                for input in inputs {
                    slots.named.push(listing.find(self, &input.origin, &input.contract));
                }
                for reference in references {
                    slots.named.push(listing.find(self, &reference.origin, &reference.contract));
                }
                let created = commands::originated(id, outputs);
                slots.created = created.map(|(origin, contract)| listing.find(self, &origin, contract)).collect();
            }
            (Intent::Command(command), Outcome::Committed { chosen }) => {
                let consumed: Vec<&LiveOutput> =
                    chosen.iter().filter_map(|id| self.consumed.get(id)).copied().collect();
                let positions: Vec<Position> =
                    consumed.iter().filter_map(|output| position(&output.contract)).collect();
                slots.inputs = consumed.len();
                for output in consumed {
                    slots.named.push(listing.find(self, &output.origin, &output.contract));
                }
                let outputs = commands::creates(command, &positions).unwrap_or_default();
                let created = commands::originated(id, &outputs);
                slots.created = created.map(|(origin, contract)| listing.find(self, &origin, contract)).collect();
            }
            (Intent::Command(_), Outcome::Rejected(_)) => {}
        }
        slots
    }

    /// What the node's words show of what was seen: the places of consumed outputs, and the evidence of rejections.
    fn observations(&self, line: &Line, inputs: usize, slots: &[usize], listing: &Listing) -> Vec<Option<Fate>> {
        let judged = |position: usize| match &line.record.outcome {
            Outcome::Rejected(Rejection::InputSpent { input, winner, .. }) if usize::from(*input) == position => {
                Some(Fate::Spent { by: *winner })
            }
            Outcome::Rejected(Rejection::InputUnknown { input, .. }) if usize::from(*input) == position => {
                Some(Fate::Absent)
            }
            Outcome::Committed { .. } if position < inputs => {
                let output = listing.touched.get(*slots.get(position)?)?;
                let consumed = self.consumed.get(&output.id)?;
                Some(Fate::Live { created_at: consumed.place.sequence })
            }
            Outcome::Rejected(_) | Outcome::Committed { .. } => None,
        };
        (0..slots.len()).map(judged).collect()
    }

    fn advance(&mut self, entries: &[Entry], listing: &mut Listing, head: Option<Head>) {
        let mut unspent: UnspentDigest = self.frontier.unspent;
        for output in &listing.touched {
            match (output.before.is_live(), output.after.is_live()) {
                (true, false) => unspent.remove(&output.id),
                (false, true) => unspent.insert(&output.id),
                (true, true) | (false, false) => {}
            }
        }
        let log_time = self.testimony.lines.first().map_or(self.testimony.head.log_time, |line| line.record.log_time);
        entries.iter().for_each(|entry| self.log.append(entry.leaf(log_time)));
        let invoked = entries.iter().map(|entry| entry.invoked).max();
        let real_time = invoked.map_or(self.frontier.real_time, |invoked| invoked.max(self.frontier.real_time));
        self.frontier = match head {
            // the node's own word
            Some(head) => Frontier {
                batch: head.batch,
                standing: Standing::BetweenBatches,
                next: head.size,
                log_root: head.log_root,
                unspent: head.unspent,
                real_time,
                log_time: head.log_time,
                epoch: head.epoch,
            },
            None => Frontier {
                standing: Standing::InsideBatch,
                next: Sequence::new(self.log.size()),
                log_root: self.log.root(),
                unspent,
                real_time,
                log_time,
                ..self.frontier
            },
        };
    }

    /// Of groups of which only a part has places here, all members.
    fn barred(&self, lines: &[Line]) -> Vec<Vec<TransactionId>> {
        if self.testimony.groups.is_empty() {
            return Vec::new();
        }
        let placed = |group: AtomicGroupId| {
            lines.iter().filter(|line| line.received.transaction().body.atomic == Some(group)).count()
        };
        let partly = |members: &&Vec<TransactionId>| {
            let placed = placed(AtomicGroupId::of(members));
            placed > 0 && placed < members.len()
        };
        self.testimony.groups.iter().filter(partly).cloned().collect()
    }
}

impl Listing {
    fn find(&mut self, collector: &Collector<'_>, origin: &Origin, contract: &Contract) -> usize {
        let (id, known) = collector.state.look_up(origin, contract);
        let before = collector.fates.get(&id).copied().unwrap_or(known);
        let touched = &mut self.touched;
        *self.by_id.entry(id).or_insert_with(|| {
            touched.push(Touched { id, origin: *origin, contract: *contract, before, after: before });
            touched.len().saturating_sub(1)
        })
    }
}

fn position(contract: &Contract) -> Option<Position> {
    match contract {
        Contract::Position(position) => Some(*position),
        Contract::Grant(_) | Contract::Allocation(_) => None,
    }
}
