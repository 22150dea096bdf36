//! Evidence from what a node says of its batches.
//!
//! Nothing is judged here: outcomes are the node's, and the states that follow are what its outcomes say. Only the
//! state before a batch is the reader's own, carried by its replay.

use std::ops::Range;

use ledger::batch::BatchRecord;
use ledger::bundle::{BundleFault, BundleParts};
use ledger::digest::UnspentDigest;
use ledger::entry::ConfigurationChange;
use ledger::rejection::Rejection;
use ledger::transaction::ReceivedTransaction;
use ledger::view::LiveOutput;
use ledger::{
    AtomicGroupId, Contract, Head, Intent, Limits, LogTime, Movements, Origin, Outcome, OutcomeRecord, OutputId,
    Position, Sequence, TransactionId, merkle,
};

use crate::commands;
use crate::evidence::{Chunk, Entry, Fate, Touched};
use crate::frontier::{Frontier, Standing};
use crate::hashing::{NameHashing, NameMap};
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
    /// Where each output that it consumed was created: of movements in the order of their inputs, of a command as chosen.
    pub created_at: Vec<Sequence>,
    /// What a command consumed; movements name it themselves.
    pub chosen: Vec<(Origin, Contract)>,
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
    /// Committed transactions consumed more or fewer outputs than are told, or others.
    #[error("it tells of other consumed outputs than its transactions have")]
    Consumed,
}

impl Testimony {
    /// Reads what nodes keep of a batch. Nobody says there when a transaction was answered.
    ///
    /// # Errors
    /// Where the parts do not belong together.
    pub fn of_record(record: &BatchRecord) -> Result<Self, TestimonyFault> {
        let BatchRecord { head, bundle, records, change, .. } = record;
        let layout = if records.is_empty() { None } else { Some(BundleParts::read(bundle, &Limits::V1)?) };
        let decode = |member: usize| {
            let range = layout.as_ref()?.members().get(member)?.clone();
            ReceivedTransaction::decode(bundle.get(range)?).ok()
        };
        let mut lines = Vec::with_capacity(records.len());
        let (mut commands, mut creators) = (record.chosen(), record.creators().iter());
        for (position, record_of_line) in records.iter().enumerate() {
            let member = record.members().get(position).and_then(|member| usize::try_from(*member).ok());
            let received = member.and_then(decode).filter(|received| received.id() == record_of_line.transaction);
            let received = received.ok_or(TestimonyFault::Member(record_of_line.sequence))?;
            let record = record_of_line.clone();
            let (created_at, chosen) = consumed(&record, &received, &mut creators, &mut commands)?;
            lines.push(Line { record, received, responded: None, created_at, chosen });
        }
        if creators.next().is_some() || commands.next().is_some() {
            return Err(TestimonyFault::Consumed);
        }
        // a submission of which a member does not read has no places
        let submissions = layout.iter().flat_map(BundleParts::submissions);
        let groups = submissions.filter(|submission| submission.members.len() > 1).filter_map(|submission| {
            submission.members.clone().map(|member| Some(decode(member)?.id())).collect::<Option<Vec<_>>>()
        });
        let groups = groups.collect();
        Ok(Self { head: *head, lines, groups, change: change.clone() })
    }
}

/// What a committed transaction consumed: where that was created, and of a command what it was.
#[expect(clippy::type_complexity, reason = "two parts of a line")]
fn consumed<'a>(
    record: &OutcomeRecord,
    received: &ReceivedTransaction,
    creators: &mut impl Iterator<Item = &'a Sequence>,
    commands: &mut impl Iterator<Item = LiveOutput>,
) -> Result<(Vec<Sequence>, Vec<(Origin, Contract)>), TestimonyFault> {
    let Outcome::Committed { chosen } = &record.outcome else { return Ok(Default::default()) };
    match &received.transaction().body.intent {
        Intent::Movements(movements) => {
            let places: Vec<Sequence> = creators.take(movements.inputs.len()).copied().collect();
            if places.len() == movements.inputs.len() {
                Ok((places, Vec::new()))
            } else {
                Err(TestimonyFault::Consumed)
            }
        }
        Intent::Command(_) => {
            let outputs: Vec<LiveOutput> = commands.take(chosen.len()).collect();
            if outputs.len() != chosen.len() {
                return Err(TestimonyFault::Consumed);
            }
            if chosen.iter().zip(&outputs).any(|(id, output)| output.id != *id) {
                return Err(TestimonyFault::Consumed);
            }
            let places = outputs.iter().map(|output| output.place.sequence).collect();
            Ok((places, outputs.into_iter().map(|output| (output.origin, output.contract)).collect()))
        }
    }
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
    let collected = collected_of(testimony.clone(), replay, transactions_max);
    collected.into_iter().map(|collected| collected.chunk).collect()
}

