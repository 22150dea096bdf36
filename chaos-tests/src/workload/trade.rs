//! The transactions of the workload, good and hopeless ones.

use std::time::Duration;

use ledger::transaction::SupplyChange;
use ledger::{
    Allocation, AtomicGroupId, Body, Command, Contract, Input, Intent, Leg, LogTime, Movements, Origin, Party,
    Position, Quantity, Signature, Terms, TermsAction, TermsEntry, Transaction, Unlock,
};

use super::market::{Market, Proposal};

/// How long most transactions stay valid: longer than any simulation, whatever the clocks show.
const VALIDITY_MILLIS: u64 = 3_600_000;

/// What a client may submit. Where the market has nothing to do it with, something is issued instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// New supply to somebody.
    Issue,
    /// A register's position is replaced.
    Register,
    /// A payment out of the one position that everybody pays from.
    Hot,
    /// A payment.
    Transfer,
    /// Two payments of one position.
    DoubleSpend,
    /// A part of a swap is locked to its terms.
    Propose,
    /// A swap is accepted and settled.
    Settle,
    /// A locked part is withdrawn, rejected or expired.
    TakeBack,
    /// Two payments that happen together or not at all.
    Group,
    /// A command, whose inputs are chosen at its place in the order.
    Command,
    /// A payment that nobody signed.
    Forgery,
}

/// How often each kind is drawn, of 31 times.
const MIX: [Kind; 31] = [
    Kind::Issue,
    Kind::Issue,
    Kind::Register,
    Kind::Register,
    Kind::Hot,
    Kind::Hot,
    Kind::Transfer,
    Kind::Transfer,
    Kind::Transfer,
    Kind::Transfer,
    Kind::Transfer,
    Kind::Transfer,
    Kind::Transfer,
    Kind::Transfer,
    Kind::DoubleSpend,
    Kind::DoubleSpend,
    Kind::DoubleSpend,
    Kind::Propose,
    Kind::Propose,
    Kind::Propose,
    Kind::Settle,
    Kind::Settle,
    Kind::Settle,
    Kind::TakeBack,
    Kind::TakeBack,
    Kind::Group,
    Kind::Group,
    Kind::Command,
    Kind::Command,
    Kind::Command,
    Kind::Forgery,
];

impl Market {
    /// What a client submits next: one submission, or several that race each other.
    #[must_use]
    pub fn draw(&self) -> Vec<Vec<Transaction>> {
        self.draw_of(&MIX)
    }

    /// The same, of these kinds only: one that is there several times is drawn as often.
    #[must_use]
    pub fn draw_of(&self, kinds: &[Kind]) -> Vec<Vec<Transaction>> {
        let single = |body: Option<Body>| body.map(|body| vec![vec![self.sign(body)]]);
        let drawn = match self.dice.pick(kinds).copied().unwrap_or(Kind::Issue) {
            Kind::Issue => None,
            Kind::Register => self.replace_register().map(|write| vec![vec![write]]),
            Kind::Hot => self.settle_hot().map(|settlement| vec![vec![settlement]]),
            Kind::Transfer => single(self.transfer()),
            Kind::DoubleSpend => self.double_spend(),
            Kind::Propose => single(self.propose()),
            Kind::Settle => single(self.settle()),
            Kind::TakeBack => single(self.take_back()),
            Kind::Group => self.group(),
            Kind::Command => single(Some(self.command())),
            Kind::Forgery => self.transfer().map(|transfer| vec![vec![self.sign_falsely(transfer)]]),
        };
        drawn.unwrap_or_else(|| vec![vec![self.issue()]])
    }

    /// Issues to somebody.
    pub fn issue(&self) -> Transaction {
        self.issue_to(self.some_party(), Quantity::new(i128::from(self.dice.between(100..=10_000))))
    }

    /// Issues some asset.
    pub(super) fn issue_to(&self, owner: Party, quantity: Quantity) -> Transaction {
        let asset = self.some_asset();
        let position = Position { asset, owner, quantity };
        self.sign(self.body(
            vec![asset.issuer],
            Intent::Movements(Movements {
                outputs: vec![Contract::Position(position)],
                supply: vec![SupplyChange { asset, quantity }],
                ..Movements::default()
            }),
        ))
    }

    /// Replaces a register's position by another: at most one that names the same position wins.
    fn replace_register(&self) -> Option<Transaction> {
        let (origin, position) = self.some_register()?;
        let outputs = vec![Contract::Position(position)];
        let movements = Movements { inputs: vec![spend(origin, position)], outputs, ..Movements::default() };
        let transaction = self.sign(self.body(vec![position.owner], Intent::Movements(movements)));
        self.compete(transaction.id(), position);
        Some(transaction)
    }

