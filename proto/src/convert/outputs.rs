//! Live and consumed outputs, and proposals.

use ledger::transaction::Origin;
use ledger::view::{LiveOutput, Place};
use ledger::{Contract, OutputId, Sequence, TermsAction, TermsEntry};

use super::fields::{canonical, encoded, identifier, named, narrow, present};
use super::{ConversionFault, Doubt};
use crate::wire;

/// Reads a live output. Its name must be the hash of its content and origin.
///
/// # Errors
/// Where a field is wrong, or the name is another.
pub fn live_output(wire: &wire::LiveOutput) -> Result<LiveOutput, ConversionFault> {
    let index = narrow("index", u64::from(wire.index))?;
    let origin = Origin { transaction: identifier("transaction", &wire.transaction)?, index };
    let contract: Contract = canonical("contract", &wire.contract)?;
    let id: OutputId = identifier("id", &wire.id)?;
    if id != origin.output_id(&contract) {
        return Err(ConversionFault::new("id", Doubt::Contradicts("transaction, index and contract")));
    }
    let place = Place { sequence: Sequence::new(wire.sequence), index };
    Ok(LiveOutput { id, origin, place, contract })
}

/// A live output as it travels.
#[must_use]
pub fn live_output_to_wire(output: &LiveOutput) -> wire::LiveOutput {
    wire::LiveOutput {
        id: named(&output.id),
        transaction: named(&output.origin.transaction),
        index: u32::from(output.origin.index),
        contract: encoded(&output.contract),
        sequence: output.place.sequence.get(),
    }
}

/// An output and the place of the transaction that consumed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Consumed {
    /// What was consumed.
    pub output: LiveOutput,
    /// The consumer's place in the order.
    pub spender: Sequence,
}

impl TryFrom<&wire::ConsumedOutput> for Consumed {
    type Error = ConversionFault;

    fn try_from(wire: &wire::ConsumedOutput) -> Result<Self, ConversionFault> {
        let output = live_output(present("output", wire.output.as_ref())?)?;
        let spender = Sequence::new(wire.spender_sequence);
        // only groups commit at neighbouring places, and nothing consumes its own outputs
        if spender <= output.place.sequence {
            return Err(ConversionFault::new("spender_sequence", Doubt::Contradicts("output")));
        }
        Ok(Self { output, spender })
    }
}

impl From<&Consumed> for wire::ConsumedOutput {
    fn from(consumed: &Consumed) -> Self {
        Self { output: Some(live_output_to_wire(&consumed.output)), spender_sequence: consumed.spender.get() }
    }
}

/// Terms that a committed transaction proposed, and the allocations that it locked to them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// The terms.
    pub terms: ledger::Terms,
    /// The allocations.
    pub allocations: Vec<LiveOutput>,
}

impl TryFrom<&wire::Proposal> for Proposal {
    type Error = ConversionFault;

    fn try_from(wire: &wire::Proposal) -> Result<Self, ConversionFault> {
        let entry: TermsEntry = canonical("terms", &wire.terms)?;
        if entry.action != TermsAction::Propose {
            return Err(ConversionFault::new("terms", Doubt::Contradicts("being a proposal")));
        }
        let id = entry.terms.id();
        let allocations = wire.allocations.iter().map(live_output).collect::<Result<Vec<_>, _>>()?;
        let locked_to_them =
            |output: &LiveOutput| matches!(&output.contract, Contract::Allocation(locked) if locked.terms == id);
        if !allocations.iter().all(locked_to_them) {
            return Err(ConversionFault::new("allocations", Doubt::Contradicts("terms")));
        }
        Ok(Self { terms: entry.terms, allocations })
    }
}

impl From<&Proposal> for wire::Proposal {
    fn from(proposal: &Proposal) -> Self {
        let entry = TermsEntry { action: TermsAction::Propose, terms: proposal.terms.clone() };
        Self { terms: encoded(&entry), allocations: proposal.allocations.iter().map(live_output_to_wire).collect() }
    }
}
