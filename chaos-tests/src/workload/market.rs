//! What clients know in common: the parties with their keys, assets, positions that may still be there, proposals.

use std::sync::{Arc, Mutex, MutexGuard};

use ledger::check::LedgerIdentity;
use ledger::signature::SigningKey;
use ledger::transaction::SeenHead;
use ledger::{
    Allocation, AssetType, Contract, Head, Intent, Origin, Outcome, Party, Position, Terms, TermsAction, Transaction,
};
use node::gateway::Answer;

use crate::world::{World, lock};

/// Parties that trade.
const PARTIES: u64 = 6;
/// Assets; the first parties issue one each.
const ASSETS: usize = 2;
/// Positions that are remembered. Older ones are forgotten first: most are spent.
const POSITIONS_MAX: usize = 60;

/// The market. Clones are the same market.
#[derive(Debug, Clone)]
pub struct Market {
    pub(super) world: World,
    pub(super) identity: LedgerIdentity,
    pub(super) keys: Arc<Vec<SigningKey>>,
    pub(super) assets: Arc<Vec<AssetType>>,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    positions: Vec<(Origin, Position)>,
    proposals: Vec<Proposal>,
    seen: Option<SeenHead>,
    nonce: u64,
}

/// Terms to which the first leg's payer has locked its part.
#[derive(Debug, Clone)]
pub(super) struct Proposal {
    pub(super) terms: Terms,
    pub(super) origin: Origin,
    pub(super) allocation: Allocation,
}

impl Market {
    /// Parties with keys from the seed, and nothing issued yet.
    ///
    /// # Panics
    /// Never: the symbols are well formed.
    #[must_use]
    pub fn new(world: &World, identity: LedgerIdentity) -> Self {
        let keys: Vec<SigningKey> = (0..PARTIES).map(|_| SigningKey::from_seed(world.key_seed())).collect();
        let symbol = "COIN".parse().expect("four letters are a symbol");
        let assets = keys.iter().take(ASSETS).map(|key| AssetType { issuer: key.party(), symbol }).collect();
        Self { world: world.clone(), identity, keys: Arc::new(keys), assets: Arc::new(assets), known: Arc::default() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        lock(&self.known)
    }

    /// One of the parties.
    ///
    /// # Panics
    /// Never: there are some.
    #[must_use]
    pub fn some_party(&self) -> Party {
        self.world.pick(&self.keys).expect("there are parties").party()
    }

    pub(super) fn some_other(&self, than: Party) -> Party {
        loop {
            let party = self.some_party();
            if party != than {
                return party;
            }
        }
    }

    pub(super) fn some_asset(&self) -> AssetType {
        *self.world.pick(&self.assets).expect("there are assets")
    }

    pub(super) fn key_of(&self, party: &Party) -> Option<&SigningKey> {
        self.keys.iter().find(|key| key.party() == *party)
    }

    /// A position that was there once. It mostly stays known, so that somebody else tries to spend it too.
    pub(super) fn some_position(&self) -> Option<(Origin, Position)> {
        let mut known = self.known();
        let found = *self.world.pick(&known.positions)?;
        if self.world.chance(700) {
            known.positions.retain(|other| other.0 != found.0);
        }
        Some(found)
    }

    /// A position of this owner and asset.
    pub(super) fn position_of(&self, owner: &Party, asset: &AssetType) -> Option<(Origin, Position)> {
        let known = self.known();
        let mut fitting = known.positions.iter().rev();
        fitting.find(|(_, position)| position.owner == *owner && position.asset == *asset).copied()
    }

    /// A proposal that was there once.
    pub(super) fn some_proposal(&self) -> Option<Proposal> {
        let mut known = self.known();
        let found = self.world.pick(&known.proposals)?.clone();
        if self.world.chance(700) {
            known.proposals.retain(|other| other.origin != found.origin);
        }
        Some(found)
    }

    pub(super) fn next_nonce(&self) -> u64 {
        let mut known = self.known();
        known.nonce += 1;
        known.nonce
    }

    pub(super) fn seen(&self) -> Option<SeenHead> {
        self.known().seen
    }

    /// A client saw this head.
    pub fn see(&self, head: &Head) {
        self.known().seen = Some(SeenHead { size: head.size, log_root: head.log_root });
    }

    /// Remembers what committed transactions created.
    pub fn learn(&self, members: &[Transaction], answers: &[Option<Answer>]) {
        for (member, answer) in members.iter().zip(answers) {
            if let Some(Answer::Sequenced { record, .. }) = answer
                && let (Outcome::Committed { .. }, Intent::Movements(movements)) =
                    (&record.outcome, &member.body.intent)
            {
                let proposed = movements.terms.iter().find(|entry| entry.action == TermsAction::Propose);
                for (index, contract) in (0_u16..).zip(&movements.outputs) {
                    let origin = Origin { transaction: record.transaction, index };
                    self.remember(origin, contract, proposed.map(|entry| &entry.terms));
                }
            }
        }
    }

    fn remember(&self, origin: Origin, contract: &Contract, terms: Option<&Terms>) {
        let mut known = self.known();
        match (contract, terms) {
            (Contract::Position(position), _) => known.positions.push((origin, *position)),
            (Contract::Allocation(allocation), Some(terms)) => {
                known.proposals.push(Proposal { terms: terms.clone(), origin, allocation: *allocation });
            }
            (Contract::Allocation(_), None) | (Contract::Grant(_), _) => {}
        }
        if known.positions.len() > POSITIONS_MAX {
            known.positions.remove(0);
        }
    }
}