    /// Pays somebody one unit out of the one position that everybody is paid from.
    fn settle_hot(&self) -> Option<Transaction> {
        let (origin, position) = self.hot_position()?;
        let one = Quantity::new(1);
        let rest = Position { quantity: position.quantity.checked_sub(one)?, ..position };
        let paid = Position { owner: self.some_party(), quantity: one, ..position };
        let outputs = vec![Contract::Position(rest), Contract::Position(paid)];
        let movements = Movements { inputs: vec![spend(origin, position)], outputs, ..Movements::default() };
        let transaction = self.sign(self.body(vec![position.owner], Intent::Movements(movements)));
        self.compete(transaction.id(), rest);
        Some(transaction)
    }

    fn transfer(&self) -> Option<Body> {
        let (origin, position) = self.some_position()?;
        Some(self.pay(origin, position, self.some_other(position.owner)))
    }

    /// Pays a part of a position to somebody and the rest to its owner.
    fn pay(&self, origin: Origin, position: Position, to: Party) -> Body {
        let paid = self.part_of(position.quantity);
        let mut outputs = vec![Contract::Position(Position { owner: to, quantity: paid, ..position })];
        outputs.extend(change(&position, paid));
        let movements = Movements { inputs: vec![spend(origin, position)], outputs, ..Movements::default() };
        self.body(vec![position.owner], Intent::Movements(movements))
    }

    fn part_of(&self, quantity: Quantity) -> Quantity {
        let whole = u64::try_from(quantity.minor_units()).unwrap_or(1).max(1);
        Quantity::new(i128::from(self.dice.between(1..=whole)))
    }

    /// Two that spend one position; at most one can win.
    fn double_spend(&self) -> Option<Vec<Vec<Transaction>>> {
        let (origin, position) = self.some_position()?;
        let pay = || self.sign(self.pay(origin, position, self.some_other(position.owner)));
        Some(vec![vec![pay()], vec![pay()]])
    }

    /// Locks a position to terms under which another party shall pay another asset.
    fn propose(&self) -> Option<Body> {
        let (origin, position) = self.some_position()?;
        let payer = position.owner;
        let counterparty = self.some_other(payer);
        let asset = self.some_asset();
        let quantity = self.part_of(position.quantity);
        let wanted = Quantity::new(i128::from(self.dice.between(1..=50)));
        let legs = vec![
            Leg { payer, receiver: counterparty, asset: position.asset, quantity },
            Leg { payer: counterparty, receiver: payer, asset, quantity: wanted },
        ];
        let terms = Terms { legs, nonce: self.next_nonce() };
        let lifetime = self.dice.pick(&[2_000, 10_000, VALIDITY_MILLIS]).copied().unwrap_or(VALIDITY_MILLIS);
        let allocation = Allocation {
            terms: terms.id(),
            leg: 0,
            asset: position.asset,
            quantity,
            payer,
            return_to: payer,
            expires_at: self.in_millis(lifetime),
        };
        let mut outputs = vec![Contract::Allocation(allocation)];
        outputs.extend(change(&position, quantity));
        let movements = Movements {
            inputs: vec![spend(origin, position)],
            outputs,
            terms: vec![TermsEntry { action: TermsAction::Propose, terms }],
            ..Movements::default()
        };
        Some(self.body(vec![payer], Intent::Movements(movements)))
    }

    /// Accepts a proposal and settles it: the second leg's payer signs and spends a position.
    fn settle(&self) -> Option<Body> {
        let Proposal { terms, origin, allocation } = self.some_proposal()?;
        let (given, wanted) = (terms.legs.first()?, terms.legs.get(1)?);
        let (funds, position) = self.position_of(&wanted.payer, &wanted.asset)?;
        if position.quantity < wanted.quantity {
            return None;
        }
        let pay =
            |leg: &Leg| Contract::Position(Position { asset: leg.asset, owner: leg.receiver, quantity: leg.quantity });
        let mut outputs = vec![pay(given), pay(wanted)];
        outputs.extend(change(&position, wanted.quantity));
        let locked = Input { origin, contract: Contract::Allocation(allocation), unlock: Unlock::Settle };
        let signers = vec![wanted.payer];
        let movements = Movements {
            inputs: vec![locked, spend(funds, position)],
            outputs,
            terms: vec![TermsEntry { action: TermsAction::Settle, terms: terms.clone() }],
            ..Movements::default()
        };
        Some(self.body(signers, Intent::Movements(movements)))
    }

