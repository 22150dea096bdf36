//! Inside one component, one unit after another: the serial rule that everything else is measured against.

mod command;

pub(super) use command::outputs as command_outputs;

use std::collections::{BTreeMap, HashMap};

use crate::asset::AssetType;
use crate::contract::Contract;
use crate::identifier::{OutputId, Party, TransactionId};
use crate::outcome::Outcome;
use crate::rejection::Rejection;
use crate::transaction::{Intent, Origin};
use crate::view::{LedgerView, LiveOutput, Place, ViewFault};

use super::component::OutputMap;
use super::prepare::Prepared;
use super::{BatchContext, Placed, Placement, live_output};

/// What became of one transaction.
pub(super) struct Resolved {
    pub(super) outcome: Outcome,
    pub(super) consumed: Vec<LiveOutput>,
    pub(super) created: Vec<(OutputId, Contract)>,
}

/// Resolves the units of a component in order; the result pairs places (indexes into the placed transactions) with
/// what became of them.
pub(super) fn resolve_component(
    view: &dyn LedgerView,
    context: &BatchContext<'_>,
    members: &[Option<Prepared>],
    placed: &Placement,
    units: &[usize],
) -> Result<Vec<(usize, Resolved)>, ViewFault> {
    let mut resolver = Resolver { view, context, local: HashMap::default(), positions: BTreeMap::new() };
    let mut resolved = Vec::with_capacity(units.len());
    for unit in units {
        let places = placed.units.get(*unit).cloned().unwrap_or_default();
        let unit: Vec<(usize, &Placed, &Prepared)> = places
            .filter_map(|place| {
                let placed = placed.transactions.get(place)?;
                Some((place, placed, members.get(placed.member)?.as_ref()?))
            })
            .collect();
        resolved.extend(resolver.resolve_unit(&unit)?);
    }
    Ok(resolved)
}

/// An output as this component has changed it.
#[derive(Clone, Copy)]
enum Local {
    Live(Place),
    SpentBy(TransactionId),
}

struct Resolver<'a> {
    view: &'a dyn LedgerView,
    context: &'a BatchContext<'a>,
    local: OutputMap<Local>,
    /// Positions above zero that this component created and has not consumed: what commands find besides the view.
    positions: BTreeMap<(Party, AssetType), BTreeMap<OutputId, LiveOutput>>,
}

/// A rejection, or a state that cannot be read.
enum Refusal {
    Rejected(Rejection),
    Fault(ViewFault),
}

impl From<Rejection> for Refusal {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(rejection)
    }
}

impl From<ViewFault> for Refusal {
    fn from(fault: ViewFault) -> Self {
        Self::Fault(fault)
    }
}

