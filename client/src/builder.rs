//! From intent to a transaction: movements are named one after another, change and signers follow by themselves.

use std::collections::{BTreeMap, BTreeSet};

use ledger::check::LedgerIdentity;
use ledger::transaction::{SeenHead, SupplyChange};
use ledger::view::LiveOutput;
use ledger::{
    Allocation, AssetType, Body, Contract, Grant, Head, Input, Intent, Limits, LogTime, Movements, OutputId, Party,
    Position, Quantity, Reference, Rejection, Terms, TermsAction, TermsEntry, TermsId, Unlock,
};

use crate::prepared::Prepared;

/// What every transaction says besides its intent.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// The ledger.
    pub identity: LedgerIdentity,
    /// Its limits.
    pub limits: Limits,
    /// The log time from which on the transaction can no longer happen.
    pub valid_until: LogTime,
    /// Tells otherwise equal transactions apart.
    pub nonce: u64,
}

impl Context {
    pub(crate) fn body(&self, seen_head: Option<SeenHead>, signers: Vec<Party>, intent: Intent) -> Body {
        Body {
            cluster: self.identity.cluster,
            group: self.identity.group,
            valid_until: self.valid_until,
            nonce: self.nonce,
            seen_head,
            signers,
            intent,
            atomic: None,
        }
    }
}

/// Why a transaction cannot be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BuildFault {
    /// A party pays more than it put in, and no grant for it is referenced.
    #[error("{party} lacks {missing} of {asset}")]
    Short {
        /// Who.
        party: Party,
        /// Of which asset.
        asset: AssetType,
        /// How much more it would have to put in.
        missing: Quantity,
    },
    /// A sum leaves 128 bits.
    #[error("a sum of {0} leaves 128 bits")]
    Overflow(AssetType),
    /// An output was given where one of another kind belongs.
    #[error("{output} is not {expected}")]
    WrongKind {
        /// Which.
        output: OutputId,
        /// What would have fitted.
        expected: &'static str,
    },
    /// The terms have no such leg.
    #[error("{terms} have no leg {leg}")]
    NoSuchLeg {
        /// The terms.
        terms: TermsId,
        /// The leg.
        leg: u16,
    },
    /// A group is empty or too large.
    #[error("a group of {members} members, where 1 to {members_max} may be")]
    GroupSize {
        /// Its members.
        members: usize,
        /// The limit.
        members_max: usize,
    },
    /// A group names one transaction twice.
    #[error("member {member} stands in the group before")]
    MemberTwice {
        /// Which.
        member: usize,
    },
    /// A member of a group already belongs to one.
    #[error("member {member} already belongs to a group")]
    GroupedTwice {
        /// Which.
        member: usize,
    },
    /// The transaction breaks a rule: what any node would answer, found without a round trip.
    #[error(transparent)]
    Rejected(#[from] RejectionError),
}

/// A [`Rejection`] as an error.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RejectionError(pub Rejection);

/// Collects movements. What parties put in and do not pay returns to them as change; who has to sign follows from
/// whose rights are used.
///
/// The first fault is kept and returned by [`Self::prepare`].
#[derive(Debug, Clone)]
pub struct TransactionBuilder {
    context: Context,
    seen_head: Option<SeenHead>,
    movements: Movements,
    supply: BTreeMap<AssetType, Quantity>,
    /// What each party has put in and not paid yet.
    balances: BTreeMap<(Party, AssetType), Quantity>,
    signers: BTreeSet<Party>,
    /// Whose payments from settled legs join its change.
    together: Option<Party>,
    fault: Option<BuildFault>,
}

impl TransactionBuilder {
    /// An empty transaction.
    #[must_use]
    pub fn new(context: Context) -> Self {
        Self {
            context,
            seen_head: None,
            movements: Movements::default(),
            supply: BTreeMap::new(),
            balances: BTreeMap::new(),
            signers: BTreeSet::new(),
            together: None,
            fault: None,
        }
    }

    /// What it says besides its intent.
    #[must_use]
    pub const fn context(&self) -> &Context {
        &self.context
    }

    /// Also asks a party to sign that need not.
    pub fn signer(&mut self, party: Party) -> &mut Self {
        self.signers.insert(party);
        self
    }

    /// Makes the transaction depend on a head: on a ledger that does not contain it, it is rejected.
    pub fn after_head(&mut self, head: &Head) -> &mut Self {
        self.seen_head = Some(SeenHead { size: head.size, log_root: head.log_root });
        self
    }

    /// What settled legs pay to this party joins its change: one position per asset, however many legs. To be called
    /// before settling.
    pub fn keep_together(&mut self, party: Party) -> &mut Self {
        self.together = Some(party);
        self
    }

    /// Puts in a position, all of it.
    pub fn spend(&mut self, position: &LiveOutput) -> &mut Self {
        match &position.contract {
            Contract::Position(held) => {
                self.consume(position, Unlock::Owner).signer(held.owner);
                self.move_balance(held.owner, held.asset, Some(held.quantity))
            }
            Contract::Grant(_) | Contract::Allocation(_) => self.wrong_kind(position, "a position"),
        }
    }

