//! What readers ask for: batches, outcomes, holdings, proofs.

use std::collections::BTreeMap;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use ledger::apply::{BatchEffects, MemberResult};
use ledger::bundle::BundleLayout;
use ledger::effects::Effects;
use ledger::entry::ConfigurationChange;
use ledger::merkle::LogFault;
use ledger::transaction::ReceivedTransaction;
use ledger::view::{LiveOutput, Place};
use ledger::{
    Contract, Head, Input, Intent, Limits, LogTime, Movements, Origin, Outcome, OutcomeRecord, OutputId, Party,
    Receipt, Sequence, SignedHead, TermsAction, TermsEntry, TransactionId,
};

use super::codec::OwnerKey;
use super::tables::View;
use super::{LedgerState, StateFault};

/// One batch as it is kept: what was submitted and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BatchRecord {
    /// The head after it.
    pub head: Head,
    /// The bundle's bytes; empty for a change of the configuration.
    pub bundle: Vec<u8>,
    /// Outcomes of the transactions sequenced in it, in order.
    pub records: Vec<OutcomeRecord>,
    /// For each record, its member in the bundle.
    members: Vec<u32>,
    /// Outputs that commands consumed, in order; their transactions do not name them.
    chosen: Vec<StoredOutput>,
    /// Creators' places of the outputs that movements consumed, in order; their transactions name the rest.
    creators: Vec<Sequence>,
    /// The change of the configuration, if it was one.
    pub change: Option<ConfigurationChange>,
}

#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct StoredOutput {
    origin: Origin,
    place: Place,
    contract: Contract,
}

/// A batch's changes of the unspent set, as update streams tell them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BatchUpdate {
    /// The head after it.
    pub head: Head,
    /// Outputs created, consumed in the same batch or not, in order.
    pub created: Vec<LiveOutput>,
    /// Outputs consumed with the places of their consumers, in order.
    pub consumed: Vec<(LiveOutput, Sequence)>,
    /// Terms proposed, with the allocations locked to them.
    pub proposals: Vec<(TermsEntry, Vec<LiveOutput>)>,
    /// Allocations settled or rejected, with the parties to their terms.
    pub revealed: BTreeMap<OutputId, Vec<Party>>,
}

/// A page of an owner's holdings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// The live outputs.
    pub outputs: Vec<LiveOutput>,
    /// The head that the page reflects.
    pub head: Head,
    /// Where the next page begins, if more follow. Opaque; stays good while outputs come and go.
    pub next: Option<HoldingsCursor>,
}

/// A place in a holder's list of outputs: the last one of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldingsCursor(OwnerKey);

impl HoldingsCursor {
    /// The form on the wire.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Reads [`Self::as_bytes`]; `None` for anything that cannot be one.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        OwnerKey::from_bytes(bytes).map(Self)
    }
}

impl BatchRecord {
    /// The record of a batch, and what its bundle's members are told.
    pub(super) fn of_bundle(head: Head, bundle: Vec<u8>, effects: BatchEffects) -> (Self, Vec<MemberResult>) {
        let mut members = vec![0; effects.records.len()];
        // the first member that shows a record is the one sequenced; later ones repeat it
        for (member, result) in effects.results.iter().enumerate().rev() {
            if let MemberResult::Sequenced(record) = result
                && let Some(slot) = members.get_mut(*record)
            {
                *slot = u32::try_from(member).expect("the limits keep bundles small");
            }
        }
        let first = effects.records.first().map(|record| record.sequence.get()).unwrap_or_default();
        let by_command = |sequence: Sequence| {
            let position = usize::try_from(sequence.get().checked_sub(first)?).ok()?;
            match &effects.records.get(position)?.outcome {
                Outcome::Committed { chosen } => (!chosen.is_empty()).then_some(()),
                Outcome::Rejected(_) => None,
            }
        };
        let mut chosen = Vec::new();
        let mut creators = Vec::new();
        for consumed in &effects.consumed {
            match by_command(consumed.spender) {
                Some(()) => chosen.push(StoredOutput::of(&consumed.output)),
                None => creators.push(consumed.output.place.sequence),
            }
        }
        (
            Self { head, bundle, records: effects.records, members, chosen, creators, change: None },
            effects.results,
        )
    }

