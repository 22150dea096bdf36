//! What a wallet knows: outputs by name and by owner and asset, who holds claims, which proposals are open.

use std::collections::{BTreeMap, BTreeSet};

use ledger::view::LiveOutput;
use ledger::{AssetType, Contract, Limits, LogTime, OutputId, Party, Quantity, Terms, TermsId};
use proto::convert::{Proposal, Update};

/// Why an output is not free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hold {
    /// A builder uses it.
    Claimed,
    /// A transaction with an unknown outcome may consume it until then.
    Until(LogTime),
    /// A transaction consumed it; the update that says so is on its way.
    Spent,
}

/// What an owner has of an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Balance {
    /// Sum of the positions that are free, negative ones included.
    pub free: Quantity,
    /// Sum of the positions that are claimed or may be consumed by a transaction under way.
    pub claimed: Quantity,
    /// Sum of what is locked to settlement terms and would return.
    pub allocated: Quantity,
}

/// Why no positions were selected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// The owner does not have that much.
    #[error("insufficient: {wanted} wanted, {free} free, {claimed} claimed")]
    Insufficient {
        /// What was wanted.
        wanted: Quantity,
        /// What is free.
        free: Quantity,
        /// What is claimed.
        claimed: Quantity,
    },
    /// The owner has it, but transactions under way use it. Try again when they have ended.
    #[error("locked: {wanted} wanted, {free} free, {claimed} claimed")]
    Locked {
        /// What was wanted.
        wanted: Quantity,
        /// What is free.
        free: Quantity,
        /// What is claimed.
        claimed: Quantity,
    },
    /// The owner has it in more positions than one transaction may consume. Merge some first.
    #[error("fragmented: {wanted} wanted, the largest {inputs_max} positions hold less")]
    Fragmented {
        /// What was wanted.
        wanted: Quantity,
        /// How many positions a transaction may consume.
        inputs_max: usize,
    },
}

#[derive(Debug)]
pub(super) struct Index {
    parties: BTreeSet<Party>,
    limits: Limits,
    log_time: LogTime,
    outputs: BTreeMap<OutputId, LiveOutput>,
    /// Positions by owner and asset, ascending by quantity.
    positions: BTreeMap<(Party, AssetType), BTreeSet<(Quantity, OutputId)>>,
    holds: BTreeMap<OutputId, Hold>,
    proposals: BTreeMap<TermsId, OpenProposal>,
}

#[derive(Debug)]
struct OpenProposal {
    terms: Terms,
    allocations: BTreeMap<OutputId, LiveOutput>,
}

impl Index {
    pub(super) fn new(parties: &[Party], limits: Limits) -> Self {
        Self {
            parties: parties.iter().copied().collect(),
            limits,
            log_time: LogTime::ZERO,
            outputs: BTreeMap::new(),
            positions: BTreeMap::new(),
            holds: BTreeMap::new(),
            proposals: BTreeMap::new(),
        }
    }

    /// Takes over holds and proposals of an index that this one replaces.
    pub(super) fn inherit(&mut self, earlier: &mut Self) {
        self.holds = std::mem::take(&mut earlier.holds);
        self.holds.retain(|id, hold| *hold == Hold::Claimed || self.outputs.contains_key(id));
        self.proposals = std::mem::take(&mut earlier.proposals);
    }

    /// Applies a batch. Applying it again changes nothing.
    pub(super) fn apply(&mut self, update: &Update) {
        for output in &update.created {
            self.insert(*output);
        }
        for proposal in &update.proposals {
            self.learn(proposal);
        }
        for consumed in &update.consumed {
            self.remove(&consumed.output);
        }
        self.log_time = self.log_time.max(update.head.log_time);
        let log_time = self.log_time;
        self.holds.retain(|_, hold| !matches!(hold, Hold::Until(valid_until) if *valid_until <= log_time));
        self.drop_expired_proposals();
    }

    pub(super) fn insert(&mut self, output: LiveOutput) {
        if !self.parties.contains(&output.contract.holder()) {
            return;
        }
        if let Contract::Position(held) = &output.contract {
            self.positions.entry((held.owner, held.asset)).or_default().insert((held.quantity, output.id));
        }
        self.outputs.insert(output.id, output);
    }

    fn remove(&mut self, output: &LiveOutput) {
        self.outputs.remove(&output.id);
        // a claim keeps its mark until it ends, so that a replayed creation does not free the output meanwhile
        if self.holds.get(&output.id).is_some_and(|hold| *hold != Hold::Claimed) {
            self.holds.remove(&output.id);
        }
        match &output.contract {
            Contract::Position(held) => {
                let key = (held.owner, held.asset);
                if let Some(positions) = self.positions.get_mut(&key) {
                    positions.remove(&(held.quantity, output.id));
                    if positions.is_empty() {
                        self.positions.remove(&key);
                    }
                }
            }
            Contract::Allocation(locked) => self.forget_allocation(&locked.terms, &output.id),
            Contract::Grant(_) => {}
        }
    }

    pub(super) fn learn(&mut self, proposal: &Proposal) {
        let open = self.proposals.entry(proposal.terms.id());
        let open = open.or_insert_with(|| OpenProposal { terms: proposal.terms.clone(), allocations: BTreeMap::new() });
        open.allocations.extend(proposal.allocations.iter().map(|output| (output.id, *output)));
    }

    fn forget_allocation(&mut self, terms: &TermsId, allocation: &OutputId) {
        if let Some(open) = self.proposals.get_mut(terms) {
            open.allocations.remove(allocation);
            if open.allocations.is_empty() {
                self.proposals.remove(terms);
            }
        }
    }

