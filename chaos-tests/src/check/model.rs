//! The ledger once more, naively: maps, one transaction after another. Slow, short, and independent of the ledger's
//! own apply, of which it shares only the definitions: what a transaction is, how things are named, the reasons.

use std::collections::{BTreeMap, BTreeSet};

use ledger::digest::UnspentDigest;
use ledger::merkle::{empty_root, node_hash};
use ledger::{
    AssetType, AtomicGroupId, Body, Command, Contract, Hash, Head, Input, Intent, Leg, Limits, LogTime, Movements,
    Origin, Outcome, OutcomeRecord, OutputId, Party, Position, Quantity, Rejection, Sequence, TransactionId, Unlock,
};
use storage::state::BatchRecord;

use crate::history::{Call, Operation};

/// The state after some batches.
#[derive(Debug, Default)]
pub struct Model {
    live: BTreeMap<OutputId, Contract>,
    spent: BTreeMap<OutputId, TransactionId>,
    records: BTreeMap<TransactionId, OutcomeRecord>,
    /// Log roots by size, where batches ended.
    roots: BTreeMap<Sequence, Hash>,
    /// Perfect subtrees of the log from left to right: (leaves, root).
    peaks: Vec<(u64, Hash)>,
    supply: BTreeMap<AssetType, i128>,
    head: Option<Head>,
}

/// What one transaction does if it commits.
#[derive(Debug, Default)]
struct Change {
    chosen: Vec<OutputId>,
    consumed: Vec<OutputId>,
    created: Vec<Contract>,
    supply: Vec<(AssetType, Quantity)>,
}

impl Model {
    /// An empty ledger.
    #[must_use]
    pub fn new() -> Self {
        Self { roots: BTreeMap::from([(Sequence::default(), empty_root())]), ..Self::default() }
    }

    /// How a transaction ended.
    #[must_use]
    pub fn record(&self, id: &TransactionId) -> Option<&OutcomeRecord> {
        self.records.get(id)
    }

    fn size(&self) -> Sequence {
        Sequence::new(self.peaks.iter().map(|(leaves, _)| leaves).sum())
    }