impl Resolver<'_> {
    /// A unit commits whole or not at all: where one member is rejected, those before it are undone.
    fn resolve_unit(&mut self, unit: &[(usize, &Placed, &Prepared)]) -> Result<Vec<(usize, Resolved)>, ViewFault> {
        let before = (unit.len() > 1).then(|| (self.local.clone(), self.positions.clone()));
        let mut resolved = Vec::with_capacity(unit.len());
        for (member, (place, placed, prepared)) in unit.iter().enumerate() {
            match self.resolve_one(placed, prepared) {
                Ok(outcome) => resolved.push((*place, outcome)),
                Err(Refusal::Fault(fault)) => return Err(fault),
                Err(Refusal::Rejected(reason)) => {
                    if let Some((local, positions)) = before {
                        (self.local, self.positions) = (local, positions);
                    }
                    return Ok(reject_unit(unit, member, reason));
                }
            }
        }
        Ok(resolved)
    }

    fn resolve_one(&mut self, placed: &Placed, prepared: &Prepared) -> Result<Resolved, Refusal> {
        self.judge_times(prepared)?;
        match &prepared.body().intent {
            Intent::Movements(movements) => {
                let places = self.judge_inputs(prepared)?;
                let consumed = movements.inputs.iter().zip(&prepared.effects.consumed).zip(places);
                let consumed = consumed
                    .map(|((input, (id, origin)), place)| LiveOutput {
                        id: *id,
                        origin: *origin,
                        place,
                        contract: input.contract,
                    })
                    .collect();
                let created = prepared.effects.created.clone();
                Ok(self.commit(placed, prepared, Vec::new(), consumed, created))
            }
            Intent::Command(command) => {
                let chosen = command::choose(self, command)?;
                let created = command::outputs(&prepared.id(), command, &chosen)?;
                let names = chosen.iter().map(|output| output.id).collect();
                Ok(self.commit(placed, prepared, names, chosen, created))
            }
        }
    }

    fn judge_times(&self, prepared: &Prepared) -> Result<(), Rejection> {
        let log_time = self.context.log_time;
        let valid_until = prepared.body().valid_until;
        if log_time >= valid_until {
            return Err(Rejection::Expired { log_time });
        }
        let latest = log_time.plus_millis(self.context.limits.validity_ms_max);
        if valid_until > latest {
            return Err(Rejection::ValidityTooLong { latest });
        }
        if !prepared.head_is_known {
            let size = prepared.body().seen_head.map(|seen| seen.size).unwrap_or_default();
            return Err(Rejection::HeadUnknown { size });
        }
        if let Some((input, expires_at)) = prepared.effects.expirations.iter().find(|(_, time)| log_time < *time) {
            return Err(Rejection::NotYetExpired { input: *input, expires_at: *expires_at });
        }
        if let Some((input, expires_at)) = prepared.effects.settlements.iter().find(|(_, time)| log_time >= *time) {
            return Err(Rejection::AllocationExpired { input: *input, expires_at: *expires_at });
        }
        Ok(())
    }

    /// The places of the consumed outputs, all of them and the referenced ones being live here.
    fn judge_inputs(&self, prepared: &Prepared) -> Result<Vec<Place>, Refusal> {
        let mut places = Vec::with_capacity(prepared.effects.consumed.len());
        for (position, (named, before)) in prepared.effects.consumed.iter().zip(&prepared.consumed_live).enumerate() {
            let input = crate::effects::small_index(position);
            let (output, _) = *named;
            match self.state_of(named, *before)? {
                State::Live(place) => places.push(place),
                State::Unknown => return Err(Rejection::InputUnknown { input, output }.into()),
                State::SpentBy(winner) => return Err(Rejection::InputSpent { input, output, winner }.into()),
            }
        }
        for (position, (named, before)) in prepared.effects.referenced.iter().zip(&prepared.referenced_live).enumerate()
        {
            let reference = crate::effects::small_index(position);
            let (output, _) = *named;
            match self.state_of(named, *before)? {
                State::Live(_) => {}
                State::Unknown => return Err(Rejection::ReferenceUnknown { reference, output }.into()),
                State::SpentBy(winner) => {
                    return Err(Rejection::ReferenceSpent { reference, output, winner }.into());
                }
            }
        }
        Ok(places)
    }

    fn state_of(&self, (id, origin): &(OutputId, Origin), before: Option<Place>) -> Result<State, ViewFault> {
        match (self.local.get(id), before) {
            (Some(Local::Live(place)), _) => Ok(State::Live(*place)),
            (Some(Local::SpentBy(winner)), _) => Ok(State::SpentBy(*winner)),
            (None, Some(place)) => Ok(State::Live(place)),
            (None, None) => match self.view.spender(id, origin)? {
                Some(winner) => Ok(State::SpentBy(winner)),
                None => Ok(State::Unknown),
            },
        }
    }

    fn commit(
        &mut self,
        placed: &Placed,
        prepared: &Prepared,
        chosen: Vec<OutputId>,
        consumed: Vec<LiveOutput>,
        created: Vec<(OutputId, Contract)>,
    ) -> Resolved {
        let transaction = prepared.id();
        for output in &consumed {
            self.local.insert(output.id, Local::SpentBy(transaction));
            self.forget_position(output);
        }
        for (position, (id, contract)) in created.iter().enumerate() {
            let output = live_output(placed, &transaction, position, *id, *contract);
            self.local.insert(*id, Local::Live(output.place));
            self.note_position(output);
        }
        Resolved { outcome: Outcome::Committed { chosen }, consumed, created }
    }

    fn note_position(&mut self, output: LiveOutput) {
        let Contract::Position(held) = output.contract else { return };
        if held.quantity.is_positive() {
            self.positions.entry((held.owner, held.asset)).or_default().insert(output.id, output);
        }
    }

    fn forget_position(&mut self, output: &LiveOutput) {
        let Contract::Position(held) = output.contract else { return };
        if let Some(positions) = self.positions.get_mut(&(held.owner, held.asset)) {
            positions.remove(&output.id);
        }
    }
}

/// An output where a transaction stands.
enum State {
    Live(Place),
    SpentBy(TransactionId),
    Unknown,
}

fn reject_unit(unit: &[(usize, &Placed, &Prepared)], culprit: usize, reason: Rejection) -> Vec<(usize, Resolved)> {
    let code = reason.code();
    let because = Rejection::GroupMemberRejected { member: crate::effects::small_index(culprit), code };
    let rejected = |(member, (place, ..)): (usize, &(usize, &Placed, &Prepared))| {
        let rejection = if member == culprit { reason.clone() } else { because.clone() };
        let outcome = Outcome::Rejected(rejection);
        (*place, Resolved { outcome, consumed: Vec::new(), created: Vec::new() })
    };
    unit.iter().enumerate().map(rejected).collect()
}
