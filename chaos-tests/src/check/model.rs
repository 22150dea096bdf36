//! The ledger once more, naively: maps, one transaction after another. Short, and independent of the ledger's own apply,
//! of which it shares only the definitions: what a transaction is, how things are named, the reasons.

use std::collections::{BTreeMap, BTreeSet};

use ledger::digest::UnspentDigest;
use ledger::merkle::{empty_root, node_hash};
use ledger::signature::{Claim, transaction_message};
use ledger::{
    AssetType, AtomicGroupId, Body, Command, Contract, Hash, Head, Input, Intent, Leg, Limits, LogTime, Movements,
    Origin, Outcome, OutcomeRecord, OutputId, Party, Position, Quantity, Rejection, Sequence, Transaction,
    TransactionId, Unlock,
};

use super::{OrderedBatch, Property, Violation};

/// The state after some batches.
#[derive(Debug, Default)]
pub struct Model {
    live: BTreeMap<OutputId, Contract>,
    spent: BTreeMap<OutputId, TransactionId>,
    records: BTreeMap<TransactionId, OutcomeRecord>,
    /// The live outputs by holder.
    held: BTreeMap<Party, BTreeSet<OutputId>>,
    /// Log roots by size, where batches ended.
    roots: BTreeMap<Sequence, Hash>,
    /// Perfect subtrees of the log from left to right: (leaves, root).
    peaks: Vec<(u64, Hash)>,
    unspent: UnspentDigest,
    /// What was issued and not redeemed, and what live outputs add up to.
    supply: BTreeMap<AssetType, i128>,
    sums: BTreeMap<AssetType, i128>,
    groups: usize,
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

/// What was made, so that it can be unmade.
#[derive(Debug, Default)]
struct Made {
    consumed: Vec<(OutputId, Contract)>,
    created: Vec<OutputId>,
    supply: Vec<(AssetType, Quantity)>,
}

type Member<'a> = (&'a Transaction, &'a OutcomeRecord);

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

    /// The head of the last batch.
    #[must_use]
    pub const fn head(&self) -> Option<&Head> {
        self.head.as_ref()
    }

    /// Transactions sequenced.
    #[must_use]
    pub fn size(&self) -> usize {
        self.records.len()
    }

    /// Atomic groups sequenced.
    #[must_use]
    pub const fn groups(&self) -> usize {
        self.groups
    }

    /// The live outputs of a holder.
    #[must_use]
    pub fn held_by(&self, party: &Party) -> BTreeSet<OutputId> {
        self.held.get(party).cloned().unwrap_or_default()
    }

    fn sequence(&self) -> Sequence {
        Sequence::new(self.peaks.iter().map(|(leaves, _)| leaves).sum())
    }

    /// Replays a batch and compares what it should have become with what it did.
    ///
    /// # Errors
    /// The first difference.
    pub fn apply(&mut self, batch: &OrderedBatch, limits: &Limits) -> Result<(), Violation> {
        let before = self.head;
        let log_time = batch.head.log_time;
        if before.is_some_and(|before| before.log_time > log_time || before.batch + 1 != batch.head.batch) {
            let what = format!("the head {:?} does not follow {before:?}", batch.head);
            return Err(Violation::new(Property::AppendOnly, what));
        }
        if batch.transactions.len() != batch.records.len() {
            let what = format!("{} outcomes of {} transactions", batch.records.len(), batch.transactions.len());
            return Err(Violation::new(Property::Outcomes, what));
        }
        let members: Vec<Member<'_>> = batch.transactions.iter().zip(&batch.records).collect();
        let group = |member: &Member<'_>| member.0.body.atomic;
        for unit in members.chunk_by(|left, right| group(left).is_some() && group(left) == group(right)) {
            self.apply_unit(unit, log_time, limits)?;
        }
        self.check_head(&batch.head)?;
        self.roots.insert(batch.head.size, batch.head.log_root);
        self.head = Some(batch.head);
        Ok(())
    }