    /// Returns an allocation: withdrawn by its payer, rejected by its counterparty, or expired.
    fn take_back(&self) -> Option<Body> {
        let Proposal { terms, origin, allocation } = self.some_proposal()?;
        let counterparty = terms.legs.first()?.receiver;
        let (unlock, signers) = match self.dice.between(0..=2) {
            0 => (Unlock::Withdraw, vec![allocation.payer]),
            1 => (Unlock::Reject, vec![counterparty]),
            _ => (Unlock::Expire, Vec::new()),
        };
        let Allocation { asset, quantity, return_to: owner, .. } = allocation;
        let revealed = TermsEntry { action: TermsAction::Reject, terms };
        let movements = Movements {
            inputs: vec![Input { origin, contract: Contract::Allocation(allocation), unlock }],
            outputs: vec![Contract::Position(Position { asset, owner, quantity })],
            terms: if unlock == Unlock::Reject { vec![revealed] } else { Vec::new() },
            ..Movements::default()
        };
        Some(self.body(signers, Intent::Movements(movements)))
    }

    /// Two transfers that happen together or not at all; in half the cases the second spends what the first creates.
    fn group(&self) -> Option<Vec<Vec<Transaction>>> {
        let first = self.transfer()?;
        let second = if self.dice.chance(500) { self.pass_on(&first)? } else { self.transfer()? };
        let mut bodies = vec![first, second];
        let group = AtomicGroupId::of(&bodies.iter().map(Body::id).collect::<Vec<_>>());
        bodies.iter_mut().for_each(|body| body.atomic = Some(group));
        Some(vec![bodies.into_iter().map(|body| self.sign(body)).collect()])
    }

    /// Gives the first output of a transfer that has not happened yet to somebody else.
    fn pass_on(&self, transfer: &Body) -> Option<Body> {
        let Intent::Movements(movements) = &transfer.intent else { return None };
        let Contract::Position(received) = *movements.outputs.first()? else { return None };
        let origin = Origin { transaction: transfer.id(), index: 0 };
        Some(self.pay(origin, received, self.some_other(received.owner)))
    }

    fn command(&self) -> Body {
        let from = self.some_party();
        let to = self.some_other(from);
        let (asset, other) = (self.some_asset(), self.some_asset());
        let quantity = |max: u64| Quantity::new(i128::from(self.dice.between(1..=max)));
        if self.dice.chance(700) {
            let command = Command::Transfer { asset, from, to, quantity: quantity(500) };
            return self.body(vec![from], Intent::Command(command));
        }
        let leg = |payer, receiver, asset, quantity| Leg { payer, receiver, asset, quantity };
        let legs = vec![leg(from, to, asset, quantity(50)), leg(to, from, other, quantity(50))];
        let terms = Terms { legs, nonce: self.next_nonce() };
        self.body(vec![from, to], Intent::Command(Command::Settle { terms }))
    }

    fn body(&self, mut signers: Vec<Party>, intent: Intent) -> Body {
        signers.sort_unstable();
        let short = self.dice.chance(50);
        Body {
            cluster: self.identity.cluster,
            group: self.identity.group,
            valid_until: self.in_millis(if short { 1_500 } else { VALIDITY_MILLIS }),
            nonce: self.next_nonce(),
            atomic: None,
            seen_head: if self.dice.chance(200) { self.seen() } else { None },
            signers,
            intent,
        }
    }

    /// A time of the client's own clock, which is right.
    fn in_millis(&self, millis: u64) -> LogTime {
        let now = self.clock.unix_millis();
        LogTime::from_unix_millis(now.saturating_add(millis))
    }

    fn sign(&self, body: Body) -> Transaction {
        let keys = body.signers.iter().filter_map(|signer| self.key_of(signer));
        let signatures = keys.map(|key| key.sign_transaction(&body)).collect();
        Transaction { body, signatures }
    }

    fn sign_falsely(&self, body: Body) -> Transaction {
        let mut transaction = self.sign(body);
        transaction.signatures.fill(Signature::from_bytes([7; 64]));
        transaction
    }
}

fn spend(origin: Origin, position: Position) -> Input {
    Input { origin, contract: Contract::Position(position), unlock: Unlock::Owner }
}

fn change(position: &Position, paid: Quantity) -> Option<Contract> {
    let rest = position.quantity.checked_sub(paid).filter(|rest| rest.is_positive())?;
    Some(Contract::Position(Position { quantity: rest, ..*position }))
}

const _: () = assert!(Duration::from_millis(VALIDITY_MILLIS).as_secs() < 24 * 3_600, "within the ledger's limit");
