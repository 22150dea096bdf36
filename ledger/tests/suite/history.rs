//! Histories: batches of legal and slightly illegal transactions in a small universe of parties and assets.
//!
//! A history is built ahead of any execution. The writer keeps every output that its transactions would create, and
//! lets later transactions name them, mostly those that nothing has spent yet. So chains inside a batch, races,
//! revoked grants and unknown inputs all occur, and every output goes back to an issue.

use std::collections::BTreeMap;

use ledger::merkle::empty_root;
use ledger::transaction::SeenHead;
use ledger::{
    Allocation, AssetType, AtomicGroupId, Body, Command, Contract, Grant, Hash, Input, Intent, Leg, LogTime, Movements,
    Origin, Party, Position, Quantity, Reference, Sequence, SupplyChange, Terms, TermsAction, TermsEntry, Transaction,
    TransactionId, Unlock,
};
use proptest::prelude::*;

use crate::support::{Submitted, asset, identity, issuer_of, key, party};

const PARTIES: [&str; 3] = ["alice", "bob", "carol"];
const SYMBOLS: [&str; 3] = ["EUR", "GOLD", "USD"];

/// One batch: when, and what.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub(crate) log_time: LogTime,
    pub(crate) submissions: Vec<Submitted>,
}

/// What a transaction of the history is about.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Issue,
    Redeem,
    Pay,
    Merge,
    Grant,
    Revoke,
    Book,
    Propose,
    Settle,
    Withdraw,
    Reject,
    Expire,
    Transfer,
    Swap,
    Again,
}

/// A transaction in numbers; the writer makes a transaction of it.
#[derive(Debug, Clone, Copy)]
struct Step {
    kind: Kind,
    picks: [u8; 4],
    amount: u8,
    /// Below 8: one of several small sins against time and heads.
    sin: u8,
}

/// Batches of submissions of steps, with the time between batches and a shuffle of each batch's submissions.
pub(crate) fn histories() -> impl Strategy<Value = Vec<Batch>> {
    let kinds = prop_oneof![
        4 => Just(Kind::Issue), 1 => Just(Kind::Redeem), 6 => Just(Kind::Pay), 2 => Just(Kind::Merge),
        2 => Just(Kind::Grant), 2 => Just(Kind::Revoke), 4 => Just(Kind::Book), 4 => Just(Kind::Propose),
        4 => Just(Kind::Settle), 1 => Just(Kind::Withdraw), 1 => Just(Kind::Reject), 2 => Just(Kind::Expire),
        1 => Just(Kind::Again),
    ];
    batches(kinds.boxed())
}

/// The same with commands among them.
pub(crate) fn histories_with_commands() -> impl Strategy<Value = Vec<Batch>> {
    let kinds = prop_oneof![
        8 => Just(Kind::Issue), 3 => Just(Kind::Pay), 1 => Just(Kind::Propose), 1 => Just(Kind::Book),
        1 => Just(Kind::Grant), 8 => Just(Kind::Transfer), 3 => Just(Kind::Swap), 1 => Just(Kind::Again),
    ];
    batches(kinds.boxed())
}

fn batches(kinds: BoxedStrategy<Kind>) -> impl Strategy<Value = Vec<Batch>> {
    let step = (kinds, any::<[u8; 4]>(), 1_u8..20, 0_u8..160).prop_map(|(kind, picks, amount, sin)| Step {
        kind,
        picks,
        amount,
        sin,
    });
    let submission = prop_oneof![9 => 1_usize..2, 1 => 2_usize..4]
        .prop_flat_map(move |members| prop::collection::vec(step.clone(), members));
    let batch = (prop::collection::vec(submission, 1..14), 0_u64..3, any::<bool>());
    prop::collection::vec(batch, 1..5).prop_map(|batches| {
        let mut writer = Writer::default();
        let mut log_time = 1_000;
        let mut written = Vec::new();
        for (submissions, seconds, reversed) in batches {
            log_time += seconds * 1_000;
            let mut submissions: Vec<Submitted> =
                submissions.into_iter().map(|steps| writer.submission(&steps, log_time)).collect();
            if reversed && submissions.len() > 6 {
                // what the tail creates is named before
                submissions.rotate_left(5);
            }
            written.push(Batch { log_time: LogTime::from_unix_millis(log_time), submissions });
        }
        written
    })
}