    pub(super) const fn of_configuration(head: Head, change: ConfigurationChange) -> Self {
        Self {
            head,
            bundle: Vec::new(),
            records: Vec::new(),
            members: Vec::new(),
            chosen: Vec::new(),
            creators: Vec::new(),
            change: Some(change),
        }
    }

    /// Size of the canonical encoding, about.
    pub(super) fn encoded_bytes_about(&self) -> usize {
        const RECORD_BYTES: usize = 96;
        self.bundle.len() + RECORD_BYTES * self.records.len() + 1024
    }

    /// The record at a place of the order, if it is of this batch.
    #[must_use]
    pub fn record(&self, sequence: Sequence) -> Option<&OutcomeRecord> {
        let first = self.records.first()?.sequence.get();
        self.records.get(usize::try_from(sequence.get().checked_sub(first)?).ok()?)
    }

    /// The canonical bytes of the transaction of the record at `position` in [`Self::records`].
    #[must_use]
    pub fn transaction_bytes(&self, position: usize, limits: &Limits) -> Option<&[u8]> {
        let layout = BundleLayout::read(&self.bundle, limits).ok()?;
        self.member_bytes(position, &layout)
    }

    fn member_bytes(&self, position: usize, layout: &BundleLayout) -> Option<&[u8]> {
        let member = usize::try_from(*self.members.get(position)?).ok()?;
        self.bundle.get(layout.members().get(member)?.clone())
    }

    /// The transactions of the records, in order.
    ///
    /// # Errors
    /// Where the stored bundle does not decode.
    pub fn transactions(&self, limits: &Limits) -> Result<Vec<ReceivedTransaction>, StateFault> {
        if self.records.is_empty() {
            return Ok(Vec::new());
        }
        let layout = BundleLayout::read(&self.bundle, limits).map_err(|_reason| StateFault::Row("batches (bundle)"))?;
        let decode = |position| {
            let bytes = self.member_bytes(position, &layout).ok_or(StateFault::Row("batches (member)"))?;
            ReceivedTransaction::decode(bytes).map_err(|_reason| StateFault::Row("batches (transaction)"))
        };
        (0..self.records.len()).map(decode).collect()
    }

    /// The batch's changes of the unspent set, read off its committed transactions.
    ///
    /// # Errors
    /// Where the stored bundle does not decode.
    pub fn update(&self, limits: &Limits) -> Result<BatchUpdate, StateFault> {
        let mut update = BatchUpdate {
            head: self.head,
            created: Vec::new(),
            consumed: Vec::new(),
            proposals: Vec::new(),
            revealed: BTreeMap::new(),
        };
        let mut chosen = self.chosen.iter();
        let mut creators = self.creators.iter();
        for (record, received) in self.records.iter().zip(self.transactions(limits)?) {
            let Outcome::Committed { chosen: names } = &record.outcome else { continue };
            match &received.transaction().body.intent {
                Intent::Movements(movements) => {
                    let effects = Effects::of(&received.id(), &received.transaction().body);
                    let first = update.created.len();
                    for (position, (id, contract)) in effects.created.iter().enumerate() {
                        update.created.push(created_output(record, position, *id, *contract));
                    }
                    for (input, (id, origin)) in movements.inputs.iter().zip(&effects.consumed) {
                        let sequence = *creators.next().ok_or(StateFault::Row("batches (creators)"))?;
                        let place = Place { sequence, index: origin.index };
                        let output = LiveOutput { id: *id, origin: *origin, place, contract: input.contract };
                        update.consumed.push((output, record.sequence));
                    }
                    let created = update.created.get(first..).unwrap_or_default();
                    update.proposals.extend(proposals(&movements.terms, created));
                    update.revealed.extend(revealed(movements));
                }
                Intent::Command(command) => {
                    let outputs: Vec<LiveOutput> =
                        chosen.by_ref().take(names.len()).map(StoredOutput::output).collect();
                    let created = apply_outputs(&received.id(), command, &outputs)?;
                    for (position, (id, contract)) in created.into_iter().enumerate() {
                        update.created.push(created_output(record, position, id, contract));
                    }
                    update.consumed.extend(outputs.into_iter().map(|output| (output, record.sequence)));
                }
            }
        }
        Ok(update)
    }
}