/// A chunk that was made here, so that what was hashed for it need not be hashed again to be checked: the names of its
/// outputs are those of what they name, and its log is the one that its entries make. Nothing else of it is judged.
#[derive(Debug, Clone)]
pub struct Collected {
    chunk: Chunk,
    log_after: merkle::Frontier,
}

impl Collected {
    /// The chunk.
    #[must_use]
    pub const fn chunk(&self) -> &Chunk {
        &self.chunk
    }

    /// The right edge of the log behind its entries.
    pub(crate) const fn log_after(&self) -> &merkle::Frontier {
        &self.log_after
    }
}

/// [`chunks`], to be accepted by the reader's own replay.
#[must_use]
pub fn collected(testimony: Testimony, replay: &Replay) -> Vec<Collected> {
    collected_of(testimony, replay, CHUNK_TRANSACTIONS_MAX)
}

fn collected_of(testimony: Testimony, replay: &Replay, transactions_max: usize) -> Vec<Collected> {
    let ranges = ranges(&testimony.lines, transactions_max);
    let last = ranges.len().saturating_sub(1);
    let Testimony { head, lines, groups, change } = testimony;
    let mut collector = Collector {
        head,
        groups,
        change,
        state: replay.state(),
        identity: replay.identity(),
        fates: NameMap::default(),
        frontier: *replay.frontier(),
        log: replay.log().clone(),
    };
    let mut lines = lines.into_iter();
    let chunk = |(position, range): (usize, Range<usize>)| {
        let chunk = collector.chunk(lines.by_ref().take(range.len()).collect(), position == last);
        Collected { chunk, log_after: collector.log.clone() }
    };
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
    head: Head,
    groups: Vec<Vec<TransactionId>>,
    change: Option<ConfigurationChange>,
    state: &'a State,
    identity: (ledger::ClusterId, u16),
    /// What earlier chunks' outcomes say of outputs.
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
struct Listing {
    touched: Vec<Touched>,
    by_id: NameMap<OutputId, usize>,
}

impl Collector<'_> {
    fn chunk(&mut self, lines: Vec<Line>, ends_batch: bool) -> Chunk {
        let head = self.head;
        let (before, log) = (self.frontier, self.log.clone());
        let log_time = lines.first().map_or(head.log_time, |line| line.record.log_time);
        let mut listing = Listing::with_capacity(lines.iter().map(lists).fold(0_usize, usize::saturating_add));
        let mut known = self.state.look_up_all(lines.iter().flat_map(named)).into_iter();
        let barred = self.barred(&lines);
        let entries: Vec<Entry> = lines.into_iter().map(|line| self.entry(line, &mut listing, &mut known)).collect();
        self.advance(&entries, &listing, log_time, ends_batch.then_some(head));
        Chunk {
            cluster: self.identity.0,
            group: self.identity.1,
            batch: head.batch,
            log_time,
            before,
            log,
            barred,
            entries,
            touched: listing.touched,
            change: self.change.clone(),
            after: self.frontier,
            head: ends_batch.then_some(head),
        }
    }

    fn entry(&self, line: Line, listing: &mut Listing, known: &mut impl Iterator<Item = (OutputId, Fate)>) -> Entry {
        let Slots { named, inputs, created } = self.slots(&line, listing, known);
        let observations = observations(&line, inputs, named.len());
        let Line { record, received, responded, .. } = line;
        if record.outcome.is_committed() {
            let by = record.transaction;
            named.iter().take(inputs).for_each(|slot| listing.set(*slot, Fate::Spent { by }));
            created.iter().for_each(|slot| listing.set(*slot, Fate::Live { created_at: record.sequence }));
        }
        let seen_head = received.transaction().body.seen_head;
        Entry {
            sequence: record.sequence,
            outcome: record.outcome,
            observations,
            observed_root: seen_head.and_then(|seen| self.state.root_at(seen.size).ok().flatten()),
            invoked: record.stamp,
            responded,
            received,
        }
    }

    /// Lists what a transaction consumes, references and creates by its own words, and by what it is said to have chosen.
    /// What is known of everything that movements name comes in its order.
    fn slots(&self, line: &Line, listing: &mut Listing, known: &mut impl Iterator<Item = (OutputId, Fate)>) -> Slots {
        let id = line.record.transaction;
        let mut slots = Slots::default();
        match (&line.received.transaction().body.intent, &line.record.outcome) {
            (Intent::Movements(Movements { inputs, outputs, .. }), _) => {
                slots.inputs = inputs.len();
                slots.named = named(line)
                    .zip(known)
                    .map(|((origin, contract), known)| listing.add(self, known, origin, contract))
                    .collect();
                let created = commands::originated(id, outputs);
                slots.created = created.map(|(origin, contract)| listing.create(self, &origin, contract)).collect();
            }
            (Intent::Command(command), Outcome::Committed { chosen }) => {
                let told = line.chosen.iter().zip(chosen);
                let consumed = told.filter(|((origin, contract), id)| origin.output_id(contract) == **id);
                let mut positions = Vec::with_capacity(line.chosen.len());
                for ((origin, contract), _) in consumed {
                    slots.named.push(listing.add(self, self.state.look_up(origin, contract), origin, contract));
                    positions.extend(position(contract));
                }
                slots.inputs = slots.named.len();
                let outputs = commands::creates(command, &positions).unwrap_or_default();
                let created = commands::originated(id, &outputs);
                slots.created = created.map(|(origin, contract)| listing.create(self, &origin, contract)).collect();
            }
            (Intent::Command(_), Outcome::Rejected(_)) => {}
        }
        slots
    }

    fn advance(&mut self, entries: &[Entry], listing: &Listing, log_time: LogTime, head: Option<Head>) {
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
                unspent: self.pass_on(listing),
                real_time,
                log_time,
                ..self.frontier
            },
        };
    }

    /// Notes for the batch's next chunk what this one did; returns the digest of the live outputs behind it.
    fn pass_on(&mut self, listing: &Listing) -> UnspentDigest {
        let mut unspent = self.frontier.unspent;
        for output in &listing.touched {
            self.fates.insert(output.id, output.after);
            match (output.before.is_live(), output.after.is_live()) {
                (true, false) => unspent.remove(&output.id),
                (false, true) => unspent.insert(&output.id),
                (true, true) | (false, false) => {}
            }
        }
        unspent
    }

    /// Of groups of which only a part has places here, all members.
    fn barred(&self, lines: &[Line]) -> Vec<Vec<TransactionId>> {
        if self.groups.is_empty() {
            return Vec::new();
        }
        let placed = |group: AtomicGroupId| {
            lines.iter().filter(|line| line.received.transaction().body.atomic == Some(group)).count()
        };
        let partly = |members: &&Vec<TransactionId>| {
            let placed = placed(AtomicGroupId::of(members));
            placed > 0 && placed < members.len()
        };
        self.groups.iter().filter(partly).cloned().collect()
    }
}

