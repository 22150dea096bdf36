//! One pass over a chunk: the serial rule over the outputs that it names, compared claim by claim.

use std::collections::BTreeMap;
use std::ops::Range;

use ledger::digest::UnspentDigest;
use ledger::rejection::Rejection;
use ledger::{
    AtomicGroupId, Command, Contract, Intent, Limits, Movements, Origin, Outcome, OutputId, TransactionId, Unlock,
};

use crate::commands::{self, Held};
use crate::evidence::{Chunk, Entry, Fate, Touched, TouchedIndex};
use crate::rules::small;
use crate::state::{History, HoldingBefore, HoldingChanges, State, held};
use crate::verdict::{Counterexample, Finding, Invariant};

/// True for a transaction of the command lane.
pub(super) fn is_command(entry: &Entry) -> bool {
    matches!(entry.received.transaction().body.intent, Intent::Command(_))
}

/// True where the transaction names the output as an input, a reference, a choice or its own.
pub(super) fn names(entry: &Entry, output: &Touched) -> bool {
    if output.origin.transaction == entry.id() {
        return true;
    }
    match &entry.received.transaction().body.intent {
        Intent::Movements(movements) => {
            movements.inputs.iter().any(|input| input.origin == output.origin)
                || movements.references.iter().any(|reference| reference.origin == output.origin)
        }
        Intent::Command(_) => match &entry.outcome {
            Outcome::Committed { chosen } => chosen.contains(&output.id),
            Outcome::Rejected(_) => false,
        },
    }
}

/// Where the outputs that a transaction names stand in the list of touched ones: what it consumes, references and
/// creates. Of a command only where it is claimed committed.
#[derive(Debug, Clone, Default)]
struct Slots {
    all: Vec<usize>,
    inputs: usize,
    /// Inputs and references.
    named: usize,
}

impl Slots {
    fn inputs(&self) -> &[usize] {
        self.all.get(..self.inputs).unwrap_or_default()
    }

    fn references(&self) -> &[usize] {
        self.all.get(self.inputs..self.named).unwrap_or_default()
    }

    fn named(&self) -> &[usize] {
        self.all.get(..self.named).unwrap_or_default()
    }

    fn outputs(&self) -> &[usize] {
        self.all.get(self.named..).unwrap_or_default()
    }
}

/// How a member of a unit fared so far.
enum Member {
    Committed { chosen: Vec<OutputId> },
    Rejected(Rejection),
}

/// What undoes the tentative effects of a unit.
#[derive(Default)]
struct Undo {
    fates: Vec<(usize, Fate)>,
    holdings: Vec<HoldingBefore>,
}

/// The chunk with the states of its outputs as the pass has left them.
pub(super) struct Pass<'a> {
    chunk: &'a Chunk,
    state: &'a State,
    index: TouchedIndex<'a>,
    by_id: BTreeMap<OutputId, usize>,
    fates: Vec<Fate>,
    has_commands: bool,
    changes: HoldingChanges,
    /// Lists of the transaction before, to be filled again.
    spare: (Vec<usize>, Undo),
}

impl<'a> Pass<'a> {
    pub(super) fn over(chunk: &'a Chunk, state: &'a State) -> Result<Self, Finding> {
        let index = TouchedIndex::of(&chunk.touched).map_err(|position| {
            let counterexample = Counterexample::new(Invariant::Completeness, "an output is listed twice");
            Finding::from(match chunk.touched.get(position) {
                Some(output) => counterexample.about(output.id),
                None => counterexample,
            })
        })?;
        let has_commands = chunk.entries.iter().any(is_command);
        let ids = chunk.touched.iter().enumerate().map(|(position, output)| (output.id, position));
        Ok(Self {
            chunk,
            state,
            index,
            by_id: if has_commands { ids.collect() } else { BTreeMap::new() },
            fates: chunk.touched.iter().map(|output| output.before).collect(),
            has_commands,
            changes: HoldingChanges::default(),
            spare: (Vec::new(), Undo::default()),
        })
    }

    /// Runs the pass; the digest of the live outputs behind it.
    pub(super) fn run(mut self) -> Result<UnspentDigest, Finding> {
        for unit in self.chunk.units() {
            self.unit(unit)?;
        }
        self.leads_to_claimed_state()
    }

