//! What a transaction wants to do to the state, read off its body: the outputs it consumes, references and creates,
//! and the log times at which it may. Whether it happens is decided in the order ([`crate::apply`]).

use crate::contract::Contract;
use crate::identifier::{OutputId, TransactionId};
use crate::quantity::LogTime;
use crate::transaction::{Body, Intent, Movements, Origin, Unlock, output_id};

/// The effects of a transaction that names its inputs. A command has none before it is applied: what it consumes
/// is chosen then, and what it creates follows from that.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Effects {
    /// Consumed outputs with their origins, in input order.
    pub consumed: Vec<(OutputId, Origin)>,
    /// Referenced outputs with their origins, in reference order.
    pub referenced: Vec<(OutputId, Origin)>,
    /// Created outputs, in output order.
    pub created: Vec<(OutputId, Contract)>,
    /// Allocations returned as expired, which needs a log time at or after their expiries: (index of the input,
    /// expiry), in input order.
    pub expirations: Vec<(u16, LogTime)>,
    /// Allocations that settle, which needs a log time before their expiries: (index of the input, expiry), in
    /// input order.
    pub settlements: Vec<(u16, LogTime)>,
}

impl Effects {
    /// The effects of `body`, whose identifier is `id`.
    #[must_use]
    pub fn of(id: &TransactionId, body: &Body) -> Self {
        match &body.intent {
            Intent::Movements(movements) => Self::of_movements(id, movements),
            Intent::Command(_) => Self::default(),
        }
    }

    fn of_movements(id: &TransactionId, movements: &Movements) -> Self {
        let timed = |unlock: Unlock| {
            let inputs = movements.inputs.iter().enumerate();
            inputs
                .filter_map(|(position, input)| match &input.contract {
                    Contract::Allocation(locked) if input.unlock == unlock => {
                        Some((small_index(position), locked.expires_at))
                    }
                    Contract::Allocation(_) | Contract::Position(_) | Contract::Grant(_) => None,
                })
                .collect()
        };
        Self {
            consumed: movements.inputs.iter().map(|input| (input.output_id(), input.origin)).collect(),
            referenced: movements
                .references
                .iter()
                .map(|reference| (reference.output_id(), reference.origin))
                .collect(),
            created: created_outputs(id, &movements.outputs),
            expirations: timed(Unlock::Expire),
            settlements: timed(Unlock::Settle),
        }
    }

    /// Every output that begins or ceases to exist: the consumed ones, then the created ones.
    pub fn changed(&self) -> impl Iterator<Item = &OutputId> {
        self.consumed.iter().map(|(id, _)| id).chain(self.created.iter().map(|(id, _)| id))
    }

    /// How many outputs begin or cease to exist.
    #[must_use]
    pub const fn changed_count(&self) -> usize {
        self.consumed.len().saturating_add(self.created.len())
    }
}

/// Names the outputs of a transaction.
#[must_use]
pub fn created_outputs(id: &TransactionId, contracts: &[Contract]) -> Vec<(OutputId, Contract)> {
    let named = |(position, contract): (usize, &Contract)| (output_id(id, small_index(position), contract), *contract);
    contracts.iter().enumerate().map(named).collect()
}

/// An index that the limits keep below 2^16.
pub(crate) fn small_index(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}