fn apply_outputs(
    id: &TransactionId,
    command: &ledger::Command,
    chosen: &[LiveOutput],
) -> Result<Vec<(OutputId, Contract)>, StateFault> {
    ledger::apply::command_outputs(id, command, chosen).map_err(|_reason| StateFault::Row("batches (command)"))
}

fn created_output(record: &OutcomeRecord, position: usize, id: OutputId, contract: Contract) -> LiveOutput {
    let index = u16::try_from(position).expect("the limits keep outputs below 2^16");
    LiveOutput {
        id,
        origin: Origin { transaction: record.transaction, index },
        place: Place { sequence: record.sequence, index },
        contract,
    }
}

fn proposals(terms: &[TermsEntry], created: &[LiveOutput]) -> Vec<(TermsEntry, Vec<LiveOutput>)> {
    let locked_to = |entry: &TermsEntry| {
        let id = entry.terms.id();
        let locked = |output: &&LiveOutput| matches!(&output.contract, Contract::Allocation(held) if held.terms == id);
        created.iter().filter(locked).copied().collect::<Vec<_>>()
    };
    let proposed = terms.iter().filter(|entry| entry.action == TermsAction::Propose);
    proposed.map(|entry| (entry.clone(), locked_to(entry))).collect()
}

/// Consumed allocations whose terms the transaction reveals, with the parties to those terms.
fn revealed(movements: &Movements) -> impl Iterator<Item = (OutputId, Vec<Party>)> {
    let concluded = movements.terms.iter().filter(|entry| entry.action != TermsAction::Propose);
    concluded.flat_map(|entry| {
        let id = entry.terms.id();
        let parties: Vec<Party> = entry.terms.legs.iter().flat_map(|leg| [leg.payer, leg.receiver]).collect();
        let locked = move |input: &&Input| matches!(&input.contract, Contract::Allocation(held) if held.terms == id);
        movements.inputs.iter().filter(locked).map(move |input| (input.output_id(), parties.clone()))
    })
}

impl StoredOutput {
    const fn of(output: &LiveOutput) -> Self {
        Self { origin: output.origin, place: output.place, contract: output.contract }
    }

    fn output(&self) -> LiveOutput {
        let id = self.origin.output_id(&self.contract);
        LiveOutput { id, origin: self.origin, place: self.place, contract: self.contract }
    }
}

impl LedgerState {
    fn view<R>(&self, read: impl FnOnce(&View<'_>) -> R) -> R {
        let memory = self.read();
        read(&View { kv: &*self.kv, memory: &memory })
    }

    /// The batch with this number, from 1.
    ///
    /// # Errors
    /// Where it was pruned, and where the store fails.
    pub fn batch(&self, number: u64) -> Result<Option<Arc<BatchRecord>>, StateFault> {
        self.view(|view| {
            let earliest_batch = view.beginning().batch;
            if (1..earliest_batch).contains(&number) {
                return Err(StateFault::Pruned { earliest_batch });
            }
            view.batch(number)
        })
    }

    /// The first batch that is kept; those before it were pruned.
    #[must_use]
    pub fn earliest_batch(&self) -> u64 {
        self.view(|view| view.beginning().batch)
    }

    /// Everything that was pruned had expired by then; zero where nothing was.
    #[must_use]
    pub fn forgotten_until(&self) -> LogTime {
        self.view(|view| view.beginning().expired_by)
    }

    /// Where a transaction was sequenced: its batch, and its position among that batch's records.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn transaction(&self, id: &TransactionId) -> Result<Option<(Arc<BatchRecord>, usize)>, StateFault> {
        self.view(|view| {
            let Some((sequence, number)) = view.transaction(id)? else { return Ok(None) };
            let batch = view.batch(number)?.ok_or(StateFault::Row("batches (missing)"))?;
            let first = batch.records.first().map(|record| record.sequence.get()).unwrap_or_default();
            let position =
                usize::try_from(sequence.get() - first).map_err(|_reason| StateFault::Row("transactions"))?;
            Ok(Some((batch, position)))
        })
    }

