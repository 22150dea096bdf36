//! Inside one component, one unit after another: the serial rule that everything else is measured against.

mod command;
mod holdings;

pub(super) use command::outputs as command_outputs;

use flaws::{Flaw, is_planted};

use crate::contract::Contract;
use crate::effects::small_index;
use crate::id_map::IdMap;
use crate::identifier::{OutputId, TransactionId};
use crate::outcome::Outcome;
use crate::quantity::LogTime;
use crate::rejection::Rejection;
use crate::transaction::{Intent, Movements, Origin};
use crate::view::{LedgerView, LiveOutput, Place, ViewFault};

use super::prepare::Prepared;
use super::{BatchContext, Placed, Placement, Unit, live_output};

use holdings::Holdings;

/// What became of one transaction.
pub(super) struct Resolved {
    pub(super) outcome: Outcome,
    pub(super) consumed: Vec<LiveOutput>,
    pub(super) created: Vec<LiveOutput>,
}

impl Resolved {
    fn rejected(reason: Rejection) -> Self {
        Self { outcome: Outcome::Rejected(reason), consumed: Vec::new(), created: Vec::new() }
    }
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
    let holdings = placed.has_commands.then(Holdings::default);
    let prepared = |unit: &usize| {
        let places = placed.units.get(*unit).map(|unit| unit.places.clone()).unwrap_or_default();
        let transactions = placed.transactions.get(places).unwrap_or_default();
        transactions.iter().filter_map(|placed| members.get(placed.member)?.as_ref())
    };
    let changed = units.iter().flat_map(prepared).map(|prepared| prepared.effects.changed_count()).sum();
    let mut resolver = Resolver { view, context, local: placed.hashing.map(changed), holdings };
    let mut resolved = Vec::with_capacity(units.len());
    for unit in units {
        let Some(Unit { places, barred_by }) = placed.units.get(*unit) else { continue };
        let unit: Vec<(usize, &Placed, &Prepared)> = places
            .clone()
            .filter_map(|place| {
                let placed = placed.transactions.get(place)?;
                Some((place, placed, members.get(placed.member)?.as_ref()?))
            })
            .collect();
        match barred_by {
            Some(member) => resolved.extend(bar_unit(&unit, *member)),
            None => resolved.extend(resolver.resolve_unit(&unit)?),
        }
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
    local: IdMap<OutputId, Local>,
    /// Kept only where the batch has commands: nothing else looks for positions.
    holdings: Option<Holdings>,
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
        let mut resolved = Vec::with_capacity(unit.len());
        for (member, (place, placed, prepared)) in unit.iter().enumerate() {
            match self.resolve_one(placed, prepared) {
                Ok(outcome) => resolved.push((*place, outcome)),
                Err(Refusal::Fault(fault)) => return Err(fault),
                Err(Refusal::Rejected(reason)) if is_planted(Flaw::HalfAGroup) => {
                    resolved.extend(reject_unit(unit, member, reason).into_iter().skip(member));
                    return Ok(resolved);
                }
                Err(Refusal::Rejected(reason)) => {
                    for (_, done) in resolved.iter().rev() {
                        self.discard(&done.created);
                        self.restore(&done.consumed);
                    }
                    return Ok(reject_unit(unit, member, reason));
                }
            }
        }
        Ok(resolved)
    }

    fn resolve_one(&mut self, placed: &Placed, prepared: &Prepared) -> Result<Resolved, Refusal> {
        self.judge_times(prepared)?;
        let transaction = prepared.id();
        let live = |created: &[(OutputId, Contract)]| -> Vec<LiveOutput> {
            let named = created.iter().enumerate();
            named
                .map(|(position, (id, contract))| live_output(placed, &transaction, position, *id, *contract))
                .collect()
        };
        let (chosen, consumed, created) = match &prepared.body().intent {
            Intent::Movements(movements) => {
                let consumed = self.consume_inputs(movements, prepared)?;
                (Vec::new(), consumed, live(&prepared.effects.created))
            }
            Intent::Command(command) => {
                let inputs_max = self.context.limits.command_inputs_max;
                let holdings = self.holdings.get_or_insert_default();
                let consumed = command::choose(self.view, holdings, command, inputs_max)?;
                let created = command::outputs(&transaction, command, &consumed)?;
                for output in &consumed {
                    self.consume(output, transaction);
                }
                (consumed.iter().map(|output| output.id).collect(), consumed, live(&created))
            }
        };
        for output in &created {
            self.set_live(output);
        }
        Ok(Resolved { outcome: Outcome::Committed { chosen }, consumed, created })
    }