    fn entry(&self, place: usize) -> &'a Entry {
        self.chunk.entries.get(place).expect("units are ranges of the entries")
    }

    fn unit(&mut self, unit: Range<usize>) -> Result<(), Finding> {
        self.can_be_decided(&unit)?;
        let barred_by = self.barred_by(&unit)?;
        if unit.len() == 1 && barred_by.is_none() {
            return self.single(self.entry(unit.start));
        }
        let slots: Vec<Slots> =
            unit.clone().map(|place| self.slots(self.entry(place), Vec::new())).collect::<Result<_, _>>()?;
        let mut unlike = Vec::with_capacity(slots.len());
        let mut members: Vec<Member> = Vec::with_capacity(slots.len());
        let mut undo = Undo::default();
        for (place, slots) in unit.clone().zip(&slots) {
            let entry = self.entry(place);
            unlike.push(self.unlike(entry, slots));
            let failed = matches!(members.last(), Some(Member::Rejected(_)));
            if failed || barred_by.is_some() {
                continue;
            }
            match self.judge(entry, slots, &mut undo) {
                Ok(chosen) => members.push(Member::Committed { chosen }),
                Err(reason) => {
                    self.restore(std::mem::take(&mut undo));
                    members.push(Member::Rejected(reason));
                }
            }
        }
        let outcomes = outcomes(members, slots.len(), barred_by);
        for (place, outcome) in unit.clone().zip(&outcomes) {
            self.outcome_is(self.entry(place), outcome)?;
        }
        for (place, (slots, unlike)) in unit.zip(slots.iter().zip(unlike)) {
            self.observations_are(self.entry(place), slots, unlike)?;
        }
        Ok(())
    }

    /// A transaction that is no member of a group: where it fails nothing was done, so nothing is undone.
    fn single(&mut self, entry: &Entry) -> Result<(), Finding> {
        let (list, mut undo) = std::mem::take(&mut self.spare);
        let slots = self.slots(entry, list)?;
        let unlike = self.unlike(entry, &slots);
        let outcome = match self.judge(entry, &slots, &mut undo) {
            Ok(chosen) => Outcome::Committed { chosen },
            Err(reason) => Outcome::Rejected(reason),
        };
        self.outcome_is(entry, &outcome)?;
        self.observations_are(entry, &slots, unlike)?;
        undo.fates.clear();
        undo.holdings.clear();
        self.spare = (slots.all, undo);
        Ok(())
    }

    /// What a command of a group that failed would have consumed is not in the chunk; only a state shows it.
    fn can_be_decided(&self, unit: &Range<usize>) -> Result<(), Finding> {
        let undone = |entry: &Entry| is_command(entry) && !entry.outcome.is_committed();
        let mut members = unit.clone().map(|place| self.entry(place));
        if self.state.history() == History::Claimed && unit.len() > 1 && members.any(undone) {
            let words = "a group with commands failed: what they found needs the state before".to_owned();
            return Err(Finding::Inconclusive(words));
        }
        Ok(())
    }

    /// Whether a unit is a whole group, or the rest of one of which some members had been sequenced before: then the
    /// index of the first of those.
    fn barred_by(&self, unit: &Range<usize>) -> Result<Option<u16>, Finding> {
        let first = self.entry(unit.start);
        let Some(group) = first.received.transaction().body.atomic else { return Ok(None) };
        let here: Vec<TransactionId> = unit.clone().map(|place| self.entry(place).id()).collect();
        let wrong =
            |words: String| {
                let counterexample = Counterexample::new(Invariant::Group, words);
                let named = unit.clone().map(|place| self.entry(place));
                Finding::from(named.fold(counterexample, |counterexample, entry| {
                    counterexample.naming(entry.id(), Some(entry.sequence))
                }))
            };
        if AtomicGroupId::of(&here) == group {
            return if here.len() <= Limits::V1.group_members_max {
                Ok(None)
            } else {
                Err(wrong(format!("a group of {} members", here.len())))
            };
        }
        let Some(all) = self.chunk.barred.iter().find(|all| AtomicGroupId::of(all) == group) else {
            return Err(wrong(format!("only {} members of group {group} are here", here.len())));
        };
        let missing: Vec<&TransactionId> = all.iter().filter(|member| !here.contains(member)).collect();
        let rest = all.iter().filter(|member| here.contains(member));
        if !rest.eq(&here) {
            return Err(wrong(format!("the members of group {group} are not in its order")));
        }
        for member in missing {
            let earlier = self.chunk.entries.get(..unit.start).unwrap_or_default();
            let sequenced =
                self.state.sequence_of(member).is_some() || earlier.iter().any(|entry| entry.id() == *member);
            match self.state.history() {
                History::Whole if !sequenced => {
                    return Err(wrong(format!("member {member} of group {group} is missing and has no place")));
                }
                History::SinceSnapshot if !sequenced => {
                    let words = format!("whether {member} had a place before the snapshot is not known");
                    return Err(Finding::Inconclusive(words));
                }
                History::Whole | History::SinceSnapshot | History::Claimed => {}
            }
        }
        Ok(all.iter().position(|member| !here.contains(member)).map(small))
    }

    fn slots(&self, entry: &Entry, mut all: Vec<usize>) -> Result<Slots, Finding> {
        let missing = |origin: &Origin| {
            let words = format!("output {} of {} is named and not listed", origin.index, origin.transaction);
            let counterexample = Counterexample::new(Invariant::Completeness, words);
            Finding::from(counterexample.naming(entry.id(), Some(entry.sequence)))
        };
        let find =
            |origin: &Origin, contract: &Contract| self.index.find(origin, contract).ok_or_else(|| missing(origin));
        match &entry.received.transaction().body.intent {
            Intent::Movements(movements) => {
                let Movements { inputs, references, outputs, .. } = movements;
                let named = inputs.len().saturating_add(references.len());
                all.clear();
                all.reserve(named.saturating_add(outputs.len()));
                for input in inputs {
                    all.push(find(&input.origin, &input.contract)?);
                }
                for reference in references {
                    all.push(find(&reference.origin, &reference.contract)?);
                }
                for (origin, contract) in commands::originated(entry.id(), outputs) {
                    all.push(find(&origin, contract)?);
                }
                Ok(Slots { all, inputs: inputs.len(), named })
            }
            Intent::Command(command) => self.slots_of_command(entry, command, find),
        }
    }

    fn slots_of_command(
        &self,
        entry: &Entry,
        command: &Command,
        find: impl Fn(&Origin, &Contract) -> Result<usize, Finding>,
    ) -> Result<Slots, Finding> {
        let Outcome::Committed { chosen } = &entry.outcome else { return Ok(Slots::default()) };
        let wrong = |words: &str| {
            let counterexample = Counterexample::new(Invariant::Completeness, words);
            Finding::from(counterexample.naming(entry.id(), Some(entry.sequence)))
        };
        let listed = |id: &OutputId| self.by_id.get(id).copied();
        let inputs: Vec<usize> = chosen
            .iter()
            .map(|id| listed(id).ok_or_else(|| wrong("a chosen output is not listed").clone()))
            .collect::<Result<_, _>>()?;
        let positions = inputs.iter().filter_map(|slot| self.chunk.touched.get(*slot)).filter_map(held);
        let positions: Vec<_> = positions.map(|held| held.position).collect();
        let created = commands::creates(command, &positions);
        let created = created.ok_or_else(|| {
            let words = "what the command is said to have consumed does not cover it";
            let counterexample = Counterexample::new(Invariant::Conservation, words);
            Finding::from(counterexample.naming(entry.id(), Some(entry.sequence)))
        })?;
        let outputs = commands::originated(entry.id(), &created).map(|(origin, contract)| find(&origin, contract));
        let (consumed, mut all) = (inputs.len(), inputs);
        for output in outputs {
            all.push(output?);
        }
        Ok(Slots { all, inputs: consumed, named: consumed })
    }

    fn fate(&self, slot: usize) -> Fate {
        *self.fates.get(slot).expect("slots are places in the list")
    }

    /// The first claim of what the transaction saw that differs from what is there now.
    fn unlike(&self, entry: &Entry, slots: &Slots) -> Option<(usize, Fate)> {
        let claims = slots.named().iter().zip(&entry.observations).enumerate();
        let differs = |(position, (slot, claim)): (usize, (&usize, &Option<Fate>))| {
            let seen = self.fate(*slot);
            claim.is_some_and(|claim| claim != seen).then_some((position, seen))
        };
        claims.into_iter().find_map(differs)
    }

    /// The serial rule for one transaction: what it consumes and creates is done, or nothing is.
    fn judge(&mut self, entry: &Entry, slots: &Slots, undo: &mut Undo) -> Result<Vec<OutputId>, Rejection> {
        self.judge_times(entry)?;
        match &entry.received.transaction().body.intent {
            Intent::Movements(movements) => {
                self.judge_expiries(movements)?;
                self.judge_inputs(slots)?;
                self.happen(entry, slots, undo);
                Ok(Vec::new())
            }
            Intent::Command(command) => self.judge_command(entry, command, slots, undo),
        }
    }

    fn judge_times(&self, entry: &Entry) -> Result<(), Rejection> {
        let (log_time, body) = (self.chunk.log_time, &entry.received.transaction().body);
        if body.valid_until <= log_time {
            return Err(Rejection::Expired { log_time });
        }
        match body.seen_head {
            Some(seen) if entry.observed_root != Some(seen.log_root) => Err(Rejection::HeadUnknown { size: seen.size }),
            Some(_) | None => Ok(()),
        }
    }

    /// Whatever returns too early is told before whatever settles too late.
    fn judge_expiries(&self, movements: &Movements) -> Result<(), Rejection> {
        let log_time = self.chunk.log_time;
        let mut too_late = None;
        for (position, input) in movements.inputs.iter().enumerate() {
            let Contract::Allocation(locked) = &input.contract else { continue };
            let (input, expires_at) = (small(position), locked.expires_at);
            match movements.inputs.get(position).map(|input| input.unlock) {
                Some(Unlock::Expire) if expires_at > log_time => {
                    return Err(Rejection::NotYetExpired { input, expires_at });
                }
                Some(Unlock::Settle) if expires_at <= log_time && too_late.is_none() => {
                    too_late = Some(Rejection::AllocationExpired { input, expires_at });
                }
                Some(_) | None => {}
            }
        }
        too_late.map_or(Ok(()), Err)
    }

    fn judge_inputs(&self, slots: &Slots) -> Result<(), Rejection> {
        for (position, slot) in slots.inputs().iter().enumerate() {
            let (input, output) = (small(position), self.id(*slot));
            match self.fate(*slot) {
                Fate::Live { .. } => {}
                Fate::Absent => return Err(Rejection::InputUnknown { input, output }),
                Fate::Spent { by: winner } => return Err(Rejection::InputSpent { input, output, winner }),
            }
        }
        for (position, slot) in slots.references().iter().enumerate() {
            let (reference, output) = (small(position), self.id(*slot));
            match self.fate(*slot) {
                Fate::Live { .. } => {}
                Fate::Absent => return Err(Rejection::ReferenceUnknown { reference, output }),
                Fate::Spent { by: winner } => return Err(Rejection::ReferenceSpent { reference, output, winner }),
            }
        }
        Ok(())
    }

    fn judge_command(
        &mut self,
        entry: &Entry,
        command: &Command,
        slots: &Slots,
        undo: &mut Undo,
    ) -> Result<Vec<OutputId>, Rejection> {
        if let (History::Claimed, Outcome::Rejected(reason)) = (self.state.history(), &entry.outcome)
            && matches!(reason, Rejection::InsufficientFunds { .. } | Rejection::TooFragmented { .. })
        {
            // what the payer did not have is part of the hypothesis: the chunk lists only what it touches
            return Err(reason.clone());
        }
        let base = self.state.collected_holdings();
        let chosen = commands::choose(command, &Limits::V1, |owner, after| self.changes.next(base, owner, after))?;
        let ids: Vec<OutputId> = chosen.iter().map(|held| held.id).collect();
        let claimed = matches!(&entry.outcome, Outcome::Committed { chosen } if *chosen == ids);
        if claimed {
            self.happen(entry, slots, undo);
        } else {
            self.happen_unlisted(entry, command, &chosen, undo);
        }
        Ok(ids)
    }

    /// A command's effects where they are not claimed: as a member of a group that fails later, it has them for a
    /// while, and others of the group may meet them.
    fn happen_unlisted(&mut self, entry: &Entry, command: &Command, chosen: &[Held], undo: &mut Undo) {
        for held in chosen {
            match self.by_id.get(&held.id).copied() {
                Some(slot) => self.set(slot, Fate::Spent { by: entry.id() }, undo),
                None => undo.holdings.push(self.changes.set(*held, false)),
            }
        }
        let consumed: Vec<_> = chosen.iter().map(|held| held.position).collect();
        let created = commands::creates(command, &consumed).unwrap_or_default();
        for (origin, contract) in commands::originated(entry.id(), &created) {
            match self.index.find(&origin, contract) {
                Some(slot) => self.set(slot, Fate::Live { created_at: entry.sequence }, undo),
                None => {
                    let created = crate::state::held_in(origin.output_id(contract), origin, contract);
                    undo.holdings.extend(created.map(|held| self.changes.set(held, true)));
                }
            }
        }
    }

    fn happen(&mut self, entry: &Entry, slots: &Slots, undo: &mut Undo) {
        for slot in slots.inputs() {
            self.set(*slot, Fate::Spent { by: entry.id() }, undo);
        }
        for slot in slots.outputs() {
            self.set(*slot, Fate::Live { created_at: entry.sequence }, undo);
        }
    }

    fn set(&mut self, slot: usize, fate: Fate, undo: &mut Undo) {
        let Some(place) = self.fates.get_mut(slot) else { return };
        undo.fates.push((slot, std::mem::replace(place, fate)));
        if let Some(held) = self.chunk.touched.get(slot).filter(|_| self.has_commands).and_then(held) {
            undo.holdings.push(self.changes.set(held, fate.is_live()));
        }
    }

    fn restore(&mut self, undo: Undo) {
        for (slot, fate) in undo.fates.into_iter().rev() {
            if let Some(place) = self.fates.get_mut(slot) {
                *place = fate;
            }
        }
        undo.holdings.into_iter().rev().for_each(|before| self.changes.undo(before));
    }

    fn id(&self, slot: usize) -> OutputId {
        self.chunk.touched.get(slot).expect("slots are places in the list").id
    }

    fn outcome_is(&self, entry: &Entry, outcome: &Outcome) -> Result<(), Finding> {
        if entry.outcome == *outcome {
            return Ok(());
        }
        let invariant = match (&entry.outcome, outcome) {
            (Outcome::Rejected(claimed), Outcome::Rejected(is))
                if in_group(claimed) != in_group(is) || was_barred(claimed) != was_barred(is) =>
            {
                Invariant::Group
            }
            _ => Invariant::Outcome,
        };
        let words = format!("claimed {}; executed one after another it is {}", told(&entry.outcome), told(outcome));
        let mut counterexample = Counterexample::new(invariant, words).naming(entry.id(), Some(entry.sequence));
        for (winner, input, output) in [outcome, &entry.outcome].into_iter().flat_map(concerned) {
            if let Some(winner) = winner {
                counterexample = counterexample.naming(winner, self.place_of(&winner));
            }
            counterexample.input = counterexample.input.or(input);
            counterexample.output = counterexample.output.or(output);
        }
        // who created what was said to be unknown, or was never to be created
        let creator = counterexample.output.and_then(|id| self.chunk.touched.iter().find(|output| output.id == id));
        if let Some(creator) = creator.map(|output| output.origin.transaction) {
            counterexample = counterexample.naming(creator, self.place_of(&creator));
        }
        let concerned = self.chunk.touched.iter().find(|output| Some(output.id) == counterexample.output);
        Err(match concerned {
            Some(output) => super::naming_first(counterexample, self.chunk, output).into(),
            None => counterexample.into(),
        })
    }

    fn place_of(&self, transaction: &TransactionId) -> Option<ledger::Sequence> {
        let here = self.chunk.entries.iter().find(|entry| entry.id() == *transaction);
        here.map(|entry| entry.sequence).or_else(|| self.state.sequence_of(transaction))
    }

    fn observations_are(&self, entry: &Entry, slots: &Slots, unlike: Option<(usize, Fate)>) -> Result<(), Finding> {
        let wrong =
            |words: String| Counterexample::new(Invariant::Observation, words).naming(entry.id(), Some(entry.sequence));
        let (told, named) = (entry.observations.len(), slots.named());
        if told != named.len() {
            return Err(wrong(format!("{told} observations of {} named outputs", named.len())).into());
        }
        let Some((position, seen)) = unlike else { return Ok(()) };
        let claimed = entry.observations.get(position).copied().flatten();
        let words = format!("said to have seen {claimed:?} where {seen:?} was");
        let counterexample = wrong(words).at_input(small(position));
        Err(match named.get(position) {
            Some(slot) => counterexample.about(self.id(*slot)).into(),
            None => counterexample.into(),
        })
    }

    fn leads_to_claimed_state(&self) -> Result<UnspentDigest, Finding> {
        let mut unspent = self.chunk.before.unspent;
        for (output, fate) in self.chunk.touched.iter().zip(&self.fates) {
            if output.after != *fate {
                let words = format!("after the chunk the output is claimed {:?}, and is {fate:?}", output.after);
                let counterexample = Counterexample::new(Invariant::PostState, words).about(output.id);
                return Err(super::naming_first(counterexample, self.chunk, output).into());
            }
            match (output.before.is_live(), fate.is_live()) {
                (true, false) => unspent.remove(&output.id),
                (false, true) => unspent.insert(&output.id),
                (true, true) | (false, false) => {}
            }
        }
        Ok(unspent)
    }
}