    /// The batch in which a place of the order lies.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn batch_of(&self, sequence: Sequence) -> Result<Option<u64>, StateFault> {
        self.view(|view| {
            if sequence < view.beginning().sequence {
                return Ok(None);
            }
            Ok(view.head_from(sequence.plus(1))?.map(|(_, batch, _)| batch))
        })
    }

    /// A batch's changes of the unspent set.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn update(&self, number: u64) -> Result<Option<BatchUpdate>, StateFault> {
        let Some(batch) = self.batch(number)? else { return Ok(None) };
        batch.update(&self.limits).map(Some)
    }

    /// A live output.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn live_output(&self, id: &OutputId) -> Result<Option<LiveOutput>, StateFault> {
        self.view(|view| view.live_output(id))
    }

    /// Up to `limit` of a holder's live outputs after the page that ended at the cursor.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn holdings(
        &self,
        holder: &Party,
        after: Option<&HoldingsCursor>,
        limit: usize,
    ) -> Result<Holdings, StateFault> {
        self.view(|view| {
            let mut keys = view.owner_keys(holder.as_bytes(), after.map(|cursor| cursor.0), limit + 1)?;
            let more = keys.len() > limit;
            keys.truncate(limit);
            let next = keys.last().filter(|_| more).copied().map(HoldingsCursor);
            let output = |key: &OwnerKey| view.live_output(&key.output())?.ok_or(StateFault::Row("owners (void)"));
            let outputs = keys.iter().map(output).collect::<Result<_, _>>()?;
            Ok(Holdings { outputs, head: *view.memory.core.commitments.head(), next })
        })
    }

    /// The receipt of a sequenced transaction against a signed head that covers it. `None` where it is not
    /// sequenced or the head is older.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn receipt(&self, id: &TransactionId, head: &SignedHead) -> Result<Option<Receipt>, StateFault> {
        let Some((batch, position)) = self.transaction(id)? else { return Ok(None) };
        let Some(record) = batch.records.get(position) else { return Ok(None) };
        if record.sequence >= head.head.size {
            return Ok(None);
        }
        let inclusion = self.view(|view| {
            let log = view.memory.core.commitments.log();
            log.inclusion_proof(view, record.sequence.get(), head.head.size.get()).map_err(log_fault)
        })?;
        Ok(Some(Receipt { record: record.clone(), inclusion, head: head.clone() }))
    }

    /// Proof that the log of size `new` continues the log of size `old`, with both roots.
    ///
    /// # Errors
    /// Where the store fails, or the sizes are not of this log, or the older one was pruned.
    pub fn consistency(&self, old: Sequence, new: Sequence) -> Result<ConsistencyProof, StateFault> {
        self.view(|view| {
            let beginning = view.beginning();
            if (Sequence::new(1)..beginning.sequence).contains(&old) {
                return Err(StateFault::Pruned { earliest_batch: beginning.batch });
            }
            let log = view.memory.core.commitments.log();
            Ok(ConsistencyProof {
                proof: log.consistency_proof(view, old.get(), new.get()).map_err(log_fault)?,
                old_root: log.root_at(view, old.get()).map_err(log_fault)?,
                new_root: log.root_at(view, new.get()).map_err(log_fault)?,
            })
        })
    }
}

/// Proof that one log continues another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsistencyProof {
    /// Hashes as in RFC 6962, section 2.1.2.
    pub proof: Vec<ledger::Hash>,
    /// Root of the smaller log.
    pub old_root: ledger::Hash,
    /// Root of the larger log.
    pub new_root: ledger::Hash,
}

fn log_fault(fault: LogFault<crate::StorageFault>) -> StateFault {
    match fault {
        LogFault::Source(fault) => StateFault::Storage(fault),
        LogFault::TileMissing(_) | LogFault::TileCorrupt(_) => StateFault::Row("tiles"),
        LogFault::SizeOutOfRange { .. } | LogFault::IndexOutOfRange { .. } | LogFault::SizesReversed { .. } => {
            StateFault::OutOfRange
        }
    }
}
