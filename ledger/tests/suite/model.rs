//! The order-bound rules once more, written apart from the code under test: one transaction at a time, plain maps, a
//! copy of everything where something may have to be undone. Slow and obvious.

use std::collections::BTreeMap;

use ledger::{
    AssetType, Command, Contract, Hash, Input, Intent, Leg, Limits, LogTime, Movements, Origin, Outcome, OutcomeRecord,
    OutputId, Party, Position, Quantity, Rejection, Sequence, Transaction, TransactionId, Unlock,
};

use crate::support::Submitted;

/// A live output as the model knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Known {
    pub(crate) origin: Origin,
    pub(crate) contract: Contract,
    pub(crate) created_at: Sequence,
}

/// The whole ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) live: BTreeMap<OutputId, Known>,
    pub(crate) spent: BTreeMap<OutputId, TransactionId>,
    pub(crate) records: Vec<OutcomeRecord>,
    /// Log roots by size, told from outside: the model has no Merkle tree.
    pub(crate) roots: BTreeMap<u64, Hash>,
}

impl Model {
    /// Applies one batch; the answers, member by member, are `None` where a member's submission did not pass.
    pub(crate) fn batch(
        &mut self,
        log_time: LogTime,
        submissions: &[(Submitted, bool)],
    ) -> Vec<Option<(Sequence, Outcome)>> {
        let mut answers = Vec::new();
        for (submission, passed) in submissions {
            if *passed {
                self.submission(log_time, submission);
            }
            for member in &submission.members {
                let id = member.id();
                let record = self.records.iter().find(|record| record.transaction == id);
                answers.push(record.filter(|_| *passed).map(|record| (record.sequence, record.outcome.clone())));
            }
        }
        answers
    }

    fn submission(&mut self, log_time: LogTime, submission: &Submitted) {
        let mut fresh: Vec<&Transaction> = Vec::new();
        for member in &submission.members {
            let known = self.records.iter().any(|record| record.transaction == member.id());
            if !known {
                fresh.push(member);
            }
        }
        let latest = LogTime::from_unix_millis(log_time.unix_millis() + Limits::V1.validity_ms_max);
        if fresh.iter().any(|member| member.body.valid_until > latest) {
            return;
        }
        let known = |member: &Transaction| self.records.iter().any(|record| record.transaction == member.id());
        let barred_by = submission.members.iter().position(known);
        let before = (self.live.clone(), self.spent.clone());
        let unchanged = before.clone();
        let mut outcomes = Vec::new();
        for (place, member) in fresh.iter().enumerate() {
            let sequence = Sequence::new(u64::try_from(self.records.len() + place).unwrap());
            match self.transaction(log_time, sequence, member) {
                Ok(chosen) => outcomes.push(Outcome::Committed { chosen }),
                Err(reason) => {
                    (self.live, self.spent) = before;
                    let culprit = u16::try_from(place).unwrap();
                    let others = Rejection::GroupMemberRejected { member: culprit, code: reason.code() };
                    outcomes = vec![Outcome::Rejected(others); fresh.len()];
                    outcomes[place] = Outcome::Rejected(reason);
                    break;
                }
            }
        }
        if let Some(member) = barred_by {
            (self.live, self.spent) = unchanged;
            let barred = Rejection::GroupMemberSequenced { member: u16::try_from(member).unwrap() };
            outcomes = vec![Outcome::Rejected(barred); fresh.len()];
        }
        for (member, outcome) in fresh.iter().zip(outcomes) {
            let sequence = Sequence::new(u64::try_from(self.records.len()).unwrap());
            let record =
                OutcomeRecord { sequence, transaction: member.id(), stamp: submission.stamp, log_time, outcome };
            self.records.push(record);
        }
    }

    fn transaction(
        &mut self,
        log_time: LogTime,
        sequence: Sequence,
        transaction: &Transaction,
    ) -> Result<Vec<OutputId>, Rejection> {
        self.validity(log_time, transaction)?;
        let id = transaction.id();
        let (consumed, contracts) = match &transaction.body.intent {
            Intent::Movements(movements) => {
                expiries(log_time, movements)?;
                (self.inputs(&id, movements)?, movements.outputs.clone())
            }
            Intent::Command(command) => self.choose(command)?,
        };
        for output in &consumed {
            self.live.remove(output).expect("judged live");
            self.spent.insert(*output, id);
        }
        for (index, contract) in contracts.into_iter().enumerate() {
            let origin = Origin { transaction: id, index: u16::try_from(index).unwrap() };
            self.live.insert(origin.output_id(&contract), Known { origin, contract, created_at: sequence });
        }
        let is_command = matches!(transaction.body.intent, Intent::Command(_));
        Ok(if is_command { consumed } else { Vec::new() })
    }