    /// A single transaction or a whole group.
    fn apply_unit(&mut self, unit: &[Member<'_>], time: LogTime, limits: &Limits) -> Result<(), Violation> {
        let latest = time.plus_millis(limits.validity_ms_max);
        if let Some((transaction, _)) = unit.iter().find(|(transaction, _)| transaction.body.valid_until > latest) {
            let what = format!("{} has a place, and may outlive what is known of it", transaction.id());
            return Err(Violation::new(Property::OneOutcome, what));
        }
        self.groups += usize::from(unit.len() > 1);
        let mut made = Vec::new();
        let mut expected = Vec::new();
        for (member, (transaction, record)) in unit.iter().enumerate() {
            if let Some(barred) = barred(unit, record) {
                expected.push(Outcome::Rejected(barred));
                continue;
            }
            match self.change(&transaction.body, time, limits) {
                Ok(change) => {
                    expected.push(Outcome::Committed { chosen: change.chosen.clone() });
                    made.push(self.make(&transaction.id(), change)?);
                }
                Err(reason) => {
                    made.drain(..).rev().for_each(|made| self.unmake(made));
                    expected = rejections(unit.len(), member, reason);
                    break;
                }
            }
        }
        for ((transaction, record), outcome) in unit.iter().zip(expected) {
            self.compare(transaction, record, outcome, time, unit.len() > 1)?;
        }
        Ok(())
    }

    fn compare(
        &mut self,
        transaction: &Transaction,
        record: &OutcomeRecord,
        outcome: Outcome,
        time: LogTime,
        grouped: bool,
    ) -> Result<(), Violation> {
        let id = transaction.id();
        let sequence = self.sequence();
        let stamp = record.stamp.min(sequence);
        let expected = OutcomeRecord { sequence, transaction: id, stamp, log_time: time, outcome };
        if *record != expected {
            let what = format!("{id} should have become {expected:?} and is {record:?}");
            return Err(Violation::new(broken_by(&record.outcome, &expected.outcome, grouped), what));
        }
        if record.outcome.is_committed() && !is_signed(transaction) {
            return Err(Violation::new(Property::Authority, format!("{id} happened with false signatures")));
        }
        if self.records.insert(id, expected).is_some() {
            return Err(Violation::new(Property::OneOutcome, format!("{id} has two outcomes")));
        }
        self.append(record.leaf());
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
        let held = self.held.get(owner).into_iter().flatten();
        held.filter_map(move |id| match self.live.get(id)? {
            Contract::Position(held) if held.asset == *asset => {
                Some((*id, held.quantity.minor_units())).filter(|(_, quantity)| *quantity > 0)
            }
            Contract::Position(_) | Contract::Grant(_) | Contract::Allocation(_) => None,
        })
    }

    /// Invariants 3 and 4, where nobody has a grant: what is created is above zero, and what one transaction consumes
    /// it creates, but for what its issuer adds or takes away.
    fn make(&mut self, id: &TransactionId, change: Change) -> Result<Made, Violation> {
        let mut made = Made { supply: change.supply, ..Made::default() };
        let mut balance: BTreeMap<AssetType, i128> = BTreeMap::new();
        for output in change.consumed {
            if let Some(contract) = self.take(&output) {
                self.spent.insert(output, *id);
                add(&mut balance, &contract, -1);
                made.consumed.push((output, contract));
            }
        }
        for (index, contract) in (0_u16..).zip(change.created) {
            if let Some((asset, quantity)) = contract.value().filter(|(_, quantity)| !quantity.is_positive()) {
                let what = format!("{id} makes a position of {quantity} of {asset}");
                return Err(Violation::new(Property::NonNegativity, what));
            }
            let output = Origin { transaction: *id, index }.output_id(&contract);
            add(&mut balance, &contract, 1);
            self.put(output, contract);
            made.created.push(output);
        }
        for (asset, quantity) in &made.supply {
            *self.supply.entry(*asset).or_default() += quantity.minor_units();
            *balance.entry(*asset).or_default() -= quantity.minor_units();
        }
        match balance.into_iter().find(|(_, sum)| *sum != 0) {
            None => Ok(made),
            Some((asset, sum)) => {
                Err(Violation::new(Property::Conservation, format!("{id} makes {sum} of {asset} from nothing")))
            }
        }
    }

    fn unmake(&mut self, made: Made) {
        for output in made.created {
            self.take(&output);
        }
        for (output, contract) in made.consumed {
            self.spent.remove(&output);
            self.put(output, contract);
        }
        for (asset, quantity) in made.supply {
            *self.supply.entry(asset).or_default() -= quantity.minor_units();
        }
    }

    fn put(&mut self, output: OutputId, contract: Contract) {
        self.unspent.insert(&output);
        add(&mut self.sums, &contract, 1);
        self.held.entry(contract.holder()).or_default().insert(output);
        self.live.insert(output, contract);
    }

    fn take(&mut self, output: &OutputId) -> Option<Contract> {
        let contract = self.live.remove(output)?;
        self.unspent.remove(output);
        add(&mut self.sums, &contract, -1);
        if let Some(held) = self.held.get_mut(&contract.holder()) {
            held.remove(output);
        }
        Some(contract)
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

    fn check_head(&self, head: &Head) -> Result<(), Violation> {
        let roots = self.peaks.iter().rev().map(|(_, root)| *root);
        let root = roots.reduce(|right, left| node_hash(&left, &right)).unwrap_or_else(empty_root);
        let size = self.sequence();
        if (head.size, head.log_root) != (size, root) {
            let what = format!("the head names {} leaves under {}, not {size} under {root}", head.size, head.log_root);
            return Err(Violation::new(Property::AppendOnly, what));
        }
        if head.unspent != self.unspent {
            let what = format!("the head's digest of unspent outputs is {}, not {}", head.unspent, self.unspent);
            return Err(Violation::new(Property::Outcomes, what));
        }
        Ok(())
    }

    /// Everything once more, from nothing: what was kept up to date on the way is what is there.
    ///
    /// # Errors
    /// The first difference.
    pub fn check_whole(&self) -> Result<(), Violation> {
        let mut unspent = UnspentDigest::default();
        let mut sums = BTreeMap::new();
        for (id, contract) in &self.live {
            unspent.insert(id);
            add(&mut sums, contract, 1);
        }
        let same = |left: &BTreeMap<AssetType, i128>, right: &BTreeMap<AssetType, i128>| {
            let there = |sums: &BTreeMap<AssetType, i128>| -> BTreeMap<AssetType, i128> {
                sums.iter().filter(|(_, sum)| **sum != 0).map(|(asset, sum)| (*asset, *sum)).collect()
            };
            there(left) == there(right)
        };
        if !same(&sums, &self.supply) || !same(&sums, &self.sums) {
            let what = format!("{sums:?} are there, and {:?} were issued", self.supply);
            return Err(Violation::new(Property::Conservation, what));
        }
        if self.head.is_some_and(|head| head.unspent != unspent) {
            return Err(Violation::new(Property::Outcomes, "the live outputs do not lead to the last head's digest"));
        }
        Ok(())
    }
}

fn add(sums: &mut BTreeMap<AssetType, i128>, contract: &Contract, sign: i128) {
    if let Some((asset, quantity)) = contract.value() {
        *sums.entry(asset).or_default() += sign * quantity.minor_units();
    }
}

fn is_signed(transaction: &Transaction) -> bool {
    let Transaction { body, signatures } = transaction;
    let message = transaction_message(&body.id(), body.atomic.as_ref());
    body.signers.len() == signatures.len()
        && body
            .signers
            .iter()
            .zip(signatures)
            .all(|(signer, signature)| Claim { signer: *signer, message, signature: *signature }.holds())
}

/// Which property a wrong outcome breaks.
fn broken_by(found: &Outcome, expected: &Outcome, grouped: bool) -> Property {
    let Outcome::Rejected(reason) = expected else {
        return if grouped && !found.is_committed() { Property::Atomicity } else { Property::Outcomes };
    };
    if !found.is_committed() {
        return Property::Outcomes;
    }
    let is = |reasons: &[&str]| reasons.contains(&reason.name());
    if is(&["InputSpent", "ReferenceSpent"]) {
        Property::SingleSpend
    } else if is(&["InputUnknown", "ReferenceUnknown"]) {
        Property::KnownInputs
    } else if is(&["GroupMemberRejected", "GroupMemberSequenced"]) {
        Property::Atomicity
    } else {
        Property::Outcomes
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
fn barred(unit: &[Member<'_>], record: &OutcomeRecord) -> Option<Rejection> {
    let group = unit.first()?.0.body.atomic?;
    let ids: Vec<TransactionId> = unit.iter().map(|(transaction, _)| transaction.id()).collect();
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