    fn judge_times(&self, prepared: &Prepared) -> Result<(), Rejection> {
        let mut log_time = self.context.log_time;
        if is_planted(Flaw::ExpiryByLocalClock) {
            log_time = LogTime::from_unix_millis(flaws::local_clock(log_time.unix_millis()));
        }
        let valid_until = prepared.body().valid_until;
        if log_time >= valid_until {
            return Err(Rejection::Expired { log_time });
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

    /// Consumes the inputs one after another, so that naming an output twice fails as any second spending does.
    /// Where one fails, nothing was consumed.
    fn consume_inputs(&mut self, movements: &Movements, prepared: &Prepared) -> Result<Vec<LiveOutput>, Refusal> {
        let mut consumed = Vec::with_capacity(prepared.effects.consumed.len());
        let judged =
            self.try_consume_inputs(movements, prepared, &mut consumed).and_then(|()| self.judge_references(prepared));
        match judged {
            Ok(()) => Ok(consumed),
            Err(refusal) => {
                self.restore(&consumed);
                Err(refusal)
            }
        }
    }

    fn try_consume_inputs(
        &mut self,
        movements: &Movements,
        prepared: &Prepared,
        consumed: &mut Vec<LiveOutput>,
    ) -> Result<(), Refusal> {
        let named = prepared.effects.consumed.iter().zip(&prepared.consumed_live);
        for (position, (input, (named, before))) in movements.inputs.iter().zip(named).enumerate() {
            let index = small_index(position);
            let (output, origin) = *named;
            match self.state_of(named, *before)? {
                State::Live(place) => {
                    let output = LiveOutput { id: output, origin, place, contract: input.contract };
                    let stays = is_planted(Flaw::AllocationStays) && matches!(input.contract, Contract::Allocation(_));
                    if !stays {
                        self.consume(&output, prepared.id());
                        consumed.push(output);
                    }
                }
                State::Unknown => return Err(Rejection::InputUnknown { input: index, output }.into()),
                State::SpentBy(winner) => return Err(Rejection::InputSpent { input: index, output, winner }.into()),
            }
        }
        Ok(())
    }

    fn judge_references(&self, prepared: &Prepared) -> Result<(), Refusal> {
        let named = prepared.effects.referenced.iter().zip(&prepared.referenced_live);
        for (position, (named, before)) in named.enumerate() {
            let reference = small_index(position);
            let (output, _) = *named;
            match self.state_of(named, *before)? {
                State::Live(_) => {}
                State::Unknown => return Err(Rejection::ReferenceUnknown { reference, output }.into()),
                State::SpentBy(winner) => return Err(Rejection::ReferenceSpent { reference, output, winner }.into()),
            }
        }
        Ok(())
    }

    fn state_of(&self, (id, origin): &(OutputId, Origin), before: Option<Place>) -> Result<State, ViewFault> {
        let local = self.local.get(id).filter(|_| before.is_none() || !is_planted(Flaw::StaleInputs));
        match (local, before) {
            (Some(Local::Live(place)), _) => Ok(State::Live(*place)),
            (Some(Local::SpentBy(winner)), _) => Ok(State::SpentBy(*winner)),
            (None, Some(place)) => Ok(State::Live(place)),
            (None, None) => match self.view.spender(id, origin)? {
                Some(winner) => Ok(State::SpentBy(winner)),
                None => Ok(State::Unknown),
            },
        }
    }

    fn consume(&mut self, output: &LiveOutput, spender: TransactionId) {
        self.local.insert(output.id, Local::SpentBy(spender));
        if let Some(holdings) = &mut self.holdings {
            holdings.remove(output);
        }
    }

    fn set_live(&mut self, output: &LiveOutput) {
        self.local.insert(output.id, Local::Live(output.place));
        if let Some(holdings) = &mut self.holdings {
            holdings.add(*output);
        }
    }

    /// Undoes the consumption of outputs, wherever they were live before: in the state or in this component.
    fn restore(&mut self, consumed: &[LiveOutput]) {
        for output in consumed {
            self.set_live(output);
        }
    }

    /// Undoes the creation of outputs.
    fn discard(&mut self, created: &[LiveOutput]) {
        for output in created {
            self.local.remove(&output.id);
            if let Some(holdings) = &mut self.holdings {
                holdings.remove(output);
            }
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
    let because = Rejection::GroupMemberRejected { member: small_index(culprit), code };
    let rejected = |(member, (place, ..)): (usize, &(usize, &Placed, &Prepared))| {
        (*place, Resolved::rejected(if member == culprit { reason.clone() } else { because.clone() }))
    };
    unit.iter().enumerate().map(rejected).collect()
}

fn bar_unit(unit: &[(usize, &Placed, &Prepared)], sequenced_before: usize) -> Vec<(usize, Resolved)> {
    let reason = Rejection::GroupMemberSequenced { member: small_index(sequenced_before) };
    unit.iter().map(|(place, ..)| (*place, Resolved::rejected(reason.clone()))).collect()
}