    fn validity(&self, log_time: LogTime, transaction: &Transaction) -> Result<(), Rejection> {
        let body = &transaction.body;
        if body.valid_until <= log_time {
            return Err(Rejection::Expired { log_time });
        }
        match body.seen_head {
            Some(seen) if self.roots.get(&seen.size.get()) != Some(&seen.log_root) => {
                Err(Rejection::HeadUnknown { size: seen.size })
            }
            _ => Ok(()),
        }
    }

    fn inputs(&self, id: &TransactionId, movements: &Movements) -> Result<Vec<OutputId>, Rejection> {
        let mut consumed: Vec<OutputId> = Vec::new();
        for (position, input) in movements.inputs.iter().enumerate() {
            let (input, output) = (u16::try_from(position).unwrap(), input.origin.output_id(&input.contract));
            if consumed.contains(&output) {
                return Err(Rejection::InputSpent { input, output, winner: *id });
            }
            if let Some(winner) = self.spent.get(&output) {
                return Err(Rejection::InputSpent { input, output, winner: *winner });
            }
            if !self.live.contains_key(&output) {
                return Err(Rejection::InputUnknown { input, output });
            }
            consumed.push(output);
        }
        for (position, reference) in movements.references.iter().enumerate() {
            let reference_index = u16::try_from(position).unwrap();
            let output = reference.origin.output_id(&reference.contract);
            let winner = if consumed.contains(&output) { Some(id) } else { self.spent.get(&output) };
            if let Some(winner) = winner {
                return Err(Rejection::ReferenceSpent { reference: reference_index, output, winner: *winner });
            }
            if !self.live.contains_key(&output) {
                return Err(Rejection::ReferenceUnknown { reference: reference_index, output });
            }
        }
        Ok(consumed)
    }

    /// Smallest ids first, payer by payer and asset by asset.
    fn choose(&self, command: &Command) -> Result<(Vec<OutputId>, Vec<Contract>), Rejection> {
        let legs = match command {
            Command::Transfer { asset, from, to, quantity } => {
                vec![Leg { payer: *from, receiver: *to, asset: *asset, quantity: *quantity }]
            }
            Command::Settle { terms } => terms.legs.clone(),
        };
        let mut needs: BTreeMap<(Party, AssetType), i128> = BTreeMap::new();
        for leg in &legs {
            *needs.entry((leg.payer, leg.asset)).or_default() += leg.quantity.minor_units();
        }
        let held = |asset, owner, quantity| Contract::Position(Position { asset, owner, quantity });
        let mut contracts: Vec<Contract> = legs.iter().map(|leg| held(leg.asset, leg.receiver, leg.quantity)).collect();
        let mut chosen = Vec::new();
        for ((party, asset), needed) in needs {
            let mut found = 0_i128;
            for (id, quantity) in self.positions(party, asset) {
                if found >= needed {
                    break;
                }
                if chosen.len() == Limits::V1.command_inputs_max {
                    return Err(Rejection::TooFragmented { party, asset });
                }
                found += quantity;
                chosen.push(id);
            }
            if found < needed {
                return Err(Rejection::InsufficientFunds { party, asset, available: Quantity::new(found) });
            }
            if found > needed {
                contracts.push(held(asset, party, Quantity::new(found - needed)));
            }
        }
        Ok((chosen, contracts))
    }

    fn positions(&self, owner: Party, asset: AssetType) -> Vec<(OutputId, i128)> {
        let quantity_of = |known: &Known| match &known.contract {
            Contract::Position(held) if held.owner == owner && held.asset == asset => held.quantity.minor_units(),
            _ => 0,
        };
        self.live.iter().map(|(id, known)| (*id, quantity_of(known))).filter(|(_, quantity)| *quantity > 0).collect()
    }
}

/// All that return too early are told before any that settles too late.
fn expiries(log_time: LogTime, movements: &Movements) -> Result<(), Rejection> {
    let expiry = |input: &Input| match &input.contract {
        Contract::Allocation(locked) => locked.expires_at,
        _ => LogTime::ZERO,
    };
    let with = |unlock: Unlock| {
        let inputs = movements.inputs.iter().enumerate();
        inputs
            .filter(move |(_, input)| input.unlock == unlock)
            .map(|(position, input)| (u16::try_from(position).unwrap(), expiry(input)))
    };
    if let Some((input, expires_at)) = with(Unlock::Expire).find(|(_, expiry)| *expiry > log_time) {
        return Err(Rejection::NotYetExpired { input, expires_at });
    }
    if let Some((input, expires_at)) = with(Unlock::Settle).find(|(_, expiry)| *expiry <= log_time) {
        return Err(Rejection::AllocationExpired { input, expires_at });
    }
    Ok(())
}