    /// Replays a batch and compares what it should have become with what it did.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn apply(&mut self, batch: &BatchRecord, limits: &Limits) -> Result<(), String> {
        let before = self.head;
        let log_time = batch.head.log_time;
        if before.is_some_and(|before| before.log_time > log_time || before.batch + 1 != batch.head.batch) {
            return Err(format!("the head {:?} does not follow {before:?}", batch.head));
        }
        let transactions = batch.transactions(limits).map_err(|fault| fault.to_string())?;
        let members: Vec<(&Body, &OutcomeRecord)> =
            transactions.iter().map(|received| &received.transaction().body).zip(&batch.records).collect();
        for unit in members.chunk_by(|left, right| left.0.atomic.is_some() && left.0.atomic == right.0.atomic) {
            self.apply_unit(unit, log_time, limits)?;
        }
        self.check_head(&batch.head)?;
        self.check_values()?;
        self.roots.insert(batch.head.size, batch.head.log_root);
        self.head = Some(batch.head);
        Ok(())
    }

    /// Invariants 1, 2, 7 and 9: a single transaction or a whole group.
    fn apply_unit(&mut self, unit: &[(&Body, &OutcomeRecord)], time: LogTime, limits: &Limits) -> Result<(), String> {
        let latest = time.plus_millis(limits.validity_ms_max);
        if let Some((body, _)) = unit.iter().find(|(body, _)| body.valid_until > latest) {
            return Err(format!("invariant 7: {} has a place, and may outlive what is known of it", body.id()));
        }
        let (live, spent, supply) = (self.live.clone(), self.spent.clone(), self.supply.clone());
        let mut expected = Vec::new();
        for (member, (body, record)) in unit.iter().enumerate() {
            if let Some(barred) = barred(unit, record) {
                expected.push(Outcome::Rejected(barred));
                continue;
            }
            match self.change(body, time, limits) {
                Ok(change) => {
                    expected.push(Outcome::Committed { chosen: change.chosen.clone() });
                    self.make(&body.id(), change);
                }
                Err(reason) => {
                    (self.live, self.spent, self.supply) = (live, spent, supply);
                    expected = rejections(unit.len(), member, reason);
                    break;
                }
            }
        }
        for ((body, record), outcome) in unit.iter().zip(expected) {
            let id = body.id();
            let expected = OutcomeRecord {
                sequence: self.size(),
                transaction: id,
                stamp: record.stamp.min(self.size()),
                log_time: time,
                outcome,
            };
            if **record != expected {
                return Err(format!("invariant 1, 2 or 9: {id} should have become {expected:?} and is {record:?}"));
            }
            if self.records.insert(id, expected).is_some() {
                return Err(format!("invariant 7: {id} has two outcomes"));
            }
            self.append(record.leaf());
        }
        Ok(())
    }

    fn change(&self, body: &Body, time: LogTime, limits: &Limits) -> Result<Change, Rejection> {
        if time >= body.valid_until {
            return Err(Rejection::Expired { log_time: time });
        }
        if let Some(seen) = body.seen_head.filter(|seen| self.roots.get(&seen.size) != Some(&seen.log_root)) {
            return Err(Rejection::HeadUnknown { size: seen.size });
        }
        match &body.intent {
            Intent::Movements(movements) => self.movements(movements, time),
            Intent::Command(command) => self.command(command, limits),
        }
    }

    fn movements(&self, movements: &Movements, time: LogTime) -> Result<Change, Rejection> {
        let expiry = |unlock: Unlock| {
            let inputs = (0_u16..).zip(&movements.inputs).filter(move |(_, input)| input.unlock == unlock);
            inputs.filter_map(|(index, input)| Some((index, expires_at(input)?)))
        };
        if let Some((input, expires_at)) = expiry(Unlock::Expire).find(|(_, expires_at)| time < *expires_at) {
            return Err(Rejection::NotYetExpired { input, expires_at });
        }
        if let Some((input, expires_at)) = expiry(Unlock::Settle).find(|(_, expires_at)| time >= *expires_at) {
            return Err(Rejection::AllocationExpired { input, expires_at });
        }
        for (input, output) in (0_u16..).zip(movements.inputs.iter().map(Input::output_id)) {
            match (self.live.contains_key(&output), self.spent.get(&output)) {
                (true, _) => {}
                (false, Some(winner)) => return Err(Rejection::InputSpent { input, output, winner: *winner }),
                (false, None) => return Err(Rejection::InputUnknown { input, output }),
            }
        }
        for (reference, named) in (0_u16..).zip(&movements.references) {
            let output = named.output_id();
            match (self.live.contains_key(&output), self.spent.get(&output)) {
                (true, _) => {}
                (false, Some(winner)) => return Err(Rejection::ReferenceSpent { reference, output, winner: *winner }),
                (false, None) => return Err(Rejection::ReferenceUnknown { reference, output }),
            }
        }
        Ok(Change {
            chosen: Vec::new(),
            consumed: movements.inputs.iter().map(Input::output_id).collect(),
            created: movements.outputs.clone(),
            supply: movements.supply.iter().map(|change| (change.asset, change.quantity)).collect(),
        })
    }

    /// A command takes its payers' positions in the order of their names, and gives them the change.
    fn command(&self, command: &Command, limits: &Limits) -> Result<Change, Rejection> {
        let legs = match command {
            Command::Transfer { asset, from, to, quantity } => {
                vec![Leg { payer: *from, receiver: *to, asset: *asset, quantity: *quantity }]
            }
            Command::Settle { terms } => terms.legs.clone(),
        };
        let mut owed: BTreeMap<(Party, AssetType), i128> = BTreeMap::new();
        for leg in &legs {
            *owed.entry((leg.payer, leg.asset)).or_default() += leg.quantity.minor_units();
        }
        let mut change = Change::default();
        let position = |owner, asset, quantity| Contract::Position(Position { asset, owner, quantity });
        change.created.extend(legs.iter().map(|leg| position(leg.receiver, leg.asset, leg.quantity)));
        for ((party, asset), owed) in owed {
            let mut found = 0;
            for (id, quantity) in self.positions(&party, &asset) {
                if found >= owed {
                    break;
                }
                if change.chosen.len() >= limits.command_inputs_max {
                    return Err(Rejection::TooFragmented { party, asset });
                }
                found += quantity;
                change.chosen.push(id);
            }
            if found < owed {
                return Err(Rejection::InsufficientFunds { party, asset, available: Quantity::new(found) });
            }
            if found > owed {
                change.created.push(position(party, asset, Quantity::new(found - owed)));
            }
        }
        change.consumed.clone_from(&change.chosen);
        Ok(change)
    }

    fn positions(&self, owner: &Party, asset: &AssetType) -> impl Iterator<Item = (OutputId, i128)> {
        self.live.iter().filter_map(move |(id, contract)| match contract {
            Contract::Position(held) if held.owner == *owner && held.asset == *asset => {
                Some((*id, held.quantity.minor_units())).filter(|(_, quantity)| *quantity > 0)
            }
            Contract::Position(_) | Contract::Grant(_) | Contract::Allocation(_) => None,
        })
    }

    fn make(&mut self, id: &TransactionId, change: Change) {
        for output in change.consumed {
            self.live.remove(&output);
            self.spent.insert(output, *id);
        }
        for (index, contract) in (0_u16..).zip(change.created) {
            self.live.insert(Origin { transaction: *id, index }.output_id(&contract), contract);
        }
        for (asset, quantity) in change.supply {
            *self.supply.entry(asset).or_default() += quantity.minor_units();
        }
    }

    /// Adds a leaf to the log; two neighbouring subtrees of one size become one.
    fn append(&mut self, leaf: Hash) {
        self.peaks.push((1, leaf));
        while let [.., (left, left_root), (right, right_root)] = self.peaks.as_slice()
            && left == right
        {
            let joined = (left + right, node_hash(left_root, right_root));
            self.peaks.truncate(self.peaks.len() - 2);
            self.peaks.push(joined);
        }
    }

    fn check_head(&self, head: &Head) -> Result<(), String> {
        let roots = self.peaks.iter().rev().map(|(_, root)| *root);
        let root = roots.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root);
        if (head.size, head.log_root) != (self.size(), root) {
            return Err(format!(
                "the head names {} leaves under {}, not {} under {root}",
                head.size,
                head.log_root,
                self.size()
            ));
        }
        let mut unspent = UnspentDigest::default();
        self.live.keys().for_each(|id| unspent.insert(id));
        if head.unspent != unspent {
            return Err(format!("the head's digest of unspent outputs is {}, not {unspent}", head.unspent));
        }
        Ok(())
    }

    /// Invariants 3 and 4, where nobody has a grant: nothing is below zero, and there is what was issued.
    fn check_values(&self) -> Result<(), String> {
        let mut sums: BTreeMap<AssetType, i128> = BTreeMap::new();
        for (asset, quantity) in self.live.values().filter_map(Contract::value) {
            if !quantity.is_positive() {
                return Err(format!("invariant 4: somebody holds {quantity} of {asset}"));
            }
            *sums.entry(asset).or_default() += quantity.minor_units();
        }
        if sums == self.supply { Ok(()) } else { Err(format!("invariant 3: {sums:?} of {:?} are there", self.supply)) }
    }

    /// Reads that reflect this head (`None`: the empty ledger) must have found what is there now.
    #[must_use]
    pub fn check_reads(&self, head: Option<&Head>, operations: &[Operation]) -> Vec<String> {
        let mut faults = Vec::new();
        for operation in operations {
            let Call::Read { party, head: Some(found), outputs } = &operation.call else { continue };
            if found.batch != head.map_or(0, |head| head.batch) {
                continue;
            }
            let held = self.live.iter().filter(|(_, contract)| contract.holder() == *party).map(|(id, _)| *id);
            if head.is_some_and(|head| head != found) || held.collect::<BTreeSet<_>>() != *outputs {
                faults.push(format!("a read of {party:?} found {outputs:?} at {found:?}, which was never so"));
            }
        }
        faults
    }
}