/// What the node's words show of what was seen: the places of consumed outputs, and the evidence of rejections.
fn observations(line: &Line, inputs: usize, named: usize) -> Vec<Option<Fate>> {
    let judged = |position: usize| match &line.record.outcome {
        Outcome::Rejected(Rejection::InputSpent { input, winner, .. }) if usize::from(*input) == position => {
            Some(Fate::Spent { by: *winner })
        }
        Outcome::Rejected(Rejection::InputUnknown { input, .. }) if usize::from(*input) == position => {
            Some(Fate::Absent)
        }
        Outcome::Committed { .. } if position < inputs => {
            line.created_at.get(position).map(|created_at| Fate::Live { created_at: *created_at })
        }
        Outcome::Rejected(_) | Outcome::Committed { .. } => None,
    };
    (0..named).map(judged).collect()
}

impl Listing {
    fn with_capacity(outputs: usize) -> Self {
        let by_id = NameMap::with_capacity_and_hasher(outputs, NameHashing::default());
        Self { touched: Vec::with_capacity(outputs), by_id }
    }

    /// Lists an output of which the state before the batch knows this.
    fn add(
        &mut self,
        collector: &Collector<'_>,
        (id, known): (OutputId, Fate),
        origin: &Origin,
        contract: &Contract,
    ) -> usize {
        let touched = &mut self.touched;
        *self.by_id.entry(id).or_insert_with(|| {
            let before = collector.fates.get(&id).copied().unwrap_or(known);
            touched.push(Touched { id, origin: *origin, contract: *contract, before, after: before });
            touched.len().saturating_sub(1)
        })
    }

    fn set(&mut self, slot: usize, fate: Fate) {
        if let Some(output) = self.touched.get_mut(slot) {
            output.after = fate;
        }
    }

    /// Lists an output of a transaction that has its place only here: there was none before.
    fn create(&mut self, collector: &Collector<'_>, origin: &Origin, contract: &Contract) -> usize {
        self.add(collector, (origin.output_id(contract), Fate::Absent), origin, contract)
    }
}

/// What a transaction consumes and references by its own words, in order.
fn named(line: &Line) -> impl Iterator<Item = (&Origin, &Contract)> {
    let movements = match &line.received.transaction().body.intent {
        Intent::Movements(movements) => Some(movements),
        Intent::Command(_) => None,
    };
    movements.into_iter().flat_map(|Movements { inputs, references, .. }| {
        let inputs = inputs.iter().map(|input| (&input.origin, &input.contract));
        inputs.chain(references.iter().map(|reference| (&reference.origin, &reference.contract)))
    })
}

/// Outputs that a transaction names by its own words.
fn lists(line: &Line) -> usize {
    let created = match &line.received.transaction().body.intent {
        Intent::Movements(movements) => movements.outputs.len(),
        Intent::Command(_) => 0,
    };
    named(line).count().saturating_add(created)
}

fn position(contract: &Contract) -> Option<Position> {
    match contract {
        Contract::Position(position) => Some(*position),
        Contract::Grant(_) | Contract::Allocation(_) => None,
    }
}