/// The outcomes of a unit from how its members fared: all committed, or none.
fn outcomes(members: Vec<Member>, count: usize, barred_by: Option<u16>) -> Vec<Outcome> {
    if let Some(member) = barred_by {
        return vec![Outcome::Rejected(Rejection::GroupMemberSequenced { member }); count];
    }
    let culprit = members.len().saturating_sub(1);
    match members.last() {
        Some(Member::Rejected(reason)) => {
            let others = Rejection::GroupMemberRejected { member: small(culprit), code: reason.code() };
            let outcome = |place: usize| if place == culprit { reason.clone() } else { others.clone() };
            (0..count).map(|place| Outcome::Rejected(outcome(place))).collect()
        }
        Some(Member::Committed { .. }) | None => members
            .into_iter()
            .filter_map(|member| match member {
                Member::Committed { chosen } => Some(Outcome::Committed { chosen }),
                Member::Rejected(_) => None,
            })
            .collect(),
    }
}

const fn in_group(reason: &Rejection) -> bool {
    matches!(reason, Rejection::GroupMemberRejected { .. } | Rejection::GroupMemberSequenced { .. })
}

const fn was_barred(reason: &Rejection) -> bool {
    matches!(reason, Rejection::GroupMemberSequenced { .. })
}

fn told(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Committed { chosen } if chosen.is_empty() => "committed".to_owned(),
        Outcome::Committed { chosen } => format!("committed with {} chosen positions", chosen.len()),
        Outcome::Rejected(reason) => format!("rejected ({reason})"),
    }
}

/// The winner, input and output that an outcome's evidence names.
fn concerned(outcome: &Outcome) -> Option<(Option<TransactionId>, Option<u16>, Option<OutputId>)> {
    match outcome {
        Outcome::Rejected(Rejection::InputSpent { input, output, winner }) => {
            Some((Some(*winner), Some(*input), Some(*output)))
        }
        Outcome::Rejected(Rejection::InputUnknown { input, output }) => Some((None, Some(*input), Some(*output))),
        Outcome::Rejected(Rejection::ReferenceSpent { output, winner, .. }) => {
            Some((Some(*winner), None, Some(*output)))
        }
        Outcome::Rejected(Rejection::ReferenceUnknown { output, .. }) => Some((None, None, Some(*output))),
        Outcome::Rejected(Rejection::NotYetExpired { input, .. } | Rejection::AllocationExpired { input, .. }) => {
            Some((None, Some(*input), None))
        }
        Outcome::Rejected(_) | Outcome::Committed { .. } => None,
    }
}
