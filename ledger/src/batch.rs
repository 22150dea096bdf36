//! Batches as nodes keep them and hand them out: the bundle, what became of it, and what its transactions do not say of
//! themselves.
//!
//! A record is what its node says. It is believed after its outcomes were recomputed (crate `checker`), or where it comes
//! from the reader's own disk.

use std::collections::BTreeMap;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::apply::{self, BatchEffects, MemberResult};
use crate::bundle::BundleParts;
use crate::contract::Contract;
use crate::effects::Effects;
use crate::entry::ConfigurationChange;
use crate::head::Head;
use crate::identifier::{OutputId, Party, TransactionId, append_canonical_bytes};
use crate::limits::Limits;
use crate::outcome::{Outcome, OutcomeRecord};
use crate::quantity::Sequence;
use crate::transaction::{Command, Input, Intent, Movements, Origin, ReceivedTransaction, TermsAction, TermsEntry};
use crate::view::{LiveOutput, Place};

/// A record whose parts do not belong together: that part cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} cannot be read")]
pub struct BatchFault(pub &'static str);

/// One batch as it is kept: what was submitted and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct BatchRecord {
    /// The head after it.
    pub head: Head,
    /// The bundle's bytes; empty for a change of the configuration.
    #[borsh(deserialize_with = "crate::identifier::read_bytes")]
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

impl BatchRecord {
    /// The record of a batch, and what its bundle's members are told.
    ///
    /// # Panics
    /// Where the bundle has 2^32 members, which the limits forbid.
    pub fn of_bundle(head: Head, bundle: Vec<u8>, effects: BatchEffects) -> (Self, Vec<MemberResult>) {
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

    /// The record of a change of the configuration.
    #[must_use]
    pub const fn of_configuration(head: Head, change: ConfigurationChange) -> Self {
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

    /// The canonical encoding: what is stored, and what nodes hand out.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        const RECORD_BYTES: usize = 96;
        const REST_BYTES: usize = 1024;
        let records_bytes = self.records.len().saturating_mul(RECORD_BYTES);
        let bytes_about = self.bundle.len().saturating_add(records_bytes).saturating_add(REST_BYTES);
        let mut bytes = Vec::with_capacity(bytes_about);
        append_canonical_bytes(&mut bytes, self);
        bytes
    }

    /// For each record, the member of the bundle that it is the outcome of.
    #[must_use]
    pub fn members(&self) -> &[u32] {
        &self.members
    }

    /// Outputs that commands consumed, in order; their transactions do not name them.
    pub fn chosen(&self) -> impl Iterator<Item = LiveOutput> {
        self.chosen.iter().map(StoredOutput::output)
    }

    /// Creators' places of the outputs that committed movements consumed, in order; their transactions name the rest.
    #[must_use]
    pub fn creators(&self) -> &[Sequence] {
        &self.creators
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
        let layout = BundleParts::read(&self.bundle, limits).ok()?;
        self.member_bytes(position, &layout)
    }

    fn member_bytes(&self, position: usize, layout: &BundleParts) -> Option<&[u8]> {
        let member = usize::try_from(*self.members.get(position)?).ok()?;
        self.bundle.get(layout.members().get(member)?.clone())
    }

    /// The transactions of the records, in order.
    ///
    /// # Errors
    /// Where the stored bundle does not decode.
    pub fn transactions(&self, limits: &Limits) -> Result<Vec<ReceivedTransaction>, BatchFault> {
        if self.records.is_empty() {
            return Ok(Vec::new());
        }
        let layout = BundleParts::read(&self.bundle, limits).map_err(|_reason| BatchFault("batches (bundle)"))?;
        let decode = |position| {
            let bytes = self.member_bytes(position, &layout).ok_or(BatchFault("batches (member)"))?;
            ReceivedTransaction::decode(bytes).map_err(|_reason| BatchFault("batches (transaction)"))
        };
        (0..self.records.len()).map(decode).collect()
    }

    /// The batch's changes of the unspent set, read off its committed transactions.
    ///
    /// # Errors
    /// Where the stored bundle does not decode.
    pub fn update(&self, limits: &Limits) -> Result<BatchUpdate, BatchFault> {
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
                        let sequence = *creators.next().ok_or(BatchFault("batches (creators)"))?;
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
    command: &Command,
    chosen: &[LiveOutput],
) -> Result<Vec<(OutputId, Contract)>, BatchFault> {
    apply::command_outputs(id, command, chosen).map_err(|_reason| BatchFault("batches (command)"))
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