fn expires_at(input: &Input) -> Option<LogTime> {
    match &input.contract {
        Contract::Allocation(locked) => Some(locked.expires_at),
        Contract::Position(_) | Contract::Grant(_) => None,
    }
}

/// What bars the members of a group that is not here whole: another had been sequenced before. Which one, only its
/// record says.
fn barred(unit: &[(&Body, &OutcomeRecord)], record: &OutcomeRecord) -> Option<Rejection> {
    let group = unit.first()?.0.atomic?;
    let ids: Vec<TransactionId> = unit.iter().map(|(body, _)| body.id()).collect();
    if AtomicGroupId::of(&ids) == group {
        return None;
    }
    match &record.outcome {
        Outcome::Rejected(reason @ Rejection::GroupMemberSequenced { .. }) => Some(reason.clone()),
        Outcome::Rejected(_) | Outcome::Committed { .. } => Some(Rejection::GroupMemberSequenced { member: u16::MAX }),
    }
}

fn rejections(members: usize, culprit: usize, reason: Rejection) -> Vec<Outcome> {
    let member = u16::try_from(culprit).unwrap_or(u16::MAX);
    let because = Rejection::GroupMemberRejected { member, code: reason.code() };
    let rejected = |index: usize| if index == culprit { reason.clone() } else { because.clone() };
    (0..members).map(rejected).map(Outcome::Rejected).collect()
}