    /// Puts in positions, all of each.
    pub fn spend_all<'a>(&mut self, positions: impl IntoIterator<Item = &'a LiveOutput>) -> &mut Self {
        for position in positions {
            self.spend(position);
        }
        self
    }

    /// Pays out of what `from` puts in. Paying oneself splits; putting in several and paying nothing merges.
    pub fn transfer(&mut self, from: Party, to: Party, asset: AssetType, quantity: Quantity) -> &mut Self {
        self.debit(from, asset, quantity).pay(to, asset, quantity)
    }

    /// Splits a position: one new position per quantity, and the rest as change.
    pub fn split(&mut self, position: &LiveOutput, quantities: &[Quantity]) -> &mut Self {
        self.spend(position);
        let (owner, asset) = (position.contract.holder(), position.contract.asset());
        for quantity in quantities {
            self.transfer(owner, owner, asset, *quantity);
        }
        self
    }

    /// Creates new supply, signed by the asset's issuer.
    pub fn issue(&mut self, asset: AssetType, to: Party, quantity: Quantity) -> &mut Self {
        self.change_supply(asset, Some(quantity)).pay(to, asset, quantity)
    }

    /// Destroys supply out of what `owner` puts in, signed by the asset's issuer too.
    pub fn redeem(&mut self, asset: AssetType, owner: Party, quantity: Quantity) -> &mut Self {
        self.change_supply(asset, negated(quantity)).debit(owner, asset, quantity)
    }

    /// Grants an owner bookkeeping treatment, signed by the asset's issuer.
    pub fn grant(&mut self, asset: AssetType, owner: Party) -> &mut Self {
        self.movements.outputs.push(Contract::Grant(Grant { asset, owner }));
        self.signer(asset.issuer)
    }

    /// Revokes a grant, signed by the asset's issuer.
    pub fn revoke(&mut self, grant: &LiveOutput) -> &mut Self {
        match &grant.contract {
            Contract::Grant(granted) => self.consume(grant, Unlock::Owner).signer(granted.asset.issuer),
            Contract::Position(_) | Contract::Allocation(_) => self.wrong_kind(grant, "a grant"),
        }
    }

    /// Uses a grant: its owner may pay more of that asset than it puts in, and keeps a negative position.
    pub fn under_grant(&mut self, grant: &LiveOutput) -> &mut Self {
        match &grant.contract {
            Contract::Grant(granted) => {
                self.movements.references.push(Reference { origin: grant.origin, contract: grant.contract });
                self.signer(granted.owner)
            }
            Contract::Position(_) | Contract::Allocation(_) => self.wrong_kind(grant, "a grant"),
        }
    }

    /// Proposes terms: locks what funds one leg, out of what its payer puts in. It returns to the payer on
    /// withdrawal, rejection, or from `expires_at` on.
    pub fn propose(&mut self, terms: &Terms, leg: u16, expires_at: LogTime) -> &mut Self {
        let id = terms.id();
        let Some(funded) = terms.legs.get(usize::from(leg)).copied() else {
            return self.fail(BuildFault::NoSuchLeg { terms: id, leg });
        };
        self.debit(funded.payer, funded.asset, funded.quantity).reveal(terms, TermsAction::Propose);
        self.movements.outputs.push(Contract::Allocation(Allocation {
            terms: id,
            leg,
            asset: funded.asset,
            quantity: funded.quantity,
            payer: funded.payer,
            return_to: funded.payer,
            expires_at,
        }));
        self
    }

    /// Settles terms: every receiver is paid. Legs with an allocation are funded by it; the payers of the others
    /// sign and pay out of what they put in. This is how terms are accepted, too.
    pub fn settle(&mut self, terms: &Terms, allocations: &[LiveOutput]) -> &mut Self {
        self.reveal(terms, TermsAction::Settle);
        let mut funded = BTreeSet::new();
        for output in allocations {
            match &output.contract {
                Contract::Allocation(locked) => {
                    funded.insert(usize::from(locked.leg));
                    self.consume(output, Unlock::Settle);
                }
                Contract::Position(_) | Contract::Grant(_) => return self.wrong_kind(output, "an allocation"),
            }
        }
        for (position, leg) in terms.legs.iter().enumerate() {
            if !funded.contains(&position) {
                self.signer(leg.payer).debit(leg.payer, leg.asset, leg.quantity);
            }
            if self.together == Some(leg.receiver) {
                self.move_balance(leg.receiver, leg.asset, Some(leg.quantity));
            } else {
                self.pay(leg.receiver, leg.asset, leg.quantity);
            }
        }
        self
    }

    /// Takes an allocation back, signed by its payer.
    pub fn withdraw(&mut self, allocation: &LiveOutput) -> &mut Self {
        if let Contract::Allocation(locked) = &allocation.contract {
            self.signer(locked.payer);
        }
        self.give_back(allocation, Unlock::Withdraw)
    }

    /// Rejects terms, signed by a party to them: the allocations return.
    pub fn reject(&mut self, terms: &Terms, allocations: &[LiveOutput], party: Party) -> &mut Self {
        self.reveal(terms, TermsAction::Reject).signer(party);
        for allocation in allocations {
            self.give_back(allocation, Unlock::Reject);
        }
        self
    }

    /// Returns an allocation whose expiry has come. Anyone may, without any signature.
    pub fn expire(&mut self, allocation: &LiveOutput) -> &mut Self {
        self.give_back(allocation, Unlock::Expire)
    }

    /// Completes the transaction and checks every rule that needs no signature and no state.
    ///
    /// # Errors
    /// The first fault met while building, what a party lacks, or the rule that is broken.
    pub fn prepare(&self) -> Result<Prepared, BuildFault> {
        if let Some(fault) = &self.fault {
            return Err(fault.clone());
        }
        let mut movements = self.movements.clone();
        for ((party, asset), balance) in &self.balances {
            if balance.is_negative() && !self.is_granted(party, asset) {
                let missing = negated(*balance).ok_or(BuildFault::Overflow(*asset))?;
                return Err(BuildFault::Short { party: *party, asset: *asset, missing });
            }
            if *balance != Quantity::ZERO {
                let change = Position { asset: *asset, owner: *party, quantity: *balance };
                movements.outputs.push(Contract::Position(change));
            }
        }
        let changes = self.supply.iter().filter(|(_, quantity)| **quantity != Quantity::ZERO);
        movements.supply =
            changes.map(|(asset, quantity)| SupplyChange { asset: *asset, quantity: *quantity }).collect();
        let signers = self.signers.iter().copied().collect();
        let body = self.context.body(self.seen_head, signers, Intent::Movements(movements));
        Prepared::check(body, &self.context.identity, &self.context.limits).map_err(BuildFault::from)
    }

    fn is_granted(&self, party: &Party, asset: &AssetType) -> bool {
        self.movements.references.iter().any(|reference| match &reference.contract {
            Contract::Grant(grant) => grant.owner == *party && grant.asset == *asset,
            Contract::Position(_) | Contract::Allocation(_) => false,
        })
    }

    fn consume(&mut self, output: &LiveOutput, unlock: Unlock) -> &mut Self {
        self.movements.inputs.push(Input { origin: output.origin, contract: output.contract, unlock });
        self
    }

    fn give_back(&mut self, allocation: &LiveOutput, unlock: Unlock) -> &mut Self {
        match &allocation.contract {
            Contract::Allocation(locked) => {
                self.consume(allocation, unlock).pay(locked.return_to, locked.asset, locked.quantity)
            }
            Contract::Position(_) | Contract::Grant(_) => self.wrong_kind(allocation, "an allocation"),
        }
    }

    fn pay(&mut self, to: Party, asset: AssetType, quantity: Quantity) -> &mut Self {
        self.movements.outputs.push(Contract::Position(Position { asset, owner: to, quantity }));
        self
    }

    fn debit(&mut self, from: Party, asset: AssetType, quantity: Quantity) -> &mut Self {
        self.move_balance(from, asset, negated(quantity))
    }

    fn move_balance(&mut self, party: Party, asset: AssetType, quantity: Option<Quantity>) -> &mut Self {
        let balance = self.balances.entry((party, asset)).or_default();
        match quantity.and_then(|quantity| balance.checked_add(quantity)) {
            Some(sum) => *balance = sum,
            None => return self.fail(BuildFault::Overflow(asset)),
        }
        self
    }

    fn change_supply(&mut self, asset: AssetType, quantity: Option<Quantity>) -> &mut Self {
        let supply = self.supply.entry(asset).or_default();
        match quantity.and_then(|quantity| supply.checked_add(quantity)) {
            Some(sum) => *supply = sum,
            None => return self.fail(BuildFault::Overflow(asset)),
        }
        self.signer(asset.issuer)
    }

    /// Terms are revealed once, also where several of their legs are proposed together.
    fn reveal(&mut self, terms: &Terms, action: TermsAction) -> &mut Self {
        let entry = TermsEntry { action, terms: terms.clone() };
        if !self.movements.terms.contains(&entry) {
            self.movements.terms.push(entry);
        }
        self
    }

    fn wrong_kind(&mut self, output: &LiveOutput, expected: &'static str) -> &mut Self {
        self.fail(BuildFault::WrongKind { output: output.id, expected })
    }

    fn fail(&mut self, fault: BuildFault) -> &mut Self {
        self.fault.get_or_insert(fault);
        self
    }
}

impl From<Rejection> for BuildFault {
    fn from(rejection: Rejection) -> Self {
        Self::Rejected(RejectionError(rejection))
    }
}

fn negated(quantity: Quantity) -> Option<Quantity> {
    Quantity::ZERO.checked_sub(quantity)
}