    fn drop_expired_proposals(&mut self) {
        let log_time = self.log_time;
        let expired = |output: &LiveOutput| match &output.contract {
            Contract::Allocation(locked) => locked.expires_at <= log_time,
            Contract::Position(_) | Contract::Grant(_) => true,
        };
        self.proposals.retain(|_, open| {
            open.allocations.retain(|_, output| !expired(output));
            !open.allocations.is_empty()
        });
    }

    pub(super) fn hold(&mut self, id: OutputId, hold: Hold) {
        if hold == Hold::Spent {
            let locked_to = self.proposals.iter().find(|(_, open)| open.allocations.contains_key(&id));
            if let Some(terms) = locked_to.map(|(terms, _)| *terms) {
                self.forget_allocation(&terms, &id);
            }
        }
        if hold == Hold::Claimed || self.outputs.contains_key(&id) {
            self.holds.insert(id, hold);
        } else {
            // the update came before the outcome
            self.holds.remove(&id);
        }
    }

    pub(super) fn release(&mut self, id: &OutputId) {
        self.holds.remove(id);
    }

    /// An output that is live and not held.
    pub(super) fn free(&self, id: &OutputId) -> Option<LiveOutput> {
        self.outputs.get(id).filter(|_| !self.holds.contains_key(id)).copied()
    }

    pub(super) fn output(&self, id: &OutputId) -> Option<LiveOutput> {
        self.outputs.get(id).copied()
    }

    pub(super) fn positions(&self, owner: &Party, asset: &AssetType) -> Vec<LiveOutput> {
        let positions = self.positions.get(&(*owner, *asset)).into_iter().flatten();
        positions.filter_map(|(_, id)| self.output(id)).collect()
    }

    pub(super) fn assets(&self, owner: &Party) -> Vec<AssetType> {
        let held = self.outputs.values().filter(|output| output.contract.holder() == *owner);
        held.map(|output| output.contract.asset()).collect::<BTreeSet<_>>().into_iter().collect()
    }

    pub(super) fn allocations(&self) -> Vec<LiveOutput> {
        self.of_kind(|contract| matches!(contract, Contract::Allocation(_)))
    }

    pub(super) fn grants(&self) -> Vec<LiveOutput> {
        self.of_kind(|contract| matches!(contract, Contract::Grant(_)))
    }

    fn of_kind(&self, wanted: impl Fn(&Contract) -> bool) -> Vec<LiveOutput> {
        self.outputs.values().filter(|output| wanted(&output.contract)).copied().collect()
    }

    pub(super) fn proposals(&self) -> Vec<Proposal> {
        self.proposals.values().map(OpenProposal::content).collect()
    }

    pub(super) fn proposal(&self, terms: &TermsId) -> Option<Proposal> {
        self.proposals.get(terms).map(OpenProposal::content)
    }

    pub(super) fn balance(&self, owner: &Party, asset: &AssetType) -> Balance {
        let mut balance = Balance::default();
        for (quantity, id) in self.positions.get(&(*owner, *asset)).into_iter().flatten() {
            match self.holds.get(id) {
                None => balance.free = sum(balance.free, *quantity),
                Some(Hold::Claimed | Hold::Until(_)) => balance.claimed = sum(balance.claimed, *quantity),
                Some(Hold::Spent) => {}
            }
        }
        for output in self.outputs.values() {
            if let Contract::Allocation(locked) = &output.contract
                && locked.return_to == *owner
                && locked.asset == *asset
            {
                balance.allocated = sum(balance.allocated, locked.quantity);
            }
        }
        balance
    }

    pub(super) fn select(
        &self,
        owner: &Party,
        asset: &AssetType,
        wanted: Quantity,
    ) -> Result<Vec<LiveOutput>, Shortage> {
        let positions = self.positions.get(&(*owner, *asset));
        let free = || {
            let positions = positions.into_iter().flatten().filter(|(quantity, _)| quantity.is_positive());
            positions.filter_map(|(_, id)| self.free(id))
        };
        if let Some(single) = free().find(|output| quantity_of(output) >= wanted) {
            return Ok(vec![single]);
        }
        let mut descending: Vec<LiveOutput> = free().collect();
        descending.reverse();
        let mut held = Quantity::ZERO;
        let mut chosen = Vec::new();
        for output in descending.iter().take(self.limits.inputs_max) {
            held = sum(held, quantity_of(output));
            chosen.push(*output);
            if held >= wanted {
                return Ok(chosen);
            }
        }
        Err(self.shortage(owner, asset, wanted))
    }

    fn shortage(&self, owner: &Party, asset: &AssetType, wanted: Quantity) -> Shortage {
        let Balance { free, claimed, .. } = self.balance(owner, asset);
        if free >= wanted {
            return Shortage::Fragmented { wanted, inputs_max: self.limits.inputs_max };
        }
        if sum(free, claimed) >= wanted {
            return Shortage::Locked { wanted, free, claimed };
        }
        Shortage::Insufficient { wanted, free, claimed }
    }
}

impl OpenProposal {
    fn content(&self) -> Proposal {
        Proposal { terms: self.terms.clone(), allocations: self.allocations.values().copied().collect() }
    }
}

fn quantity_of(output: &LiveOutput) -> Quantity {
    output.contract.value().map(|(_, quantity)| quantity).unwrap_or_default()
}

/// For display and selection; where a sum leaves 128 bits the largest number says enough.
fn sum(a: Quantity, b: Quantity) -> Quantity {
    Quantity::new(a.minor_units().saturating_add(b.minor_units()))
}