/// An output as the writer expects it.
#[derive(Debug, Clone, Copy)]
struct Expected {
    origin: Origin,
    contract: Contract,
    spent: bool,
}

#[derive(Default)]
struct Writer {
    outputs: Vec<Expected>,
    earlier: Vec<Submitted>,
    nonce: u64,
}

/// A transaction without its envelope.
struct Content {
    intent: Intent,
    signers: Vec<&'static str>,
}

impl Writer {
    fn submission(&mut self, steps: &[Step], log_time: u64) -> Submitted {
        if let ([Step { kind: Kind::Again, picks, .. }], false) = (steps, self.earlier.is_empty()) {
            return self.earlier[usize::from(picks[0]) % self.earlier.len()].clone();
        }
        let mut drafts: Vec<(Body, Vec<&'static str>)> = Vec::new();
        for step in steps {
            let draft = match self.sequenced_before(step) {
                Some(body) => (body.clone(), body.signers.iter().map(name_of).collect()),
                None => {
                    let content = self.content(step, log_time);
                    self.envelope(content, step, log_time)
                }
            };
            // at once, so that later members of a group spend what earlier ones create
            self.expect_outputs(&draft.0);
            drafts.push(draft);
        }
        if drafts.len() > 1 {
            let ids: Vec<TransactionId> = drafts.iter().map(|(body, _)| body.id()).collect();
            let group = AtomicGroupId::of(&ids);
            drafts.iter_mut().for_each(|(body, _)| body.atomic = Some(group));
        }
        let members: Vec<Transaction> = drafts.into_iter().map(|(body, signers)| sign(body, &signers)).collect();
        let submitted = Submitted { stamp: Sequence::new(self.nonce), members };
        self.earlier.push(submitted.clone());
        submitted
    }

    /// The body of an earlier transaction, to be made a member of another group.
    fn sequenced_before(&self, step: &Step) -> Option<Body> {
        let again = matches!(step.kind, Kind::Again) && !self.earlier.is_empty();
        let earlier = again.then(|| &self.earlier[usize::from(step.picks[0]) % self.earlier.len()])?;
        let member = &earlier.members[usize::from(step.picks[1]) % earlier.members.len()];
        Some(Body { atomic: None, ..member.body.clone() })
    }

    fn envelope(&mut self, content: Content, step: &Step, log_time: u64) -> (Body, Vec<&'static str>) {
        self.nonce += 1;
        let valid_until = match step.sin {
            0 => log_time,
            1 => log_time + 86_400_001,
            2 => log_time + 1,
            _ => log_time + 60_000,
        };
        let seen_head = match step.sin {
            3 => Some(SeenHead { size: Sequence::new(u64::from(step.amount)), log_root: Hash::from_bytes([1; 32]) }),
            4 => Some(SeenHead { size: Sequence::default(), log_root: empty_root() }),
            _ => None,
        };
        let mut named: BTreeMap<Party, &'static str> =
            content.signers.iter().map(|name| (party(name), *name)).collect();
        if step.sin == 5 {
            named.pop_first();
        }
        let body = Body {
            cluster: identity().cluster,
            group: 0,
            valid_until: LogTime::from_unix_millis(valid_until),
            nonce: self.nonce,
            seen_head,
            signers: named.keys().copied().collect(),
            intent: content.intent,
            atomic: None,
        };
        (body, named.into_values().collect())
    }

    /// Remembers what the transaction would create and consume. A command's change is not foreseen.
    fn expect_outputs(&mut self, body: &Body) {
        let id = body.id();
        let contracts: Vec<Contract> = match &body.intent {
            Intent::Movements(movements) => {
                for input in &movements.inputs {
                    let known = self.outputs.iter_mut().filter(|output| output.origin == input.origin);
                    known.for_each(|output| output.spent = true);
                }
                movements.outputs.clone()
            }
            Intent::Command(command) => {
                legs_of(command).iter().map(|leg| position(leg.receiver, leg.asset, leg.quantity)).collect()
            }
        };
        for (index, contract) in contracts.into_iter().enumerate() {
            let origin = Origin { transaction: id, index: u16::try_from(index).unwrap() };
            self.outputs.push(Expected { origin, contract, spent: false });
        }
    }

    fn content(&self, step: &Step, log_time: u64) -> Content {
        let [a, b, c, _] = step.picks;
        let (one, other) = (PARTIES[usize::from(a) % 3], PARTIES[(usize::from(a) + 1 + usize::from(b) % 2) % 3]);
        let symbol = SYMBOLS[usize::from(c) % 3];
        let amount = Quantity::new(i128::from(step.amount));
        let made = match step.kind {
            // more positions than commands look at in one go
            Kind::Issue if step.picks[3] < 40 => Some(issue_in_pieces(symbol, one, 40)),
            Kind::Issue | Kind::Again => None,
            Kind::Redeem => self.redeem(step),
            Kind::Pay => self.pay(step, other),
            Kind::Merge => self.merge(step),
            Kind::Grant => Some(content(
                Movements {
                    outputs: vec![Contract::Grant(Grant { asset: asset(symbol), owner: party(one) })],
                    ..Movements::default()
                },
                &[issuer_of(symbol)],
            )),
            Kind::Revoke => self.revoke(step),
            Kind::Book => self.book(step, amount),
            Kind::Propose => self.propose(step, other, log_time),
            Kind::Settle => self.settle(step),
            Kind::Withdraw | Kind::Reject | Kind::Expire => self.give_back(step),
            Kind::Transfer => Some(Content {
                intent: Intent::Command(Command::Transfer {
                    asset: asset(symbol),
                    from: party(one),
                    to: party(other),
                    quantity: Quantity::new(i128::from(if step.sin < 30 { step.amount } else { step.amount % 6 + 1 })),
                }),
                signers: vec![one],
            }),
            Kind::Swap => {
                let back = SYMBOLS[(usize::from(c) + 1) % 3];
                let leg = |payer, receiver, symbol, quantity| Leg {
                    payer: party(payer),
                    receiver: party(receiver),
                    asset: asset(symbol),
                    quantity: Quantity::new(quantity),
                };
                let legs = vec![leg(one, other, symbol, 2), leg(other, one, back, 1), leg(one, other, symbol, 3)];
                let terms = Terms { legs, nonce: u64::from(step.amount) };
                Some(Content { intent: Intent::Command(Command::Settle { terms }), signers: vec![one, other] })
            }
        };
        made.unwrap_or_else(|| issue(symbol, one, amount))
    }

    /// The output that the pick names among those that fit: usually an unspent one, at times any.
    fn pick(&self, step: &Step, pick: u8, fits: impl Fn(&Contract) -> bool) -> Option<Expected> {
        let spent_too = step.sin % 10 == 9;
        let fitting: Vec<&Expected> =
            self.outputs.iter().filter(|output| (spent_too || !output.spent) && fits(&output.contract)).collect();
        let index = usize::from(pick).checked_rem(fitting.len())?;
        let mut picked = *fitting[index];
        if step.sin == 6 {
            picked.origin.index += 1;
        }
        Some(picked)
    }

    fn pick_position(&self, step: &Step) -> Option<(Expected, Position)> {
        let output = self.pick(step, step.picks[3], |contract| matches!(contract, Contract::Position(_)))?;
        match output.contract {
            Contract::Position(held) => Some((output, held)),
            _ => None,
        }
    }

    fn redeem(&self, step: &Step) -> Option<Content> {
        let (output, held) = self.pick_position(step)?;
        let quantity = Quantity::ZERO.checked_sub(held.quantity)?;
        let movements = Movements {
            inputs: vec![input(&output, Unlock::Owner)],
            supply: vec![SupplyChange { asset: held.asset, quantity }],
            ..Movements::default()
        };
        Some(content(movements, &[name_of(&held.owner), issuer_of(held.asset.symbol.as_str())]))
    }

    fn pay(&self, step: &Step, to: &str) -> Option<Content> {
        let (output, held) = self.pick_position(step)?;
        let whole = held.quantity.minor_units();
        let part = i128::from(step.amount).min(whole);
        let outputs = [(part, party(to)), (whole - part, held.owner)]
            .into_iter()
            .filter(|(quantity, _)| *quantity != 0)
            .map(|(quantity, owner)| position(owner, held.asset, Quantity::new(quantity)));
        let movements = Movements {
            inputs: vec![input(&output, Unlock::Owner)],
            outputs: outputs.collect(),
            ..Movements::default()
        };
        // a debt that changes hands needs a grant, so such a payment is refused; so be it
        Some(content(movements, &[name_of(&held.owner)]))
    }

    /// All unspent positions of one owner and asset become one: debts meet holdings here.
    fn merge(&self, step: &Step) -> Option<Content> {
        let (_, held) = self.pick_position(step)?;
        let same = |contract: &Contract| match contract {
            Contract::Position(other) => other.owner == held.owner && other.asset == held.asset,
            _ => false,
        };
        let outputs: Vec<Expected> =
            self.outputs.iter().filter(|output| !output.spent && same(&output.contract)).copied().collect();
        let sum: i128 =
            outputs.iter().filter_map(|output| output.contract.value()).map(|(_, it)| it.minor_units()).sum();
        let movements = Movements {
            inputs: outputs.iter().map(|output| input(output, Unlock::Owner)).collect(),
            outputs: (sum != 0).then(|| position(held.owner, held.asset, Quantity::new(sum))).into_iter().collect(),
            ..Movements::default()
        };
        Some(content(movements, &[name_of(&held.owner)]))
    }

    fn revoke(&self, step: &Step) -> Option<Content> {
        let output = self.pick(step, step.picks[3], |contract| matches!(contract, Contract::Grant(_)))?;
        let movements = Movements { inputs: vec![input(&output, Unlock::Owner)], ..Movements::default() };
        Some(content(movements, &[issuer_of(output.contract.asset().symbol.as_str())]))
    }

    fn book(&self, step: &Step, amount: Quantity) -> Option<Content> {
        let output = self.pick(step, step.picks[3], |contract| matches!(contract, Contract::Grant(_)))?;
        let Contract::Grant(grant) = output.contract else { return None };
        let negative = Quantity::ZERO.checked_sub(amount)?;
        let movements = Movements {
            references: vec![Reference { origin: output.origin, contract: output.contract }],
            outputs: vec![position(grant.owner, grant.asset, amount), position(grant.owner, grant.asset, negative)],
            ..Movements::default()
        };
        Some(content(movements, &[name_of(&grant.owner)]))
    }

    /// Locks a whole position to a trade against the next asset. The trade is the same for equal positions, so
    /// several allocations may compete for one leg.
    fn propose(&self, step: &Step, other: &'static str, log_time: u64) -> Option<Content> {
        let (output, held) = self.pick_position(step)?;
        let me = name_of(&held.owner);
        let partner = if me == other { PARTIES.into_iter().find(|name| *name != me)? } else { other };
        let terms = trade(held, me, partner);
        let locked = Allocation {
            terms: terms.id(),
            leg: 0,
            asset: held.asset,
            quantity: held.quantity,
            payer: held.owner,
            return_to: if step.picks[1].is_multiple_of(3) { party("carol") } else { held.owner },
            expires_at: LogTime::from_unix_millis(log_time + u64::from(step.picks[2] % 4) * 1_000),
        };
        let movements = Movements {
            inputs: vec![input(&output, Unlock::Owner)],
            outputs: vec![Contract::Allocation(locked)],
            terms: vec![TermsEntry { action: TermsAction::Propose, terms }],
            ..Movements::default()
        };
        Some(content(movements, &[me]))
    }

    /// The partner pays its leg out of a position that is large enough, and takes the change.
    fn settle(&self, step: &Step) -> Option<Content> {
        let output = self.pick(step, step.picks[3], |contract| matches!(contract, Contract::Allocation(_)))?;
        let Contract::Allocation(locked) = output.contract else { return None };
        let terms = terms_of(&locked)?;
        let back = terms.legs[1];
        let fits = |contract: &Contract| match contract {
            Contract::Position(held) => {
                held.owner == back.payer && held.asset == back.asset && held.quantity >= back.quantity
            }
            _ => false,
        };
        let funds = self.pick(step, step.picks[2], fits)?;
        let (_, whole) = funds.contract.value()?;
        let change = whole.checked_sub(back.quantity)?;
        let mut outputs = vec![
            position(back.payer, locked.asset, locked.quantity),
            position(back.receiver, back.asset, back.quantity),
        ];
        outputs.extend((change != Quantity::ZERO).then(|| position(back.payer, back.asset, change)));
        let movements = Movements {
            inputs: vec![input(&output, Unlock::Settle), input(&funds, Unlock::Owner)],
            outputs,
            terms: vec![TermsEntry { action: TermsAction::Settle, terms }],
            ..Movements::default()
        };
        Some(content(movements, &[name_of(&back.payer)]))
    }

    fn give_back(&self, step: &Step) -> Option<Content> {
        let output = self.pick(step, step.picks[3], |contract| matches!(contract, Contract::Allocation(_)))?;
        let Contract::Allocation(locked) = output.contract else { return None };
        let terms = terms_of(&locked)?;
        let (unlock, entries, signers) = match step.kind {
            Kind::Withdraw => (Unlock::Withdraw, vec![], vec![name_of(&locked.payer)]),
            Kind::Reject => {
                let partner = name_of(&terms.legs[1].payer);
                (Unlock::Reject, vec![TermsEntry { action: TermsAction::Reject, terms }], vec![partner])
            }
            _ => (Unlock::Expire, vec![], vec![]),
        };
        let movements = Movements {
            inputs: vec![input(&output, unlock)],
            outputs: vec![position(locked.return_to, locked.asset, locked.quantity)],
            terms: entries,
            ..Movements::default()
        };
        Some(content(movements, &signers))
    }
}

/// The trade that an allocation belongs to: there are few enough to try them all.
fn terms_of(locked: &Allocation) -> Option<Terms> {
    let held = Position { asset: locked.asset, owner: locked.payer, quantity: locked.quantity };
    let candidates = PARTIES.into_iter().map(|partner| trade(held, name_of(&locked.payer), partner));
    candidates.into_iter().find(|terms| terms.id() == locked.terms)
}

/// Two of the next asset for whatever is locked.
fn trade(held: Position, me: &str, partner: &str) -> Terms {
    let next = SYMBOLS.iter().position(|symbol| *symbol == held.asset.symbol.as_str()).unwrap() + 1;
    let there = Leg { payer: party(me), receiver: party(partner), asset: held.asset, quantity: held.quantity };
    let back =
        Leg { payer: party(partner), receiver: party(me), asset: asset(SYMBOLS[next % 3]), quantity: Quantity::new(2) };
    Terms { legs: vec![there, back], nonce: 0 }
}

fn issue(symbol: &str, to: &str, quantity: Quantity) -> Content {
    let movements = Movements {
        outputs: vec![position(party(to), asset(symbol), quantity)],
        supply: vec![SupplyChange { asset: asset(symbol), quantity }],
        ..Movements::default()
    };
    content(movements, &[issuer_of(symbol)])
}

fn issue_in_pieces(symbol: &str, to: &str, pieces: u8) -> Content {
    let movements = Movements {
        outputs: vec![position(party(to), asset(symbol), Quantity::new(1)); usize::from(pieces)],
        supply: vec![SupplyChange { asset: asset(symbol), quantity: Quantity::new(i128::from(pieces)) }],
        ..Movements::default()
    };
    content(movements, &[issuer_of(symbol)])
}

fn content(movements: Movements, signers: &[&'static str]) -> Content {
    Content { intent: Intent::Movements(movements), signers: signers.to_vec() }
}

fn position(owner: Party, asset: AssetType, quantity: Quantity) -> Contract {
    Contract::Position(Position { asset, owner, quantity })
}

fn input(output: &Expected, unlock: Unlock) -> Input {
    Input { origin: output.origin, contract: output.contract, unlock }
}

fn legs_of(command: &Command) -> Vec<Leg> {
    match command {
        Command::Transfer { asset, from, to, quantity } => {
            vec![Leg { payer: *from, receiver: *to, asset: *asset, quantity: *quantity }]
        }
        Command::Settle { terms } => terms.legs.clone(),
    }
}

fn name_of(owner: &Party) -> &'static str {
    let everyone = PARTIES.into_iter().chain([issuer_of("USD"), issuer_of("GOLD")]);
    let mut named = everyone.filter(|name| party(name) == *owner);
    named.next().expect("nobody else signs")
}

fn sign(body: Body, signers: &[&str]) -> Transaction {
    let signatures = signers.iter().map(|name| key(name).sign_transaction(&body)).collect();
    Transaction { body, signatures }
}
