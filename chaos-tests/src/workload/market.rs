//! What clients know in common: the parties with their keys, assets, positions that may still be there, proposals.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use ledger::check::LedgerIdentity;
use ledger::signature::SigningKey;
use ledger::transaction::SeenHead;
use ledger::{
    Allocation, AssetType, Contract, Head, Intent, Origin, Outcome, Party, Position, Quantity, Rejection, Sequence,
    Terms, TermsAction, Transaction, TransactionId,
};

use seams::Clock;

use crate::dice::{Dice, lock};
use crate::history::Told;

/// Parties that trade.
const PARTIES: u64 = 6;
/// Assets; the first parties issue one each.
const ASSETS: usize = 2;
/// Positions that are remembered. Older ones are forgotten first: most are spent.
const POSITIONS_MAX: usize = 60;

/// Parties that hold one position each, which is replaced again and again.
const REGISTERS: u64 = 3;
/// What the party holds that everybody is paid by.
const HOT_QUANTITY: i128 = 1_000_000_000;

/// The market. Clones are the same market.
#[derive(Debug, Clone)]
pub struct Market {
    pub(super) dice: Dice,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) identity: LedgerIdentity,
    pub(super) keys: Arc<Vec<SigningKey>>,
    pub(super) assets: Arc<Vec<AssetType>>,
    registers: Arc<Vec<SigningKey>>,
    hot: SigningKey,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    positions: Vec<(Origin, Position)>,
    proposals: Vec<Proposal>,
    /// The position that a register or the hot party is believed to hold.
    contended: BTreeMap<Party, (Origin, Position)>,
    /// What transactions that compete for such positions make, first output: whoever loses learns the winner's name.
    competing: BTreeMap<TransactionId, Position>,
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
    pub fn new(dice: &Dice, clock: Arc<dyn Clock>, identity: LedgerIdentity) -> Self {
        let keys: Vec<SigningKey> = (0..PARTIES).map(|_| SigningKey::from_seed(dice.key_seed())).collect();
        let symbol = "COIN".parse().expect("four letters are a symbol");
        let assets = keys.iter().take(ASSETS).map(|key| AssetType { issuer: key.party(), symbol }).collect();
        Self {
            dice: dice.clone(),
            clock,
            identity,
            keys: Arc::new(keys),
            assets: Arc::new(assets),
            registers: Arc::new((0..REGISTERS).map(|_| SigningKey::from_seed(dice.key_seed())).collect()),
            hot: SigningKey::from_seed(dice.key_seed()),
            known: Arc::default(),
        }
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
        self.dice.pick(&self.keys).expect("there are parties").party()
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
        *self.dice.pick(&self.assets).expect("there are assets")
    }

    /// The parties that are registers.
    #[must_use]
    pub fn registers(&self) -> BTreeSet<Party> {
        self.registers.iter().map(SigningKey::party).collect()
    }

    /// A party whose holdings are worth looking at: any of those that trade, or a register.
    #[must_use]
    pub fn some_holder(&self) -> Party {
        let register = self.dice.pick(&self.registers).map(SigningKey::party);
        if self.dice.chance(400) { register.unwrap_or_else(|| self.some_party()) } else { self.some_party() }
    }

    /// What makes the registers and the hot position. To be committed before anything else.
    #[must_use]
    pub fn preparations(&self) -> Vec<Transaction> {
        let registers = self.registers.iter().map(|key| self.issue_to(key.party(), Quantity::new(1)));
        registers.chain([self.issue_to(self.hot.party(), Quantity::new(HOT_QUANTITY))]).collect()
    }

    /// Some register's position, as far as it is known.
    pub(super) fn some_register(&self) -> Option<(Origin, Position)> {
        let party = self.dice.pick(&self.registers)?.party();
        self.known().contended.get(&party).copied()
    }

    /// The hot position, as far as it is known.
    pub(super) fn hot_position(&self) -> Option<(Origin, Position)> {
        self.known().contended.get(&self.hot.party()).copied()
    }

    /// Remembers a transaction that competes for a contended position, which it replaces by this one.
    pub(super) fn compete(&self, id: TransactionId, made: Position) {
        self.known().competing.insert(id, made);
    }

    /// How many transactions the last seen head covers.
    #[must_use]
    pub fn seen_size(&self) -> Sequence {
        self.seen().map(|seen| seen.size).unwrap_or_default()
    }

    pub(super) fn key_of(&self, party: &Party) -> Option<&SigningKey> {
        let all = self.keys.iter().chain(self.registers.iter()).chain([&self.hot]);
        all.into_iter().find(|key| key.party() == *party)
    }

    /// A position that was there once. It mostly stays known, so that somebody else tries to spend it too.
    pub(super) fn some_position(&self) -> Option<(Origin, Position)> {
        let mut known = self.known();
        let found = *self.dice.pick(&known.positions)?;
        if self.dice.chance(700) {
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
        let found = self.dice.pick(&known.proposals)?.clone();
        if self.dice.chance(700) {
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
    pub fn learn(&self, members: &[Transaction], answers: &[Option<Told>]) {
        for (member, answer) in members.iter().zip(answers) {
            if let Some(Told::Sequenced(record)) = answer {
                self.learn_contended(member, &record.outcome);
            }
            if let Some(Told::Sequenced(record)) = answer
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

    /// Who holds what of the contended positions, from a winner or from who lost against it.
    fn learn_contended(&self, member: &Transaction, outcome: &Outcome) {
        let mut known = self.known();
        let (winner, made) = match outcome {
            Outcome::Committed { .. } => (member.id(), first_position(member)),
            Outcome::Rejected(Rejection::InputSpent { winner, .. }) => (*winner, known.competing.get(winner).copied()),
            Outcome::Rejected(_) => return,
        };
        let Some(made) = made.filter(|made| self.is_contended(&made.owner)) else { return };
        let current = known.contended.get(&made.owner).map(|(origin, _)| *origin);
        // what this transaction did not compete with is newer than what it knew
        let competed = match &member.body.intent {
            Intent::Movements(movements) => movements.inputs.first().map(|input| input.origin),
            Intent::Command(_) => None,
        };
        if current == competed {
            known.contended.insert(made.owner, (Origin { transaction: winner, index: 0 }, made));
        }
    }

    fn is_contended(&self, party: &Party) -> bool {
        self.hot.party() == *party || self.registers.iter().any(|key| key.party() == *party)
    }

    fn remember(&self, origin: Origin, contract: &Contract, terms: Option<&Terms>) {
        let mut known = self.known();
        match (contract, terms) {
            (Contract::Position(position), _) if self.is_contended(&position.owner) => {}
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

fn first_position(transaction: &Transaction) -> Option<Position> {
    match &transaction.body.intent {
        Intent::Movements(movements) => match movements.outputs.first()? {
            Contract::Position(position) => Some(*position),
            Contract::Allocation(_) | Contract::Grant(_) => None,
        },
        Intent::Command(_) => None,
    }
}
